"""Tabular MDPs: what happens is as often as the task's parameters say."""

import numpy as np
import pytest
import scipy.stats
import torch

import metarl
from metarl import UsageError, collect

ENVS = 4000


@pytest.fixture(scope="module")
def experience():
    """Random actions in many environments of one small task: its parameters, (s, a, s'), and rewards."""
    family = metarl.make("TabularMDP-v0", states=4, actions=3, horizon=10)
    env = family.make_env(1, ENVS)
    tasks = family.sample(1, seed=5)
    env.set_tasks(tasks)
    generator = torch.Generator().manual_seed(0)
    trajectories = collect(env, lambda observations: torch.randint(3, (ENVS,), generator=generator), 10, seed=1)
    steps = torch.stack(
        [
            trajectories.observations.argmax(-1),
            trajectories.actions,
            trajectories.final_observations.argmax(-1),
        ]
    ).flatten(1)
    return {name: value[0].numpy() for name, value in tasks.parameters.items()}, steps.numpy(), trajectories


def test_transitions_are_as_frequent_as_the_task_says(experience):
    task, (state, action, following), _ = experience
    counts = np.zeros((4, 3, 4))
    np.add.at(counts, (state, action, following), 1)
    expected = task["transitions"].astype(np.float64) * counts.sum(-1, keepdims=True)
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert expected.min() > 5
    assert scipy.stats.chi2(4 * 3 * (4 - 1)).sf(statistic) > 0.01


def test_rewards_are_normal_around_the_means_of_the_task(experience):
    task, (state, action, _), trajectories = experience
    noise = trajectories.rewards.flatten().numpy() - task["reward_means"][state, action]
    assert scipy.stats.kstest(noise, "norm").pvalue > 0.01
    for s in range(4):
        for a in range(3):
            sample = noise[(state == s) & (action == a)]
            assert abs(sample.mean()) * np.sqrt(len(sample)) < 3.5  # 12 z-tests


def test_episodes_begin_in_state_zero_and_end_with_the_horizon(experience):
    _, _, trajectories = experience
    assert (trajectories.observations[0].argmax(-1) == 0).all()
    assert trajectories.observations.unique().tolist() == [0, 1]
    assert (trajectories.observations.sum(-1) == 1).all()
    assert trajectories.truncated[9].all()
    assert not trajectories.ended[:9].any()
    assert not trajectories.terminated.any()


def test_tasks_are_drawn_as_the_paper_says():
    parameters = metarl.make("TabularMDP-v0").sample(300, seed=0).parameters
    transitions, means = parameters["transitions"].double(), parameters["reward_means"]
    assert transitions.shape == (300, 10, 5, 10)
    torch.testing.assert_close(transitions.sum(-1), torch.ones(300, 10, 5, dtype=torch.float64), rtol=0, atol=1e-5)
    # Each entry of a flat Dirichlet distribution over 10 outcomes is Beta(1, 9); one a row is an independent sample.
    assert scipy.stats.kstest(transitions[..., 3].flatten().numpy(), scipy.stats.beta(1, 9).cdf).pvalue > 0.01
    assert scipy.stats.kstest(means.flatten().numpy(), scipy.stats.norm(1, 1).cdf).pvalue > 0.01


@pytest.mark.parametrize("option", ["states", "actions", "horizon"])
def test_a_wrong_size_is_refused(option):
    with pytest.raises(UsageError, match=f"{option} must be a whole number"):
        metarl.make("TabularMDP-v0", **{option: 0})
