"""VariBAD: what its policy knows and when, what trains what, and that it learns, saves and adapts everywhere."""

import shutil

import pytest
import torch
from pictures import Quarters
from practice import train

import metarl
from metarl.agents.belief import Experience
from metarl.agents.belief_policy import READ, BeliefPolicy, clock
from metarl.agents.varibad import VariBAD, VariBADConfig
from metarl.errors import NumericalFault
from metarl.experiment.checkpoints import load_checkpoint
from metarl.randomness import make_generator

SMALL = {"num_tasks": 6, "hidden": 16, "policy_hidden": (16,), "elbo_terms": 8, "decoded_steps": 8, "belief_batch": 4}
FAMILIES = {
    "Bandit-v0": {},
    "PointNavigation-v0": {"horizon": 10},
    "CartPoleParams-v0": {"horizon": 30, "vectorization": "sync"},
    "HalfCheetahVel-v0": {"horizon": 10},
    "ML1-reach-v3": {"horizon": 10},
}


def make_agent(distribution, seed=0, **options):
    return VariBAD(VariBADConfig(**(SMALL | options)), metarl.EnvSpec.of(distribution), seed=seed)


def make_env(distribution, tasks=3, envs=2):
    env = distribution.make_env(tasks, envs)
    env.set_tasks(distribution.sample(tasks, seed=0))
    return env


def numbers(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before, module):
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.slow
def test_it_learns_to_use_what_it_believes():
    distribution = metarl.make("Bandit-v0", arms=2, pulls=6)
    agent = make_agent(distribution, num_tasks=200, episodes_per_trial=1, lr=5e-3, belief_batch=50, belief_lr=5e-3)
    history = train(agent, distribution, 40)
    evaluation = metarl.evaluate(agent, distribution, num_tasks=1000)
    assert evaluation.returns.mean() > 3.45  # random: 3.0
    assert history[-1]["elbo"] > history[1]["elbo"]


