"""The contenders of `metarl benchmark rollout`: metarl's own rollouts and those of its peers."""

import functools
import importlib.util
import inspect
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import metarl
from metarl.agents.random import RandomPolicy
from metarl.devices import num_cpus
from metarl.distribution import TaskDistribution
from metarl.envs.gymnasium_env import GymnasiumDistribution
from metarl.envs.locomotion.family import LocomotionDistribution
from metarl.envs.locomotion.robots import GymnasiumRobot
from metarl.envs.metaworld.family import MetaWorld
from metarl.randomness import make_generator
from metarl.scripts.learn_bounds import RECORDED_STEPS, PhysicsAlone

GYMNASIUM_WORKERS = 16
ROLLOUT_STEPS = RECORDED_STEPS


class Contender:
    """Takes random actions in `num_envs` environments.

    A `fresh` contender starts new episodes with every rollout. If a reset costs a peer a tenth of an episode, as with
    Meta-World, the peer continues its episodes and resets only those that have ended, which favours it over metarl.
    """

    def __init__(self, num_envs: int):
        self.num_envs = num_envs

    def rollout(self) -> None:
        """A reset and `ROLLOUT_STEPS` steps of every environment; returns when they are done."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends its threads and processes."""

    def run(self, seconds: float) -> float:
        """Environment steps per second over about `seconds`."""
        start, rollouts = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            self.rollout()
            rollouts += 1
        return rollouts * ROLLOUT_STEPS * self.num_envs / (time.perf_counter() - start)


def takes_graph(family: TaskDistribution) -> bool:
    """Whether its environments can be told to step without a graph of whole steps."""
    return "graph" in inspect.signature(family.make_env).parameters


