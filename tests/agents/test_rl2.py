"""RL²: what it sees, what it remembers, and that it learns to explore bandits."""

import pytest
import torch

import metarl
from metarl.agents.recurrent import RecurrentPolicy
from metarl.agents.rl2 import RL2, RL2Config
from metarl.randomness import make_generator


def make_agent(distribution, seed=0, **options):
    config = RL2Config(**({"num_tasks": 6, "hidden": 16} | options))
    return RL2(config, metarl.EnvSpec.of(distribution), seed=seed)


def train(agent, distribution, iterations, first=0):
    env = distribution.make_env(agent.config.num_tasks, agent.config.envs_per_task)
    for i in range(first, first + iterations):
        env.set_tasks(distribution.sample(agent.config.num_tasks, seed=i))
        metrics = agent.improve(env, seed=i)
    return metrics


def test_it_learns_to_explore_bandits():
    distribution = metarl.make("Bandit-v0")
    agent = make_agent(distribution, num_tasks=300, hidden=32, episodes_per_trial=1, lr=3e-3)
    train(agent, distribution, 40)
    evaluation = metarl.evaluate(agent, distribution, num_tasks=1000)
    assert evaluation.episodes_used == [0]
    assert evaluation.returns.mean() > 5.7  # random: 5.0


@pytest.mark.parametrize("id", ["Bandit-v0", "TabularMDP-v0", "PointNavigation-v0"])
def test_the_network_is_trained_on_exactly_what_it_saw_when_it_acted(id):
    """The log-probabilities recomputed from trajectories are those of acting step by step, over episode ends."""
    distribution = metarl.make(id, **({"horizon": 7} if id == "PointNavigation-v0" else {}))
    agent = make_agent(distribution)
    train(agent, distribution, 2)  # so that normalisation is not the identity
    env = distribution.make_env(3, 2)
    env.set_tasks(distribution.sample(3, seed=0))
    policy = RecurrentPolicy(agent.network, make_generator("test"))
    trajectories = metarl.collect(env, policy, 3 * distribution.horizon, seed=0)
    inputs = agent.network.trial_inputs(trajectories).flatten(1, 2)
    phi, _, hidden = agent.network(inputs)
    log_probs = agent.network.head.log_prob(phi, trajectories.actions.flatten(1, 2))
    torch.testing.assert_close(log_probs, trajectories.log_probs.flatten(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(hidden[0], policy.memory.hidden.flatten(0, 1), rtol=1e-4, atol=1e-5)


def test_it_sees_the_last_reward_and_the_end_of_every_episode():
    distribution = metarl.make("TabularMDP-v0", horizon=4)
    agent = make_agent(distribution)
    env = distribution.make_env(2, 3)
    env.set_tasks(distribution.sample(2, seed=0))
    trajectories = metarl.collect(env, RecurrentPolicy(agent.network, make_generator("test")), 8, seed=0)
    inputs = agent.network.trial_inputs(trajectories)
    states, actions = 10, 5
    assert not inputs[0, ..., states:].any()  # nothing has happened yet
    for t in range(1, 8):
        action, reward, ended = inputs[t, ..., states:].split([actions, 1, 1], dim=-1)
        assert torch.equal(action.argmax(-1), trajectories.actions[t - 1])
        torch.testing.assert_close(reward[..., 0], trajectories.rewards[t - 1])
        assert torch.equal(ended[..., 0].bool(), torch.full((2, 3), t == 4))
        assert torch.equal(inputs[t, ..., :states], trajectories.observations[t])


def test_memory_stops_when_its_episodes_are_over():
    """Environments whose episodes end early wait: their memory is that of a shorter trial, bit for bit."""
    distribution = metarl.make("CartPoleParams-v0", vectorization="sync")
    agent = make_agent(distribution)
    env = distribution.make_env(4, 1)
    env.set_tasks(distribution.sample(4, seed=0))

    def live(episodes, steps):
        policy = RecurrentPolicy(agent.network, make_generator("test"), episodes=episodes)
        return metarl.collect(env, policy, steps, seed=5), policy.memory

    trajectories, memory = live(1, 200)
    lengths = (trajectories.episode_index == 0).sum(0)[:, 0]
    assert len(lengths.unique()) > 1
    for i, length in enumerate(lengths.tolist()):
        _, shorter = live(None, length)
        torch.testing.assert_close(memory.hidden[i], shorter.hidden[i])
        assert memory.reward[i] == shorter.reward[i]
        assert memory.ended[i].item()
    env.close()


def test_adapting_further_goes_on_from_the_memory_and_leaves_the_policy_as_it_was():
    distribution = metarl.make("Bandit-v0")
    agent = make_agent(distribution)
    env = distribution.make_env(3, 2)
    env.set_tasks(distribution.sample(3, seed=0))
    first = agent.adapt(env, 1, seed=1)
    before = first.memory.hidden.clone()
    second = agent.adapt(env, 1, seed=2, policy=first)
    assert torch.equal(first.memory.hidden, before)
    assert not torch.allclose(second.memory.hidden, before)
    probe = agent.adapt(env, 0, policy=first)
    metarl.collect(env, probe, 5)
    assert torch.equal(first.memory.hidden, before)
    assert agent.stages(3) == [0, 1, 2, 3]


def test_rescaling_the_value_keeps_its_predictions():
    distribution = metarl.make("Bandit-v0")
    network = make_agent(distribution).network
    inputs = torch.randn(4, 3, network.gru.input_size)
    network.update_return_norm(torch.randn(10, 2), torch.ones(10, 2, dtype=torch.bool))
    before = network.denormalize(network(inputs)[1])
    network.update_return_norm(50 + 9 * torch.randn(10, 2), torch.ones(10, 2, dtype=torch.bool))
    torch.testing.assert_close(network.denormalize(network(inputs)[1]), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("id", ["PointNavigation-v0", "Bandit-v0"])
def test_going_on_from_a_saved_state_is_exact(id):
    distribution = metarl.make(id, **({"horizon": 10} if id == "PointNavigation-v0" else {}))
    straight, half, resumed = (make_agent(distribution, seed=seed) for seed in (0, 0, 99))
    train(straight, distribution, 3)
    train(half, distribution, 2)
    resumed.load_state(*half.state())
    train(resumed, distribution, 1, first=2)
    expected, actual = straight.state()[0], resumed.state()[0]
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_default_batches_follow_the_horizon():
    tasks = {
        id: RL2.default_config(metarl.EnvSpec.of(metarl.make(id))).num_tasks
        for id in ("Bandit-v0", "PointNavigation-v0")
    }
    assert tasks == {"Bandit-v0": 1000, "PointNavigation-v0": 100}


def test_a_state_of_another_shape_is_refused():
    distribution = metarl.make("Bandit-v0")
    with pytest.raises(metarl.UsageError, match="not of this agent"):
        make_agent(distribution).load_state(*make_agent(distribution, hidden=7).state())
