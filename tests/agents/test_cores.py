"""RL² with every sequence core: it acts and learns alike, and SNAIL says when a trial is too long for it."""

import pytest
import torch
from practice import train

import metarl
from metarl.agents.recurrent import RecurrentPolicy
from metarl.agents.rl2 import RL2, RL2Config
from metarl.randomness import make_generator

CORES = ("gru", "lstm", "snail")


def make_agent(distribution, **options):
    config = RL2Config(**({"num_tasks": 6, "hidden": 16} | options))
    return RL2(config, metarl.EnvSpec.of(distribution), seed=0)


@pytest.mark.parametrize("core", CORES)
def test_the_network_is_trained_on_exactly_what_it_saw_when_it_acted(core):
    """Log-probabilities recomputed from whole columns of trials are those of acting step by step."""
    distribution = metarl.make("TabularMDP-v0", horizon=5)
    agent = make_agent(distribution, core=core)
    train(agent, distribution, 2)
    env = distribution.make_env(3, 2)
    env.set_tasks(distribution.sample(3, seed=0))
    policy = RecurrentPolicy(agent.network, make_generator("test"))
    trajectories = metarl.collect(env, policy, 20, episodes_per_trial=2, seed=0)
    starts = trajectories.trial_starts.flatten(1)
    assert starts.sum(0).tolist() == [2] * 6
    with torch.no_grad():
        phi, _, _ = agent.network(agent.network.trial_inputs(trajectories).flatten(1, 2), starts)
        log_probs = agent.network.head.log_prob(phi, trajectories.actions.flatten(1, 2))
    torch.testing.assert_close(log_probs, trajectories.log_probs.flatten(1), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("core", ["lstm", "snail"])  # test_rl2.py has the GRU
def test_it_learns_to_explore_bandits(core):
    distribution = metarl.make("Bandit-v0")
    agent = make_agent(distribution, core=core, num_tasks=300, hidden=32, episodes_per_trial=1, lr=3e-3)
    train(agent, distribution, 40)
    evaluation = metarl.evaluate(agent, distribution, num_tasks=1000)
    assert evaluation.returns.mean() > 5.7  # random: 5.0


def test_snail_refuses_a_trial_longer_than_those_of_training():
    agent = make_agent(metarl.make("TabularMDP-v0", horizon=5), core="snail")
    for horizon, episodes in ((5, 2), (6, 1)):  # one episode too many, then longer ones
        distribution = metarl.make("TabularMDP-v0", horizon=horizon)
        with pytest.raises(metarl.UsageError, match="built to remember 10 inputs and is given a sequence of 11"):
            metarl.evaluate(agent, distribution, num_tasks=3, episodes=episodes)
