"""RL²: what it sees, what it remembers, and that it learns to explore bandits."""

import copy
import itertools

import pytest
import torch
from practice import assert_goes_on_exactly, train

import metarl
from metarl.agents.recurrent import RecurrentPolicy
from metarl.agents.rl2 import RL2, RL2Config
from metarl.randomness import make_generator


def make_agent(distribution, seed=0, **options):
    config = RL2Config(**({"num_tasks": 6, "hidden": 16} | options))
    return RL2(config, metarl.EnvSpec.of(distribution), seed=seed)


def test_it_learns_to_explore_bandits():
    distribution = metarl.make("Bandit-v0")
    agent = make_agent(distribution, num_tasks=300, hidden=32, episodes_per_trial=1, lr=3e-3)
    train(agent, distribution, 40)
    evaluation = metarl.evaluate(agent, distribution, num_tasks=1000)
    assert evaluation.episodes_used == [0]
    assert evaluation.returns.mean() > 5.7  # random: 5.0


@pytest.mark.parametrize("episodes", [None, 2], ids=["one trial", "trials of two"])
@pytest.mark.parametrize("core", ["gru", "lstm"])
@pytest.mark.parametrize("id", ["Bandit-v0", "TabularMDP-v0", "PointNavigation-v0"])
def test_the_network_is_trained_on_exactly_what_it_saw_when_it_acted(id, core, episodes):
    """Log-probabilities recomputed from trajectories are those of acting, over ends of episodes and of trials."""
    distribution = metarl.make(id, **({"horizon": 7} if id == "PointNavigation-v0" else {}))
    agent = make_agent(distribution, core=core)
    train(agent, distribution, 2)  # so that normalisation is not the identity
    env = distribution.make_env(3, 2)
    env.set_tasks(distribution.sample(3, seed=0))
    policy = RecurrentPolicy(agent.network, make_generator("test"))
    trajectories = metarl.collect(env, policy, 5 * distribution.horizon, seed=0, episodes_per_trial=episodes)
    inputs = agent.network.trial_inputs(trajectories).flatten(1, 2)
    starts = trajectories.trial_starts.flatten(1)
    phi, _, hidden = agent.network(inputs, starts if starts[1:].any() else None)
    log_probs = agent.network.head.log_prob(phi, trajectories.actions.flatten(1, 2))
    torch.testing.assert_close(log_probs, trajectories.log_probs.flatten(1), rtol=1e-4, atol=1e-5)
    if episodes is None:
        torch.testing.assert_close(hidden[0], policy.memory.hidden[0], rtol=1e-4, atol=1e-5)


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

    def live(**length):
        policy = RecurrentPolicy(agent.network, make_generator("test"))
        return metarl.collect(env, policy, seed=5, **length), policy.memory

    trajectories, memory = live(episodes=1)
    lengths = (trajectories.episode_index == 0).sum(0)[:, 0]
    assert len(lengths.unique()) > 1
    for i, length in enumerate(lengths.tolist()):
        _, shorter = live(num_steps=length)
        torch.testing.assert_close(memory.hidden[0][i], shorter.hidden[0][i])
        assert memory.reward[i] == shorter.reward[i]
        assert memory.ended[i].item()
    env.close()


def test_an_episode_of_adaptation_is_an_episode_whatever_the_training_was():
    """Trained at 10 steps an episode, adapted at 50: memory has seen 50 steps and the end of an episode."""
    trained = metarl.make("PointNavigation-v0", horizon=10)
    agent = make_agent(trained)
    distribution = metarl.make("PointNavigation-v0", horizon=50)
    env = distribution.make_env(2, 1)
    env.set_tasks(distribution.sample(2, split="test", seed=0))
    policy = agent.adapt(env, 1, seed=3)
    assert policy.memory.ended.all()
    other = RecurrentPolicy(agent.network, make_generator("rl2", "adapt", 3))
    trajectories = metarl.collect(env, other, 50, seed=3)
    assert trajectories.ended[-1].all()
    torch.testing.assert_close(policy.memory.hidden[0], other.memory.hidden[0])


def test_the_adapted_policy_does_not_change_when_training_goes_on():
    distribution = metarl.make("PointNavigation-v0", horizon=10)
    agent = make_agent(distribution)
    env = distribution.make_env(6, 1)
    env.set_tasks(distribution.sample(6, seed=0))
    for episodes in (0, 1):
        policy = agent.adapt(env, episodes, seed=1)
        before = metarl.collect(env, policy.fork(), 10, seed=2).actions
        train(agent, distribution, 2)
        assert torch.equal(metarl.collect(env, policy.fork(), 10, seed=2).actions, before)


def test_a_forks_trial_teaches_the_policy_nothing():
    distribution = metarl.make("Bandit-v0")
    agent = make_agent(distribution)
    env = distribution.make_env(3, 2)
    env.set_tasks(distribution.sample(3, seed=0))
    policy = agent.adapt(env, 1, seed=1)
    hidden = policy.memory.hidden[0].clone()
    first = metarl.collect(env, policy.fork(), 10, seed=2)
    second = metarl.collect(env, policy.fork(), 10, seed=2)
    assert torch.equal(first.actions, second.actions)
    assert torch.equal(policy.memory.hidden[0], hidden)


