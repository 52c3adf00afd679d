"""PPO of Stable-Baselines3 on `metarl.to_sb3`, beside the same on processes of Gymnasium's half cheetah.

Both learn one task of HalfCheetahVel-v0 with the same options and seeds. In the `SubprocVecEnv` each environment is
`HalfCheetah-v5` with the task's reward, in a process of its own. What counts is the return that is reached and the
steps per second while experience is collected, in turns and in one run.
"""

import contextlib
import dataclasses
import functools
import multiprocessing
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import scipy.stats
import torch
import tyro
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecMonitor

import metarl
from metarl.scripts.benchmark import Output, known_versions
from metarl.tasks import check_count

FAMILY = "HalfCheetahVel-v0"
CONTROL_WEIGHT = 0.05
"""Of the family's reward."""
ROLLOUT = 128
"""Steps of each environment between two updates."""
LAST_EPISODES = 100
"""Episodes at the end of training whose mean return is what was reached."""


@dataclass
class Arguments(Output):
    """One task, several seeds."""

    steps: Annotated[int, tyro.conf.arg(metavar="N")] = 60_000
    """Environment steps that each model trains for."""
    seeds: Annotated[int, tyro.conf.arg(metavar="N")] = 3
    """Models of each kind."""
    num_envs: Annotated[int, tyro.conf.arg(metavar="N")] = 16
    """Environments that a model trains in."""
    velocity: float = 1.0
    """The task: the velocity to run at (m/s)."""


class TargetVelocityCheetah(HalfCheetahEnv):
    """`HalfCheetah-v5` with the reward of a task of HalfCheetahVel-v0 (Finn et al. 2017)."""

    def __init__(self, velocity: float):
        self._target = velocity
        super().__init__()

    def _get_rew(self, x_velocity: float, action: np.ndarray) -> tuple[float, dict[str, float]]:
        return -abs(x_velocity - self._target) - CONTROL_WEIGHT * float(np.square(action).sum()), {}


class CollectionTime(BaseCallback):
    """Adds up the time in which a model collects experience."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def _on_rollout_start(self) -> None:
        self._since = time.perf_counter()

    def _on_rollout_end(self) -> None:
        self.seconds += time.perf_counter() - self._since

    def _on_step(self) -> bool:
        return True


def original(velocity: float, horizon: int) -> gym.Env:
    """One of Gymnasium's environments with the task's reward."""
    return gym.wrappers.TimeLimit(TargetVelocityCheetah(velocity), horizon)


@contextlib.contextmanager
def environments(kind: str, arguments: Arguments) -> Iterator[VecEnv]:
    """The environments of `kind`, "to_sb3" or "SubprocVecEnv", as Stable-Baselines3 has them."""
    family = metarl.make(FAMILY)
    if kind == "to_sb3":
        env = family.make_env(1, arguments.num_envs)
        env.set_tasks(family.task(velocity=arguments.velocity))
        made = metarl.to_sb3(env)
    else:
        one = functools.partial(original, arguments.velocity, family.horizon)
        # A server without threads has imported everything, so its forks start at once. Forks of this process, with the
        # threads of to_sb3 and torch, stood still now and then.
        multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])
        made = VecMonitor(SubprocVecEnv([one] * arguments.num_envs, start_method="forkserver"))
    with contextlib.closing(made):
        yield made


def measure(kind: str, arguments: Arguments, seed: int) -> dict[str, float]:
    """Trains a model; returns what it reached and how fast it collected and trained."""
    with environments(kind, arguments) as env:
        model = PPO("MlpPolicy", env, n_steps=ROLLOUT, batch_size=256, n_epochs=5, seed=seed, device="cpu")
        collecting, start = CollectionTime(), time.perf_counter()
        model.learn(arguments.steps, collecting)
        seconds = time.perf_counter() - start
        last = [episode["r"] for episode in list(model.ep_info_buffer or ())[-LAST_EPISODES:]]
        steps = model.num_timesteps
    return {
        "return": float(np.mean(last)) if last else float("nan"),
        "collected_per_second": steps / collecting.seconds,
        "trained_per_second": steps / seconds,
    }


def run(arguments: Arguments) -> dict[str, Any]:
    for name in ("steps", "seeds", "num_envs"):
        check_count(name, getattr(arguments, name))
    kinds = ("to_sb3", "SubprocVecEnv")
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for kind in kinds:  # what happens once in a process is no one's speed
        measure(kind, dataclasses.replace(arguments, steps=ROLLOUT * arguments.num_envs), seed=0)
    for seed in range(arguments.seeds):
        for kind in kinds:
            found[kind].append(measure(kind, arguments, seed))
            figures = "  ".join(f"{name} {value:,.1f}" for name, value in found[kind][-1].items())
            print(f"seed {seed}  {kind:14} {figures}", file=sys.stderr)
    ours, theirs = (found[kind] for kind in kinds)
    result: dict[str, Any] = {"arguments": {n: v for n, v in vars(arguments).items() if n != "json"}, "runs": found}
    result |= {f"{name}_ratio": _ratio(name, ours, theirs) for name in ("collected_per_second", "trained_per_second")}
    result |= {"return": {kind: float(np.mean([one["return"] for one in found[kind]])) for kind in kinds}}
    if arguments.seeds > 1:
        # Welch's test: whether the returns differ by more than the seeds do.
        test = scipy.stats.ttest_ind(*([one["return"] for one in runs] for runs in (ours, theirs)), equal_var=False)
        result["p_value_of_equal_returns"] = float(test.pvalue)
    for name, value in result.items():
        if name not in ("arguments", "runs"):
            print(f"{name}: {value if isinstance(value, dict) else round(value, 3)}")
    packages = ("metarl-kit", "stable-baselines3", "gymnasium", "mujoco", "mjbatch", "torch")
    return result | {"threads": torch.get_num_threads(), "versions": known_versions(packages)}


def _ratio(name: str, ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> float:
    """The median over seeds of the ratio of neighbours in time."""
    return statistics.median(one[name] / other[name] for one, other in zip(ours, theirs, strict=True))
