"""What short episodes cost is used: untrained policies fall soon, and both agents learn from nearly all of it."""

import pytest

import metarl
from metarl.agents.maml import MAML, MAMLConfig
from metarl.agents.rl2 import RL2, RL2Config

AGENTS = {
    "maml": lambda spec: MAML(MAMLConfig(num_tasks=4, envs_per_task=5, hidden=(8,)), spec),
    "rl2": lambda spec: RL2(RL2Config(num_tasks=20, hidden=8, epochs=1), spec),
}


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("id", ["CartPoleParams-v0", "HopperRandParams-v0", "Walker2dRandParams-v0"])
def test_untrained_policies_waste_little(id, agent):
    family = metarl.make(id)
    learner = AGENTS[agent](metarl.EnvSpec.of(family))
    env = family.make_env(learner.config.num_tasks, learner.config.envs_per_task)
    env.set_tasks(family.sample(learner.config.num_tasks, seed=0))
    metrics = learner.improve(env, seed=0)
    env.close()
    assert 0.9 <= metrics["used_fraction"] < 1.0
    assert metrics["return_mean"] < 150, "its episodes are short"


@pytest.mark.parametrize("agent", AGENTS)
def test_episodes_that_only_time_ends_are_used_whole(agent):
    family = metarl.make("PointNavigation-v0", horizon=10)
    learner = AGENTS[agent](metarl.EnvSpec.of(family))
    env = family.make_env(learner.config.num_tasks, learner.config.envs_per_task)
    env.set_tasks(family.sample(learner.config.num_tasks, seed=0))
    assert learner.improve(env, seed=0)["used_fraction"] == 1.0