def test_a_new_trial_begins_blank_and_only_where_it_begins():
    distribution = metarl.make("Bandit-v0")
    agent = make_agent(distribution)
    env = distribution.make_env(3, 2)
    env.set_tasks(distribution.sample(3, seed=0))
    policy = agent.adapt(env, 1, seed=1)
    hidden = policy.memory.hidden[0].clone()
    mask = torch.tensor([[True, False], [False, False], [False, True]])
    policy.begin_trial(mask)
    assert not policy.memory.hidden[0][mask.flatten()].any()
    assert policy.memory.first.tolist() == mask.flatten().tolist()
    assert torch.equal(policy.memory.hidden[0][~mask.flatten()], hidden[~mask.flatten()])


def test_trials_of_short_episodes_are_all_learned_from_but_the_last():
    """The update's columns, against each trial run through the network by itself."""
    distribution = metarl.make("CartPoleParams-v0", horizon=40)
    agent = make_agent(distribution)
    train(agent, distribution, 1)
    env = distribution.make_env(4, 1)
    env.set_tasks(distribution.sample(4, seed=0))
    actor = RecurrentPolicy(agent.network, make_generator("test"))
    trajectories = metarl.collect(env, actor, 160, episodes_per_trial=2, seed=0)
    valid = trajectories.in_complete_trials(2)
    scale = agent.network.return_norm
    raw = agent.network.trial_inputs(trajectories)[:, :, 0]
    with torch.no_grad():
        values = agent.network.denormalize(agent.network(raw, trajectories.trial_starts[:, :, 0])[1])
    before = copy.deepcopy(agent.network)
    columns = agent._columns(trajectories, valid)
    returns = columns.targets * scale.std + scale.mean
    number = 0
    for m in range(4):
        starts = trajectories.trial_starts[:, m, 0].nonzero()[:, 0].tolist()
        for first, beyond in itertools.pairwise(starts):  # the last of a column is not complete
            number += 1
            trial = slice(first, beyond)
            assert valid[trial, m, 0].all()
            alone = before.denormalize(before(raw[trial, m][:, None])[1])[:, 0].detach()
            torch.testing.assert_close(alone, values[trial, m], atol=1e-4, rtol=1e-4)
            expected, following, value_after = [], 0.0, 0.0
            for t in reversed(range(first, beyond)):
                delta = trajectories.rewards[t, m, 0] + 0.99 * value_after - values[t, m]
                following = delta + 0.99 * 0.95 * following
                value_after = values[t, m]
                expected.insert(0, float(following + values[t, m]))
            torch.testing.assert_close(returns[trial, m], torch.tensor(expected), atol=1e-3, rtol=1e-3)
    assert number > 4
    assert columns.starts is not None
    env.close()


def test_the_standard_deviation_learns_at_the_edge_of_its_range():
    """Clamping where it is used would leave no gradient outside, not even the entropy bonus's."""
    distribution = metarl.make("PointNavigation-v0", horizon=5)
    network = make_agent(distribution).network
    with torch.no_grad():
        network.log_std.fill_(2.0)
    phi, _, _ = network(torch.randn(4, 3, network.core.inputs))
    network.head.entropy(phi).mean().backward()
    assert (network.log_std.grad > 0).all()
    network.keep_in_range()
    assert (network.log_std == 1.0).all()
    agent = make_agent(distribution, initial_std=2.7, entropy_bonus=10.0, lr=0.1)
    train(agent, distribution, 2)
    assert (agent.network.log_std <= 1.0).all()
    with pytest.raises(metarl.UsageError, match="initial_std must lie in"):
        make_agent(distribution, initial_std=3.0)


def test_adapting_further_goes_on_from_the_memory_and_leaves_the_policy_as_it_was():
    distribution = metarl.make("Bandit-v0")
    agent = make_agent(distribution)
    env = distribution.make_env(3, 2)
    env.set_tasks(distribution.sample(3, seed=0))
    first = agent.adapt(env, 1, seed=1)
    before = first.memory.hidden[0].clone()
    second = agent.adapt(env, 1, seed=2, policy=first)
    assert torch.equal(first.memory.hidden[0], before)
    assert not torch.allclose(second.memory.hidden[0], before)
    probe = agent.adapt(env, 0, policy=first)
    metarl.collect(env, probe, 5)
    assert torch.equal(first.memory.hidden[0], before)
    assert agent.stages(3) == [0, 1, 2, 3]


def test_rescaling_the_value_keeps_its_predictions():
    distribution = metarl.make("Bandit-v0")
    network = make_agent(distribution).network
    inputs = torch.randn(4, 3, network.core.inputs)
    network.update_return_norm(torch.randn(10, 2), torch.ones(10, 2, dtype=torch.bool))
    before = network.denormalize(network(inputs)[1])
    network.update_return_norm(50 + 9 * torch.randn(10, 2), torch.ones(10, 2, dtype=torch.bool))
    torch.testing.assert_close(network.denormalize(network(inputs)[1]), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("id", ["PointNavigation-v0", "Bandit-v0"])
def test_going_on_from_a_saved_state_is_exact(id):
    distribution = metarl.make(id, **({"horizon": 10} if id == "PointNavigation-v0" else {}))
    assert_goes_on_exactly(lambda seed: make_agent(distribution, seed=seed), distribution, before=2)


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