class OwnContender(Contender):
    """`metarl.collect`, with `num_tasks` tasks, or as many as fit; `graph` goes to `make_env`, if it is given."""

    def __init__(
        self,
        family: TaskDistribution,
        backend: str,
        device: str,
        num_envs: int,
        num_tasks: int | None = None,
        *,
        graph: bool | None = None,
    ):
        super().__init__(num_envs)
        num_tasks = num_tasks or next(tasks for tasks in (40, 32, 20, 16, 10, 8, 4, 2, 1) if num_envs % tasks == 0)
        options: dict[str, Any] = {} if graph is None else {"graph": graph}
        self.env = family.make_env(num_tasks, num_envs // num_tasks, backend=backend, device=device, **options)
        self.env.set_tasks(family.sample(num_tasks, seed=0))
        self.policy = RandomPolicy(family.action_space, make_generator("benchmark", device=self.env.device))

    def rollout(self) -> None:
        metarl.collect(self.env, self.policy, ROLLOUT_STEPS)
        self._wait()

    def close(self) -> None:
        self.env.close()

    def parts(self, seconds: float) -> dict[str, float]:
        """Microseconds per environment step in each part of a rollout.

        On a GPU each part is waited for, so their sum exceeds the time of a normal run. If several engines run side by
        side, physics cannot be separated from the rest of a step.
        """
        spent: dict[str, float] = {}
        owners: list[tuple[Any, str, str]] = [(self.env, "step", "step"), (self.policy, "act", "policy")]
        engines = [self.env.physics] if hasattr(self.env, "physics") else getattr(self.env, "engines", [])
        owners += [(engine, "step", "physics") for engine in engines]
        for owner, method, name in owners:
            setattr(owner, method, self._timed(getattr(owner, method), spent, name))
        start, rollouts = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            self.rollout()
            rollouts += 1
        total = time.perf_counter() - start
        for owner, method, _ in owners:
            delattr(owner, method)  # the class's own shows again
        scale = 1e6 / (rollouts * ROLLOUT_STEPS * self.num_envs)
        parts = {
            "step": spent["step"] * scale,
            "policy": spent["policy"] * scale,
            "copying": (total - spent["step"] - spent["policy"]) * scale,
        }
        if len(engines) > 1:
            return parts
        physics = spent.get("physics", 0.0)
        split = {"physics": physics * scale, "observation_and_reward": (spent["step"] - physics) * scale}
        return parts | split | {"physics_share": physics / spent["step"]}

    def _timed(self, function: Callable, spent: dict[str, float], name: str) -> Callable:
        def timed(*arguments: Any) -> Any:
            self._wait()
            start = time.perf_counter()
            answer = function(*arguments)
            self._wait()
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - start
            return answer

        return timed

    def _wait(self) -> None:
        if self.env.device.type == "cuda":
            torch.cuda.synchronize(self.env.device)


class SingleTasksContender(Contender):
    """The tasks of a set one after the other, each with all environments; the speed is the mean over tasks."""

    def __init__(self, names: Sequence[str], backend: str, device: str, num_envs: int):
        super().__init__(num_envs)
        self._tasks = [OwnContender(metarl.make(f"ML1-{name}"), backend, device, num_envs) for name in names]

    def rollout(self) -> None:
        for task in self._tasks:
            task.rollout()

    def run(self, seconds: float) -> float:
        return statistics.mean(task.run(seconds / len(self._tasks)) for task in self._tasks)

    def close(self) -> None:
        for task in self._tasks:
            task.close()


class EnvPoolContender(Contender):
    """EnvPool's C++ environments, with one thread per CPU."""

    def __init__(self, id: str, options: dict[str, Any], num_envs: int, *, fresh: bool = True):
        import envpool

        super().__init__(num_envs)
        self._env = envpool.make_gymnasium(id, num_envs=num_envs, **options)
        self._space, self._rng = self._env.action_space, np.random.default_rng(0)
        self._fresh = fresh
        self._env.reset()

    def rollout(self) -> None:
        shape = (self.num_envs, *self._space.shape)
        if self._fresh:
            self._env.reset()
        for _ in range(ROLLOUT_STEPS):
            self._env.send(self._rng.uniform(self._space.low, self._space.high, shape))
            self._env.recv()

    def close(self) -> None:
        self._env.close()


class GymnasiumContender(Contender):
    """Gymnasium's own environments in as many `processes`, one in each, which take their shares in rounds."""

    def __init__(
        self, make: Callable[[], gym.Env], num_envs: int, *, fresh: bool = True, processes: int = GYMNASIUM_WORKERS
    ):
        super().__init__(num_envs)
        self._workers = min(processes, num_envs)
        self._env = gym.vector.AsyncVectorEnv([make] * self._workers)
        self._space, self._rng = self._env.action_space, np.random.default_rng(0)
        self._fresh = fresh
        self._env.reset()

    def rollout(self) -> None:
        """Runs as many rounds of the workers as `num_envs` environments need."""
        for _ in range(-(-self.num_envs // self._workers)):
            if self._fresh:
                self._env.reset()
            for _ in range(ROLLOUT_STEPS):
                self._env.step_async(self._actions())
                self._env.step_wait()

    def _actions(self) -> np.ndarray:
        space = self._space
        if isinstance(space, gym.spaces.MultiDiscrete):  # what a batch of discrete spaces is
            return self._rng.integers(space.start, space.start + space.nvec)
        return self._rng.uniform(space.low, space.high).astype(np.float32)

    def close(self) -> None:
        self._env.close()


class PhysicsContender(Contender):
    """The bound of `OwnContender`: `mj_step` alone, on the same worlds and threads (`learn_bounds.PhysicsAlone`)."""

    def __init__(self, own: OwnContender, family: TaskDistribution):
        super().__init__(own.num_envs)
        self._physics = PhysicsAlone(family, own.env.num_tasks, own.env.envs_per_task)

    def rollout(self) -> None:
        self._physics.run()

    def close(self) -> None:
        self._physics.close()


def peers_of(family: TaskDistribution, backend: str, device: str, num_envs: int) -> dict[str, Contender]:
    """The installed peers that have the family's robot. Their episodes end under the same conditions.

    A set of Meta-World tasks is compared with its own tasks, each alone; the backend "gymnasium" with Gymnasium's
    `AsyncVectorEnv` in the same number of processes.
    """
    makers = {"envpool": EnvPoolContender, "gymnasium": GymnasiumContender}
    installed = {name: maker for name, maker in makers.items() if importlib.util.find_spec(name) is not None}
    if isinstance(family, LocomotionDistribution) and isinstance(family.robot, GymnasiumRobot):
        options = {"max_episode_steps": family.horizon}
        if family.robot.falls:
            options["terminate_when_unhealthy"] = family.terminates
        make = functools.partial(gym.make, family.robot.gymnasium_id, **options)
        arguments: dict[str, tuple] = {"envpool": (family.robot.gymnasium_id, options), "gymnasium": (make,)}
        if backend == "gymnasium":  # the same environments: what differs is how they are stepped
            return {"gymnasium": GymnasiumContender(make, num_envs, processes=num_cpus())}
        return {name: maker(*arguments[name], num_envs) for name, maker in installed.items()}
    if isinstance(family, GymnasiumDistribution):
        return {"gymnasium": GymnasiumContender(family.make_one, num_envs, processes=family.workers or num_cpus())}
    if isinstance(family, MetaWorld) and len(family.names) > 1:
        return {"single tasks": SingleTasksContender(family.split_names["train"], backend, device, num_envs)}
    if isinstance(family, MetaWorld):
        name = family.names[0]
        place = "".join(part.title() for part in name.removesuffix("-v3").split("-"))
        arguments = {"envpool": (f"MetaWorld/{place}-v3", {}), "gymnasium": (functools.partial(_official, name),)}
        return {name: maker(*arguments[name], num_envs, fresh=False) for name, maker in installed.items()}
    return {}


def _official(name: str) -> gym.Env:
    import metaworld  # noqa: F401 - registers its environments

    return gym.make("Meta-World/goal_observable", env_name=name, seed=0, disable_env_checker=True)
