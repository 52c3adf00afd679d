"""Agents learn from wide observations: the baseline leaves an advantage to learn from."""

import numpy as np
import pytest
from practice import train
from wide_toy import WideToy

import metarl
from metarl.agents.maml import MAML, MAMLConfig
from metarl.agents.rl2 import RL2, RL2Config


def maml(family, **options):
    return MAML(MAMLConfig(num_tasks=4, envs_per_task=20, **options), metarl.EnvSpec.of(family))


def test_one_gradient_step_solves_a_task_with_250_random_bits_as_observation():
    family = WideToy(250)
    history = train(maml(family), family, 3)
    assert np.mean([metrics["return_mean"] for metrics in history]) > 8.5  # 10 is perfect, 5 is chance
    assert {metrics["baseline_features"] for metrics in history} == {4}, "200 samples bear no more"
    assert all(metrics["baseline_r2"] > 0.7 for metrics in history), "returns depend on the time most of all"


def test_narrow_observations_keep_the_features_of_the_paper():
    family = metarl.make("PointNavigation-v0", horizon=20)
    (metrics,) = train(maml(family, hidden=(8,)), family, 1)
    assert metrics["baseline_features"] == 2 * 2 + 4
    assert -1 < metrics["baseline_r2"] < 1


@pytest.mark.parametrize("observations", [105, 2835])
def test_a_single_environment_a_task_is_enough(observations):
    family = WideToy(observations)
    agent = MAML(MAMLConfig(num_tasks=2, envs_per_task=1, hidden=(8,)), metarl.EnvSpec.of(family))
    (metrics,) = train(agent, family, 1)
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["baseline_r2"] == 0


@pytest.mark.slow
def test_maml_solves_the_wide_toy():
    family = WideToy(250)
    returns = [metrics["return_mean"] for metrics in train(maml(family), family, 40)]
    assert max(np.convolve(returns, np.ones(5) / 5, "valid")) >= 9.5


@pytest.mark.slow
def test_rl2_solves_the_wide_toy():
    family = WideToy(250)
    agent = RL2(RL2Config(num_tasks=40), metarl.EnvSpec.of(family))
    returns = [metrics["return_mean"] for metrics in train(agent, family, 40)]
    assert np.mean(returns[-5:]) >= 9.5
