"""Bandits: arms pay as often as the task says, pulls are independent."""

import numpy as np
import pytest
import scipy.stats
import torch

import metarl
from metarl import Tasks, collect

PULLS, ENVS = 50, 400


@pytest.fixture(scope="module")
def rewards():
    """`[T, ENVS]` of each arm of one task, pulled all the time."""
    family = metarl.make("Bandit-v0", pulls=PULLS)
    env = family.make_env(1, ENVS)
    env.set_tasks(family.task(probabilities=[0.0, 0.1, 0.5, 0.8, 1.0]))
    return [
        collect(env, lambda observations, a=arm: torch.full((ENVS,), a), PULLS, seed=arm).rewards[:, 0]
        for arm in range(5)
    ]


def test_each_arm_pays_with_its_probability(rewards):
    wins = [int(arm.sum()) for arm in rewards]
    assert {*torch.stack(rewards).unique().tolist()} == {0.0, 1.0}
    assert wins[0] == 0
    assert wins[4] == PULLS * ENVS
    for won, probability in zip(wins[1:4], [0.1, 0.5, 0.8], strict=True):
        assert scipy.stats.binomtest(won, PULLS * ENVS, probability).pvalue > 0.01


def test_pulls_are_independent(rewards):
    """The number of wins of an episode is binomial, and a win follows a win as often as a loss."""
    arm = rewards[2].numpy()
    per_episode = np.bincount(arm.sum(0).astype(int), minlength=PULLS + 1)[18:33]
    expected = ENVS * scipy.stats.binom(PULLS, 0.5).pmf(np.arange(18, 33))
    assert scipy.stats.chisquare(per_episode, expected * per_episode.sum() / expected.sum()).pvalue > 0.01
    pairs = np.bincount((2 * arm[:-1] + arm[1:]).astype(int).ravel(), minlength=4)
    assert scipy.stats.chisquare(pairs).pvalue > 0.01


def test_an_episode_is_as_long_as_it_has_pulls():
    family = metarl.make("Bandit-v0", arms=2, pulls=3)
    env = family.make_env(2)
    env.set_tasks(Tasks({"probabilities": torch.tensor([[0.0, 1.0], [1.0, 0.0]])}))
    trajectories = collect(env, lambda observations: torch.zeros(2, dtype=torch.int64), 6)
    assert trajectories.rewards[:, :, 0].T.tolist() == [[0] * 6, [1] * 6]
    assert trajectories.truncated[:, 0, 0].tolist() == [False, False, True] * 2
    assert not trajectories.observations.any()


def test_probabilities_are_uniform():
    drawn = metarl.make("Bandit-v0").sample(2000, seed=0).parameters["probabilities"]
    assert drawn.shape == (2000, 5)
    assert scipy.stats.kstest(drawn.flatten().numpy(), "uniform").pvalue > 0.01
