"""Every action space of the contract through both agents: they learn, resume exactly and are evaluated."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from combination_lock import SPACES, STEPS, CombinationLock, mixed_lock
from practice import assert_goes_on_exactly, train

import metarl
from metarl.agents.maml import MAML, MAMLConfig
from metarl.agents.random import RandomAgent, RandomConfig
from metarl.agents.recurrent import RecurrentPolicy
from metarl.agents.rl2 import RL2, RL2Config
from metarl.agents.trpo import TrustRegion
from metarl.envs.gymnasium_env import GymnasiumDistribution
from metarl.randomness import make_generator

AGENTS = ("maml", "rl2")


def make_agent(name, family, seed=0):
    spec = metarl.EnvSpec.of(family)
    if name == "maml":
        options = {"hidden": (8,), "initial_std": 0.5, "trust_region": TrustRegion(max_kl=0.1)}
        return MAML(MAMLConfig(num_tasks=8, envs_per_task=10, **options), spec, seed=seed)
    if name == "rl2":
        options = {"hidden": 16, "initial_std": 0.5, "episodes_per_trial": 1, "lr": 1e-2, "minibatches": 1}
        return RL2(RL2Config(num_tasks=8, envs_per_task=8, **options), spec, seed=seed)
    return RandomAgent(RandomConfig(num_tasks=8), spec, seed=seed)


def measured(agent, family):
    """The mean return over the same test tasks, which pay 1 in the mean, after one batch of episodes."""
    evaluation = metarl.evaluate(agent, family, num_tasks=50, episodes=agent.config.envs_per_task)
    return float(evaluation.returns[:, -1].mean())


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("kind", SPACES)
def test_agents_find_the_action_that_pays(kind, name):
    family = CombinationLock(SPACES[kind])
    chance = measured(make_agent("random", family), family)
    agent = make_agent(name, family)
    history = train(agent, family, 15)
    assert all(np.isfinite(list(metrics.values())).all() for metrics in history)
    assert measured(agent, family) > chance + 0.5 * (family.best - chance)


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("kind", SPACES)
def test_going_on_from_a_saved_state_is_exact(kind, name):
    family = CombinationLock(SPACES[kind])
    assert_goes_on_exactly(lambda seed: make_agent(name, family, seed=seed), family, before=1)


@pytest.mark.parametrize("kind", SPACES)
def test_the_network_is_trained_on_exactly_what_it_saw_when_it_acted(kind):
    """RL²: log-probabilities recomputed from trajectories, with features of the last actions, are those of acting."""
    family = CombinationLock(SPACES[kind])
    agent = make_agent("rl2", family)
    train(agent, family, 1)
    env = family.make_env(3, 2)
    env.set_tasks(family.sample(3, seed=0))
    policy = RecurrentPolicy(agent.network, make_generator("test"))
    trajectories = metarl.collect(env, policy, 4 * STEPS, seed=0, episodes_per_trial=2)
    inputs = agent.network.trial_inputs(trajectories).flatten(1, 2)
    phi, _, _ = agent.network(inputs, trajectories.trial_starts.flatten(1))
    log_probs = agent.network.head.log_prob(phi, trajectories.actions.flatten(1, 2))
    torch.testing.assert_close(log_probs, trajectories.log_probs.flatten(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", SPACES)
def test_families_with_every_action_space_keep_the_contract(kind):
    metarl.check_distribution(CombinationLock(SPACES[kind]))


def test_a_run_folder_of_mixed_actions(tmp_path):
    """Trained, resumed and evaluated from the folder, like any other."""
    for name in AGENTS:
        options = {"num_tasks": 4, "envs_per_task": 4}
        env = "combination_lock:mixed_lock"
        config = metarl.TrainConfig(name, env, agent_options=options, iterations=1, output=tmp_path / name)
        run = metarl.train(config, progress=False)
        evaluation = metarl.evaluate(metarl.load_agent(run), mixed_lock(), num_tasks=2, episodes=4)
        assert evaluation.returns.isfinite().all()


# Bounds --------------------------------------------------------------------------------------------------------------

LARGEST = np.finfo(np.float32).max
BOUNDS = {
    "an axis with one value": ([-1, 0], [1, 0]),
    "the largest floats": ([-LARGEST] * 2, [LARGEST] * 2),
    "infinite": ([-np.inf] * 2, [np.inf] * 2),
    "half open": ([0, -1], [np.inf, 1]),
    "wide": ([-1e10] * 2, [1e10] * 2),
    "the largest float64": ([-np.finfo(np.float64).max] * 2, [np.finfo(np.float64).max] * 2),
}


class Reach(gym.Env):
    """Pays for acting near `point`, and refuses actions that are not its own."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    point = 0.0

    def __init__(self, low, high, dtype):
        self.action_space = gym.spaces.Box(np.array(low, dtype), np.array(high, dtype), dtype=dtype)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        assert np.isfinite(action).all()
        assert (self.action_space.low <= action).all()
        assert (action <= self.action_space.high).all()
        return np.zeros(2, np.float32), -abs(float(action[0]) - self.point), False, False, {}


def assign(env, task):
    env.unwrapped.point = task["point"]


@pytest.mark.parametrize("name", [*AGENTS, "random"])
@pytest.mark.parametrize("kind", BOUNDS)
def test_boxes_with_any_bounds_give_numbers_only(kind, name):
    dtype = np.float64 if "float64" in kind else np.float32
    family = GymnasiumDistribution(
        "Reach-v0",
        lambda: Reach(*BOUNDS[kind], dtype),
        parameters={"point": (0.0, 1.0)},
        apply=assign,
        horizon=5,
        vectorization="sync",
    )
    agent = make_agent(name, family)
    agent.config = dataclasses.replace(agent.config, num_tasks=2, envs_per_task=2)
    for metrics in train(agent, family, 2):
        assert np.isfinite(list(metrics.values())).all()
    assert all(value.isfinite().all() for value in agent.state()[0].values())
    evaluation = metarl.evaluate(agent, family, num_tasks=2)
    assert evaluation.returns.isfinite().all()
    assert evaluation.returns.min() > -50  # acting at the largest float would pay far less
