"""What the tests of the contract break: a sound family, and faults that several of them need."""

import torch

from metarl.envs.native.base import NativeEnv
from metarl.envs.native.point_navigation import PointNavigation
from metarl.vector_env import TaskVectorEnv


class Point(PointNavigation):
    """A short `PointNavigation`, to be broken by subclasses; `env_class` is what steps it."""

    env_class: type[TaskVectorEnv] = NativeEnv

    def __init__(self):
        super().__init__(horizon=6)
        self.id = "Broken-v0"

    def _make_env(self, num_tasks, envs_per_task, backend, device, seed, render_mode):
        return self.env_class(self, num_tasks, envs_per_task, device=device, seed=seed, render_mode=render_mode)


def with_attribute(name, value):
    return type("Broken", (Point,), {"__init__": lambda self: (Point.__init__(self), setattr(self, name, value))[0]})


class GlobalTorch(Point):
    def _sample(self, num_tasks, split, generator):
        torch.rand(1)
        return super()._sample(num_tasks, split, generator)


class CrashInSampling(Point):
    def _sample(self, num_tasks, split, generator):
        if split == "test":
            raise ZeroDivisionError("no test tasks\nat all")
        return super()._sample(num_tasks, split, generator)


class Infinite(Point):
    """The reward near the goal is infinite, which the environment ends as a fault."""

    def transition(self, state, action, streams, task):
        state, reward, terminated = super().transition(state, action, streams, task)
        return state, torch.where(torch.arange(len(reward)) == 1, torch.inf, reward), terminated


class UnknownBackend(NativeEnv):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.backend = "other"


class Edited(NativeEnv):
    """`edit` changes what a step returns, `[observations, rewards, terminated, truncated, info]`."""

    def edit(self, result):
        raise NotImplementedError

    def _step(self, actions):
        result = list(super()._step(actions))
        self.edit(result)
        return tuple(result)


def edited(function):
    return type("EditedEnv", (Edited,), {"edit": lambda self, result: function(result)})


def put(result, index, value):
    result[index] = value
