"""`check_distribution` finds what would otherwise go wrong without a word in an environment that somebody wrote."""

import warnings

import gymnasium as gym
import numpy as np
import pytest

from metarl import GymnasiumDistribution, check_distribution
from metarl.contract import ContractError


class Sound(gym.Env):
    """A point that drifts; success is to be beyond 1."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    drift = 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.random(2)
        return self.seen(), {}

    def step(self, action):
        self.place = self.place + 0.1 * action + self.drift
        return self.seen(), self.reward(), False, False, {"is_success": bool(self.place[0] > 1)}

    def seen(self):
        return self.place.astype(np.float32)

    def reward(self):
        return float(self.place[0])


class NaNReward(Sound):
    def reward(self):
        return float("nan") if self.place[0] > 0.6 else 0.0


class InfiniteObservation(Sound):
    def seen(self):
        return np.where(self.place > 1.2, np.inf, self.place).astype(np.float32)


class BareObservation(Sound):
    def step(self, action):
        _, *rest = super().step(action)
        return 0.5, *rest


class OneNumberTooFew(Sound):
    def seen(self):
        return self.place[:1].astype(np.float32)


class ArrayOfRewards(Sound):
    def reward(self):
        return self.place


class OldStep(Sound):
    def step(self, action):
        seen, reward, terminated, _, info = super().step(action)
        return seen, reward, terminated, info


class NeverTellsSuccess(Sound):
    def step(self, action):
        return *super().step(action)[:4], {"solved": True}


class ForgetsItsTask(Sound):
    def reset(self, *, seed=None, options=None):
        self.drift = 0.0
        return super().reset(seed=seed)


class OwnRandomness(Sound):
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = np.random.default_rng().random(2)
        return self.seen(), {}


class GlobalRandomness(Sound):
    def step(self, action):
        self.place = self.place + 0.01 * np.random.rand(2)  # noqa: NPY002
        return super().step(action)


class SharedState(Sound):
    steps = 0

    def step(self, action):
        SharedState.steps += 1
        self.place = self.place + 0.001 * SharedState.steps
        return super().step(action)


class ConstantSeed(Sound):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=0)


class OwnConstantGenerator(Sound):
    def reset(self, *, seed=None, options=None):
        self.np_random = np.random.default_rng(0)
        return super().reset()


class ConstantSeedByDefault(Sound):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=42 if seed is None else seed)


class FirstSeedAgain(Sound):
    seed = None

    def reset(self, *, seed=None, options=None):
        self.seed = self.seed if seed is None else seed
        return super().reset(seed=self.seed)


class DerivedSeeds(Sound):
    """Nothing is wrong: other numbers for every seed, and for every episode."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=int(self.np_random.integers(2**31)) if seed is None else 1000 + 3 * seed)


class OwnGenerator(Sound):
    """Nothing is wrong here either."""

    rng = np.random.default_rng(0)

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.place = self.rng.random(2)
        return self.seen(), {}


PLANTED = {
    ConstantSeed: "ConstantSeed.reset: expected .* found that it seeds its generator with 0 instead of 7",
    OwnConstantGenerator: "found that it seeds its generator with a constant instead of 7",
    ConstantSeedByDefault: "expected a reset without a seed to go on .* with 42 again: all episodes are alike",
    FirstSeedAgain: "with 7 again: all episodes are alike",
    NaNReward: "expected no faults under random actions, found",
    InfiniteObservation: "expected no faults under random actions, found",
    BareObservation: r"run: expected no crash, found .*BareObservation.step .*",
    OneNumberTooFew: "OneNumberTooFew.reset",
    ArrayOfRewards: "ArrayOfRewards.step",
    OldStep: "OldStep.step",
    NeverTellsSuccess: "success",
    ForgetsItsTask: "expected other tasks to give other runs",
    OwnRandomness: "determinism: expected the same seed",
    GlobalRandomness: "determinism: expected the same seed",
    SharedState: "determinism: expected the same seed",
}


def family(env, **options):
    options = {"parameters": {"drift": (0.0, 0.2)}, "has_success": True} | options
    return GymnasiumDistribution(
        "Planted-v0",
        env,
        apply=lambda env, task: setattr(env.unwrapped, "drift", task["drift"]),
        horizon=12,
        vectorization="sync",
        **options,
    )


@pytest.mark.parametrize("env", [Sound, DerivedSeeds, OwnGenerator], ids=lambda env: env.__name__)
def test_the_sound_ones_pass(env):
    check_distribution(family(env))


@pytest.mark.parametrize("env", PLANTED, ids=lambda env: env.__name__)
def test_a_planted_wrong_is_found(env):
    with pytest.raises(ContractError, match=PLANTED[env]):
        check_distribution(family(env))


def test_an_apply_that_does_nothing_is_found():
    wrong = GymnasiumDistribution(
        "Planted-v0",
        Sound,
        parameters={"drift": (0.0, 0.2)},
        apply=lambda env, task: None,
        horizon=12,
        vectorization="sync",
        has_success=True,
    )
    with pytest.raises(ContractError, match="expected other tasks to give other runs"):
        check_distribution(wrong)


def test_test_tasks_that_are_training_tasks_are_found():
    with pytest.warns(UserWarning, match="test tasks .* are training tasks too"):
        shared = family(Sound, parameters={"drift": [0.0, 0.1, 0.2]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert shared.all_tasks("train") == shared.all_tasks("test")
