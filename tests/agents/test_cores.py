"""RL² with every sequence core and every head: it acts, learns and goes on alike, and no trial knows of another."""

import itertools

import pytest
import torch
from practice import assert_goes_on_exactly, train

import metarl
from metarl.agents.heads import HEADS
from metarl.agents.recurrent import RecurrentPolicy
from metarl.agents.rl2 import RL2, RL2Config
from metarl.randomness import make_generator

CORES = ("gru", "lstm", "snail", "transformer")
PAIRS = list(itertools.product(CORES, HEADS))


def make_agent(distribution, seed=0, **options):
    config = RL2Config(**({"num_tasks": 6, "hidden": 16} | options))
    return RL2(config, metarl.EnvSpec.of(distribution), seed=seed)


def live(agent, distribution, steps, *, tasks_seed=0, seed=0, **options):
    """Trajectories of 3 tasks in 2 environments each."""
    env = distribution.make_env(3, 2)
    env.set_tasks(distribution.sample(3, seed=tasks_seed))
    policy = RecurrentPolicy(agent.network, make_generator("test"))
    return metarl.collect(env, policy, steps, seed=seed, **options)


@pytest.mark.parametrize(("core", "head"), PAIRS)
def test_the_network_is_trained_on_exactly_what_it_saw_when_it_acted(core, head):
    """Log-probabilities and values recomputed from whole columns of trials are those of acting step by step."""
    distribution = metarl.make("TabularMDP-v0", horizon=5)
    agent = make_agent(distribution, core=core, head=head, epochs=2, minibatches=2)
    train(agent, distribution, 2)
    trajectories = live(agent, distribution, 20, episodes_per_trial=2)
    starts = trajectories.trial_starts.flatten(1)
    assert starts.sum(0).tolist() == [2] * 6
    with torch.no_grad():
        phi, values, _ = agent.network(agent.network.trial_inputs(trajectories).flatten(1, 2), starts)
        log_probs = agent.network.head.log_prob(phi, trajectories.actions.flatten(1, 2))
    torch.testing.assert_close(log_probs, trajectories.log_probs.flatten(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(values, trajectories.extras["values"].flatten(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("core", "head"), PAIRS)
def test_no_memory_leaks_across_trials(core, head):
    """A first pull depends neither on the task nor on the trial before; a second one depends on the first."""
    distribution = metarl.make("Bandit-v0", pulls=4)
    agent = make_agent(distribution, core=core, head=head, episodes_per_trial=1, epochs=2, minibatches=2)
    train(agent, distribution, 2)
    trajectories = live(agent, distribution, 12, episodes_per_trial=1)
    inputs = agent.network.trial_inputs(trajectories).flatten(1, 2)
    starts = trajectories.trial_starts.flatten(1)
    assert starts.any(1).nonzero()[:, 0].tolist() == [0, 4, 8]
    with torch.no_grad():
        (logits,), values, _ = agent.network(inputs, starts)
    first, second = logits[::4], logits[1::4]
    torch.testing.assert_close(first, first[:1, :1].expand_as(first))
    torch.testing.assert_close(values[::4], values[:1, :1].expand_as(values[::4]))
    assert second.flatten(0, 1).std(0).max() > 1e-6
    # And while acting: the log-probability of an arm at a first pull is the same everywhere.
    arms, log_probs = trajectories.actions[::4].flatten(), trajectories.log_probs[::4].flatten()
    for arm in arms.unique():
        same = log_probs[arms == arm]
        torch.testing.assert_close(same, same[:1].expand_as(same))


@pytest.mark.parametrize(("core", "head"), PAIRS)
def test_going_on_from_a_saved_state_is_exact(core, head):
    distribution = metarl.make("TabularMDP-v0", horizon=3)
    options = {"core": core, "head": head, "epochs": 1, "minibatches": 2}
    assert_goes_on_exactly(lambda seed: make_agent(distribution, seed=seed, **options), distribution, before=1)


@pytest.mark.slow
@pytest.mark.parametrize("core", CORES[1:])  # test_rl2.py has the GRU
def test_it_learns_to_explore_bandits(core):
    distribution = metarl.make("Bandit-v0")
    agent = make_agent(distribution, core=core, num_tasks=300, hidden=32, episodes_per_trial=1, lr=3e-3)
    train(agent, distribution, 40)
    evaluation = metarl.evaluate(agent, distribution, num_tasks=1000)
    assert evaluation.returns.mean() > 5.7  # random: 5.0


@pytest.mark.slow
@pytest.mark.parametrize("head", ["state-again", "hypernetwork"])
def test_it_learns_with_every_head(head):
    distribution = metarl.make("Bandit-v0")
    agent = make_agent(distribution, head=head, num_tasks=300, hidden=32, episodes_per_trial=1, lr=3e-3)
    train(agent, distribution, 40)
    evaluation = metarl.evaluate(agent, distribution, num_tasks=1000)
    assert evaluation.returns.mean() > 5.7  # random: 5.0


@pytest.mark.parametrize("core", ["snail", "transformer"])
def test_a_trial_longer_than_those_of_training_is_refused(core):
    agent = make_agent(metarl.make("TabularMDP-v0", horizon=5), core=core)
    for horizon, episodes in ((5, 2), (6, 1)):  # one episode too many, then longer ones
        distribution = metarl.make("TabularMDP-v0", horizon=horizon)
        with pytest.raises(metarl.UsageError, match="built to remember 10 inputs and is given a sequence of 11"):
            metarl.evaluate(agent, distribution, num_tasks=3, episodes=episodes)


def test_a_width_that_does_not_fit_the_transformer_is_refused():
    with pytest.raises(metarl.UsageError, match="choose 20 instead of 18"):
        make_agent(metarl.make("Bandit-v0"), core="transformer", hidden=18)