@pytest.mark.parametrize("episodes", [None, 2], ids=["one trial", "trials of two"])
@pytest.mark.parametrize("id", ["TabularMDP-v0", "CartPoleParams-v0"])
def test_the_networks_are_trained_on_exactly_what_they_saw_when_they_acted(id, episodes):
    """Log-probabilities and beliefs recomputed from whole columns are those of acting step by step."""
    distribution = metarl.make(id, horizon=7)
    agent = make_agent(distribution)
    train(agent, distribution, 2)  # so that normalisation is not the identity
    env = make_env(distribution)
    policy = BeliefPolicy(agent.model, agent.network, make_generator("test"))
    trajectories = metarl.collect(env, policy, 5 * distribution.horizon, seed=0, episodes_per_trial=episodes)
    e = Experience.of(trajectories, torch.ones_like(trajectories.ended))
    with torch.no_grad():
        after = agent.model.beliefs(e.actions, e.rewards, e.next_observations, e.starts)
        phi = agent.network.act(trajectories.extras[READ].flatten(1, 2))
    log_probs = agent.network.head.log_prob(phi, e.actions)
    torch.testing.assert_close(log_probs, trajectories.log_probs.flatten(1), rtol=1e-4, atol=1e-5)
    size = e.observations.shape[-1]
    read, mean, std = trajectories.extras[READ].flatten(1, 2).split([size, 5, 5], -1)
    torch.testing.assert_close(read, agent.model.observation_norm(e.observations))
    going_on = ~e.starts[1:]
    torch.testing.assert_close(mean[1:][going_on], after.mean[:-1][going_on], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(std[1:][going_on], after.std[:-1][going_on], rtol=1e-4, atol=1e-5)
    assert not mean[e.starts].any()
    assert (std[e.starts] == 1).all()
    env.close()


def test_a_first_action_knows_nothing_of_the_task():
    """Two sets of tasks, the same random stream: the first actions of all trials agree, the later ones do not."""
    distribution = metarl.make("Bandit-v0", arms=5, pulls=5)
    agent = make_agent(distribution)
    train(agent, distribution, 3)
    env = distribution.make_env(50, 1)
    read = []
    for seed in (1, 2):
        env.set_tasks(distribution.sample(50, seed=seed))
        policy = BeliefPolicy(agent.model, agent.network, make_generator("test"))
        trajectories = metarl.collect(env, policy, 10, seed=0, episodes_per_trial=1)
        read.append(trajectories.extras[READ])
    starts = trajectories.trial_starts
    assert starts.sum() == 100
    assert torch.equal(read[0][starts], read[1][starts])
    assert not torch.equal(read[0][~starts], read[1][~starts])


def test_the_gradient_of_ppo_leaves_the_encoder_as_it_is():
    distribution = metarl.make("PointNavigation-v0", horizon=6)
    agent = make_agent(distribution)
    env = make_env(distribution, tasks=6, envs=1)
    policy = BeliefPolicy(agent.model, agent.network, make_generator("test"))
    trajectories = metarl.collect(env, policy, 12, seed=0, episodes_per_trial=2)
    columns = agent._columns(trajectories, trajectories.in_complete_trials(2))
    model, network = numbers(agent.model), numbers(agent.network)
    agent.ppo.update(agent._evaluate, agent.network.head, columns, make_generator("ppo"))
    assert not changed(model, agent.model)
    assert changed(network, agent.network) == {name for name, _ in agent.network.named_parameters()}
    assert all(parameter.grad is None for parameter in agent.model.parameters())


def test_learning_beliefs_leaves_the_policy_as_it_is():
    distribution = metarl.make("PointNavigation-v0", horizon=6)
    agent = make_agent(distribution, decode_states=True)
    train(agent, distribution, 1)
    model, network = numbers(agent.model), numbers(agent.network)
    agent._learn_beliefs(make_generator("beliefs"))
    assert not changed(network, agent.network)
    assert changed(model, agent.model) == {name for name, _ in agent.model.named_parameters()}


def test_advantages_run_over_trials_and_the_clock_over_their_steps_and_episodes():
    """Against sums by hand over every trial of short episodes; each column of the update is a step."""
    distribution = metarl.make("CartPoleParams-v0", horizon=20, vectorization="sync")
    agent = make_agent(distribution)
    env = make_env(distribution, tasks=4, envs=1)
    policy = BeliefPolicy(agent.model, agent.network, make_generator("test"))
    trajectories = metarl.collect(env, policy, 80, seed=0, episodes_per_trial=2)
    valid = trajectories.in_complete_trials(2)
    time = clock(trajectories, trial_length=40, episodes_per_trial=2)
    read = torch.cat([trajectories.extras[READ], time], -1)
    with torch.no_grad():
        values = agent.network.denormalize(agent.network(read)[1])
    columns = agent._columns(trajectories, valid)
    scale = agent.network.return_norm
    returns = (columns.targets * scale.std + scale.mean).reshape(80, 4)
    assert columns.inputs.shape == (1, 320, 4 + 2 * 5 + 2)
    for m in range(4):
        begin = episode = 0
        following = value_after = 0.0
        for t in range(80):
            if trajectories.trial_starts[t, m, 0]:
                begin, episode = t, 0
            elif trajectories.episode_starts[t, m, 0]:
                episode += 1
            assert time[t, m, 0].tolist() == pytest.approx([(t - begin) / 40, episode / 2])
        for t in reversed(range(80)):
            if t == 79 or trajectories.trial_starts[t + 1, m, 0]:
                following = value_after = 0.0
            value = float(values[t, m, 0])
            delta = float(trajectories.rewards[t, m, 0]) + 0.99 * value_after - value
            following = delta + 0.99 * 0.95 * following
            value_after = value
            assert float(returns[t, m]) == pytest.approx(following + value, abs=1e-3)
    assert trajectories.trial_starts.sum() > 8
    env.close()


def test_memory_stops_when_its_episodes_are_over():
    """Environments whose episodes end early wait: their memory is that of a shorter trial."""
    distribution = metarl.make("CartPoleParams-v0", vectorization="sync")
    agent = make_agent(distribution)
    env = make_env(distribution, tasks=4, envs=1)

    def live(**length):
        policy = BeliefPolicy(agent.model, agent.network, make_generator("test"))
        return metarl.collect(env, policy, seed=5, **length), policy.memory

    trajectories, memory = live(episodes=1)
    lengths = (trajectories.episode_index == 0).sum(0)[:, 0]
    assert len(lengths.unique()) > 1
    for i, length in enumerate(lengths.tolist()):
        for values, shorter in zip(memory, live(num_steps=length)[1], strict=True):
            torch.testing.assert_close(values[i], shorter[i])
    env.close()


def test_a_new_trial_begins_at_the_prior_and_only_where_it_begins():
    distribution = metarl.make("Bandit-v0")
    policy = make_agent(distribution).adapt(env := make_env(distribution), 1, seed=1)
    mask = torch.tensor([[True, False], [False, False], [False, True]])
    fork, before = policy.fork(), policy.memory
    first, second = (metarl.collect(env, policy.fork(), 10, seed=2).actions for _ in range(2))
    assert torch.equal(first, second)
    policy.begin_trial(mask)
    assert all(a is b for a, b in zip(fork.memory, before, strict=True))
    assert not policy.belief.mean[mask.flatten()].any()
    assert (policy.belief.std[mask.flatten()] == 1).all()
    for values, old in zip(policy.memory, before, strict=True):
        assert torch.equal(values[~mask.flatten()], old[~mask.flatten()])


def test_the_adapted_policy_does_not_change_when_training_goes_on():
    distribution = metarl.make("PointNavigation-v0", horizon=10)
    agent = make_agent(distribution)
    env = make_env(distribution)
    for episodes in (0, 1):
        policy = agent.adapt(env, episodes, seed=1)
        before = metarl.collect(env, policy.fork(), 10, seed=2).actions
        train(agent, distribution, 1)
        assert torch.equal(metarl.collect(env, policy.fork(), 10, seed=2).actions, before)


def test_adapting_further_goes_on_from_the_belief_and_leaves_the_policy_as_it_was():
    distribution = metarl.make("Bandit-v0")
    agent = make_agent(distribution)
    env = make_env(distribution)
    first = agent.adapt(env, 1, seed=1)
    memory = first.memory
    second = agent.adapt(env, 1, seed=2, policy=first)
    assert first.memory is memory
    assert not torch.equal(second.belief.mean, first.belief.mean)
    by_hand = BeliefPolicy(agent.model, agent.network, make_generator("varibad", "adapt", 2))
    by_hand.memory = memory
    metarl.collect(env, by_hand, 10, seed=2)
    assert torch.equal(by_hand.belief.mean, second.belief.mean)


@pytest.mark.parametrize("id", FAMILIES)
def test_a_run_trains_resumes_exactly_is_evaluated_and_adapts(id, tmp_path):
    options = SMALL | {"belief_updates": 2, "buffer": 8}  # the second iteration's trials displace some of the first
    config = metarl.TrainConfig(
        agent="varibad",
        env=id,
        env_options=FAMILIES[id],
        agent_options=VariBADConfig(**options),
        iterations=3,
        checkpoint_every=1,
        output=tmp_path / "straight",
    )
    run = metarl.train(config, progress=False)
    stopped = shutil.copytree(run, tmp_path / "stopped")
    for path in stopped.glob("checkpoints/iteration-000003*"):
        path.unlink()
    metarl.resume(stopped, progress=False)
    straight, resumed = load_checkpoint(run), load_checkpoint(stopped)
    assert straight.buffers == resumed.buffers
    assert straight.buffers["trials"]["count"] == 18
    assert straight.tensors.keys() == resumed.tensors.keys()
    assert all(torch.equal(straight.tensors[name], resumed.tensors[name]) for name in straight.tensors)
    distribution = metarl.make(id, **FAMILIES[id])
    evaluation = metarl.evaluate(metarl.load_agent(stopped), distribution, num_tasks=2, seed=1)
    assert evaluation.episodes_used == [0, 1]
    assert evaluation.returns.isfinite().all()


def test_a_state_without_its_parts_is_refused():
    distribution = metarl.make("Bandit-v0")
    tensors, values = make_agent(distribution).state()
    with pytest.raises(metarl.UsageError, match="the saved parameters are not of this agent"):
        make_agent(distribution, latent=4).load_state(tensors, values)


def test_pictures_are_refused():
    with pytest.raises(metarl.UsageError, match=r"varibad reads vectors, got Box.*rl2 reads pictures"):
        make_agent(Quarters(size=8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent": 0}, "latent must be a whole number"),
        ({"policy_hidden": (16, 0)}, "policy_hidden must be a whole number"),
        ({"kl_weight": -1.0}, "kl_weight must be at least 0"),
        ({"belief_lr": 0.0}, "belief_lr must be above 0"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(metarl.UsageError, match=message):
        VariBADConfig(**options)


def test_a_loss_that_is_not_finite_stops_training_without_a_step():
    distribution = metarl.make("PointNavigation-v0", horizon=6)
    agent = make_agent(distribution)
    train(agent, distribution, 1)
    with torch.no_grad():
        agent.model.posterior.bias.fill_(1e20)
    before = numbers(agent.model)
    with pytest.raises(NumericalFault, match="belief"):
        agent._learn_beliefs(make_generator("beliefs"))
    assert not changed(before, agent.model)
