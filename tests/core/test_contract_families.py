"""`check_distribution` on distributions with one fault each, beside what has to be said of it."""

import random

import gymnasium as gym
import numpy as np
import pytest
import torch
from broken_families import CrashInSampling, GlobalTorch, Point, with_attribute

import metarl
from metarl import Tasks, check_distribution
from metarl.contract import ContractError

ATTRIBUTES = [
    ("horizon", 0, "horizon: expected a whole number of at least 1, found 0"),
    ("horizon", 6.0, "horizon: expected a whole number of at least 1, found 6.0"),
    ("id", "", "id: expected a name, found ''"),
    ("backends", ["torch"], r"backends: expected a tuple of one name or more, found \['torch'\]"),
    ("has_success", 1, "has_success: expected True or False, found 1"),
    ("task_space", {"goal": gym.spaces.Text(3)}, "expected a Box, a Discrete-like space or a Choice for 'goal'"),
    ("action_space", gym.spaces.Text(3), "action_space: actions must be a Box of float32, Discrete, .* not Text"),
    ("action_space", gym.spaces.Box(-1, 1, (2,), np.float64), "action_space: .* not Box.*float64"),
    ("observation_space", gym.spaces.Box(-1, 1, (1, 2)), r"observation_space: observations must be .*, not Box"),
    ("observation_space", gym.spaces.Box(-1, 1, (2,), np.float64), r"observation_space: .*, not Box.*float64"),
    ("observation_space", gym.spaces.Dict(a=gym.spaces.Discrete(2)), r"observation_space: .* entry 'a' is Discrete"),
    ("task_space", {}, "task_space: expected one parameter or more, found none"),
    ("has_success", True, r"info\['success'\]: expected a torch.bool tensor \[6\] on cpu, found NoneType"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "message"), ATTRIBUTES)
def test_wrong_attributes_are_found(name, value, message):
    with pytest.raises(ContractError, match=message):
        check_distribution(with_attribute(name, value)())


class RememberedSampling(Point):
    calls = 0

    def _sample(self, num_tasks, split, generator):
        self.calls += 1
        return {"goal": torch.full((num_tasks, 2), 1e-3 * self.calls)}


class SeedlessSampling(Point):
    def _sample(self, num_tasks, split, generator):
        return {"goal": torch.linspace(-0.5, 0.5 if split == "train" else 0.4, 2 * num_tasks).reshape(-1, 2)}


class OneSplit(Point):
    def sample(self, num_tasks, *, split="train", seed):
        return super().sample(num_tasks, split="train", seed=seed)


class GlobalNumPy(Point):
    def _sample(self, num_tasks, split, generator):
        np.random.rand()  # noqa: NPY002
        return super()._sample(num_tasks, split, generator)


class GlobalPython(Point):
    def _sample(self, num_tasks, split, generator):
        random.random()
        return super()._sample(num_tasks, split, generator)


class TooFewTasks(Point):
    def _sample(self, num_tasks, split, generator):
        return super()._sample(max(1, num_tasks - 1), split, generator)


class InvalidTasks(Point):
    def _sample(self, num_tasks, split, generator):
        return {"goal": 4 * super()._sample(num_tasks, split, generator)["goal"]}


class TasksWithNaN(Point):
    def _sample(self, num_tasks, split, generator):
        return {"goal": torch.full((num_tasks, 2), torch.nan)}

    def validate(self, tasks):
        pass


class Finite(Point):
    def all_tasks(self, split):
        return Tasks({"goal": torch.linspace(-0.5, 0.4 + 0.1 * (split == "train"), 20).reshape(10, 2)})

    def _sample(self, num_tasks, split, generator):
        return metarl.TaskDistribution._sample(self, num_tasks, split, generator)


class Shuffled(Finite):
    def all_tasks(self, split):
        self.seed = getattr(self, "seed", 0) + 1
        return super().all_tasks(split)[torch.randperm(10, generator=torch.Generator().manual_seed(self.seed))]


class WithReplacement(Finite):
    def _sample(self, num_tasks, split, generator):
        return self.all_tasks(split)[torch.randint(10, (num_tasks,), generator=generator)].parameters


class CrashInMakeEnv(Point):
    def _make_env(self, *args):
        raise RuntimeError("no scene")


FAMILIES = [
    (RememberedSampling, "sampling: expected the same train tasks for the same seed, found others"),
    (SeedlessSampling, "sampling: expected other test tasks for another seed, found the same"),
    (OneSplit, "sampling: expected different tasks in train and test, found the same"),
    (OneSplit, "sampling: expected a UsageError for the split 'no-such-split', found no error"),
    (GlobalTorch, "sampling: expected it to leave torch's global random state alone, found it changed"),
    (GlobalNumPy, "sampling: expected it to leave NumPy's global random state alone, found it changed"),
    (GlobalPython, "sampling: expected it to leave Python's global random state alone, found it changed"),
    (TooFewTasks, "sampling: expected 16 train tasks, found 15"),
    (InvalidTasks, "tasks: expected sampled train tasks to be valid, found task parameter 'goal': .* out of range"),
    (TasksWithNaN, "tasks: expected train tasks to survive JSON, found others"),
    (TasksWithNaN, "tasks: expected a UsageError for an unknown parameter, found no error"),
    (Shuffled, "all_tasks: expected train tasks in a fixed order, found another on the second call"),
    (WithReplacement, "sampling: expected each of the 10 test tasks once among 10 samples, found [1-9] missing"),
    (CrashInSampling, "sampling: expected no crash, found ZeroDivisionError: no test tasks$"),
    (CrashInMakeEnv, "make_env: expected no crash, found RuntimeError: no scene"),
]


@pytest.mark.parametrize(("family", "message"), FAMILIES)
def test_wrong_families_are_found(family, message):
    with pytest.raises(ContractError, match=f"(?m){message}"):
        check_distribution(family())


def test_a_finite_family_passes():
    check_distribution(Finite())


class AnyCounts(Point):
    def make_env(self, num_tasks, envs_per_task=1, *, backend="auto", device="cpu", seed=0, render_mode=None):
        counts = max(1, num_tasks), max(1, envs_per_task)
        return self._make_env(*counts, "torch", torch.device("cpu"), seed, render_mode)


@pytest.mark.parametrize(
    "what", ["0 tasks", "-1 tasks", "0 environments per task", "the backend 'no-such-backend'", "the device"]
)
def test_arguments_that_are_not_refused_are_found(what):
    with pytest.raises(ContractError, match=f"make_env: expected a UsageError for {what}.*, found no error"):
        check_distribution(AnyCounts())
