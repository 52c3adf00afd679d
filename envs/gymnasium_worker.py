"""The part of the Gymnasium backend that runs where the environments are: in the worker processes, or in this one."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space

Arrays = dict[str, np.ndarray]
Apply = Callable[[gym.Env, Mapping[str, Any]], None]
"""Gives an environment its task: numbers by name, or arrays where a parameter has a shape."""
StateAccess = tuple[Callable[[gym.Env], Mapping[str, Any]], Callable[[gym.Env, Mapping[str, np.ndarray]], None]]
"""Reads all that an environment's next step depends on as arrays; writes them back, maybe padded with zeros."""


@dataclass(frozen=True)
class Recipe:
    """How to make and handle one environment; it travels to the workers by cloudpickle, so lambdas will do."""

    make: Callable[[], gym.Env]
    """A new environment whose observations are flat, `[D]`."""
    apply: Apply
    state: StateAccess | None
    observation_space: gym.spaces.Box
    action_space: gym.spaces.Box | gym.spaces.Discrete
    horizon: int


class Failure:
    """An exception on its way to the process that asked: pickled as itself, or as a `RuntimeError` if it cannot be."""

    def __init__(self, error: Exception):
        self.error = error

    def __reduce__(self) -> tuple:
        data = cloudpickle.dumps(RuntimeError(f"{type(self.error).__name__}: {self.error}"))
        try:
            exact = cloudpickle.dumps(self.error)
            cloudpickle.loads(exact)
        except Exception:  # an exception holds whatever its author put in, and rebuilds itself as it likes
            return Failure.load, (data,)
        return Failure.load, (exact,)

    @classmethod
    def load(cls, data: bytes) -> "Failure":
        return cls(cloudpickle.loads(data))


def open_chunk(recipe: Recipe | bytes, parent: int, **layout: int) -> "Chunk":
    """The chunk that `recipe`, pickled or not, describes; `parent` is the id of the process that asks for it."""
    in_worker = os.getpid() != parent
    if in_worker:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to answer
    return Chunk(cloudpickle.loads(recipe) if isinstance(recipe, bytes) else recipe, in_worker=in_worker, **layout)


class Chunk(gym.Env):
    """Environments `first` … `first + count - 1` of a batch, as one environment for Gymnasium's vector classes.

    What a step yields is its observation, a dictionary of arrays with `rows >= count` rows: all of it travels through
    the shared memory of `AsyncVectorEnv`, and one process runs many environments. Nothing is built before `build`, for
    `AsyncVectorEnv` makes one more chunk than it uses. No exception leaves a chunk: it answers a `Failure`, which needs
    neither Gymnasium's queue of errors (it hangs on what cannot be pickled) nor its warnings.
    """

    def __init__(self, recipe: Recipe, *, in_worker: bool, first: int, count: int, rows: int, envs_per_task: int):
        self._recipe = recipe
        self._in_worker = in_worker
        self._members = range(first, first + count)
        self._task_of = [i // envs_per_task for i in self._members]
        self._envs: list[gym.Env] = []
        self._elapsed = np.zeros(count, np.int64)
        self._started = False
        size = recipe.observation_space.shape[0]
        observations, flags = gym.spaces.Box(-np.inf, np.inf, (rows, size)), gym.spaces.MultiBinary(rows)
        self.observation_space = gym.spaces.Dict(
            obs=observations,
            final_obs=observations,
            reward=gym.spaces.Box(-np.inf, np.inf, (rows,)),
            terminated=flags,
            truncated=flags,
            success=flags,
        )
        self.action_space = batch_space(recipe.action_space, rows)
        self._out: Arrays = {name: np.zeros(space.shape, space.dtype) for name, space in self.observation_space.items()}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Arrays, dict[str, Any]]:
        """Starts episodes; `options["seeds"]` has a seed, or None, for each environment of the batch."""
        assert options is not None
        return self._out, _report(self.perform("_reset", options["seeds"]))

    def step(self, action: np.ndarray) -> tuple[Arrays, float, bool, bool, dict[str, Any]]:
        return self._out, 0.0, False, False, _report(self.perform("_step", action))

    def close(self) -> None:
        while self._envs:
            self._envs.pop().close()

    def perform(self, method: str, *arguments: Any) -> Any:
        """What `method` returns, or a `Failure`; a worker shows the traceback, which does not survive the journey."""
        try:
            return getattr(self, method)(*arguments)
        except Exception as error:
            if self._in_worker:
                traceback.print_exc()
                sys.stderr.flush()
                error.add_note("raised in a worker process, which printed its traceback")
            return Failure(error)

    def build(self) -> None:
        for _ in self._members:
            self._envs.append(self._recipe.make())

    def assign(self, parameters: Arrays) -> None:
        """Gives every environment its task; `parameters` holds the rows of all tasks of the batch."""
        for env, task in zip(self._envs, self._task_of, strict=True):
            rows = {name: value[task] for name, value in parameters.items()}
            self._recipe.apply(env, {n: row.item() if row.ndim == 0 else row.copy() for n, row in rows.items()})

    def frames(self) -> list[Any]:
        return [env.render() for env in self._envs]

    def read_state(self) -> list[Arrays]:
        """One dictionary an environment: its own state, the time in its episode and its random stream."""
        assert self._recipe.state is not None
        read, _ = self._recipe.state
        return [
            {name: np.array(value) for name, value in read(env).items()}
            | {"elapsed_steps": np.array(self._elapsed[i]), "rng": _read_rng(env)}
            for i, env in enumerate(self._envs)
        ]

    def write_state(self, state: Arrays) -> None:
        """Restores rows `[B, ...]` of `read_state`'s entries."""
        assert self._recipe.state is not None
        _, write = self._recipe.state
        if not self._started:  # wrappers, and environments that place things, want a reset first
            self._reset([None] * self._members.stop)
        for i, env in enumerate(self._envs):
            own = {name: value[self._members[i]] for name, value in state.items()}
            _write_rng(env, own.pop("rng"))
            self._set_elapsed(i, int(own.pop("elapsed_steps")))
            write(env, own)

    def _reset(self, seeds: list[int | None]) -> None:
        for i, env in enumerate(self._envs):
            self._out["obs"][i], _ = env.reset(seed=seeds[self._members[i]])
        self._elapsed[:] = 0
        self._started = True

    def _step(self, actions: np.ndarray) -> None:
        out = self._out
        for i, env in enumerate(self._envs):
            obs, reward, terminated, truncated, info = env.step(actions[i])
            self._elapsed[i] += 1
            truncated = truncated or self._elapsed[i] >= self._recipe.horizon
            out["reward"][i] = reward
            out["terminated"][i] = terminated
            out["truncated"][i] = truncated
            out["success"][i] = bool(info.get("success", False))
            out["final_obs"][i] = obs
            if terminated or truncated:
                obs, _ = env.reset()
                self._elapsed[i] = 0
            out["obs"][i] = obs

    def _set_elapsed(self, i: int, steps: int) -> None:
        self._elapsed[i] = steps
        layer = self._envs[i]
        while isinstance(layer, gym.Wrapper):
            if isinstance(layer, gym.wrappers.TimeLimit):  # a factory may bring its own
                layer._elapsed_steps = steps
            layer = layer.env


def _report(answer: Failure | None) -> dict[str, Any]:
    return {} if answer is None else {"failure": answer}


# Open states ---------------------------------------------------------------------------------------------------------

_MASK = 2**64 - 1


def _read_rng(env: gym.Env) -> np.ndarray:
    """The state of Gymnasium's generator (PCG64: two numbers of 128 bits and a spare half draw) as int64 `[6]`."""
    state = env.unwrapped.np_random.bit_generator.state
    words = [part for name in ("state", "inc") for number in [state["state"][name]] for part in divmod(number, 2**64)]
    return np.array([*words, state["has_uint32"], state["uinteger"]], np.uint64).view(np.int64)


def _write_rng(env: gym.Env, words: np.ndarray) -> None:
    high, low, inc_high, inc_low, spare, value = (int(word) & _MASK for word in words)
    env.unwrapped.np_random.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": high << 64 | low, "inc": inc_high << 64 | inc_low},
        "has_uint32": spare,
        "uinteger": value,
    }


def known_state(env: gym.Env) -> StateAccess | None:
    """The access to `env`'s state, where it is one of Gymnasium's classic-control or MuJoCo environments."""
    if type(env.unwrapped).__module__.startswith("gymnasium.envs.classic_control."):
        return read_classic, write_classic
    if any(base.__module__ == "gymnasium.envs.mujoco.mujoco_env" for base in type(env.unwrapped).__mro__):
        return (lambda env: read_mujoco(env.unwrapped)), (lambda env, state: write_mujoco(env.unwrapped, state))
    return None


def read_classic(env: gym.Env) -> Arrays:
    return {"state": np.asarray(env.unwrapped.state, np.float64)}


def write_classic(env: gym.Env, state: Mapping[str, np.ndarray]) -> None:
    env.unwrapped.state = state["state"].copy()
    if hasattr(env.unwrapped, "steps_beyond_terminated"):
        env.unwrapped.steps_beyond_terminated = None  # no episode goes on beyond its end here


_MUJOCO_STATE = ("qpos", "qvel", "act", "ctrl", "mocap_pos", "mocap_quat", "qacc_warmstart", "eq_active")
# Environments look at positions before they step. MuJoCo leaves them one substep old, so mj_forward would not do.
_MUJOCO_POSITIONS = (
    "xpos",
    "xquat",
    "xmat",
    "xipos",
    "geom_xpos",
    "geom_xmat",
    "site_xpos",
    "site_xmat",
    "subtree_com",
)


def read_mujoco(env: Any) -> Arrays:
    """`qpos`, `qvel`, `time` and whatever else the next step of a `MujocoEnv` may depend on, float64."""
    state = {name: getattr(env.data, name).astype(np.float64) for name in (*_MUJOCO_STATE, *_MUJOCO_POSITIONS)}
    return state | {"time": np.float64(env.data.time)}


def write_mujoco(env: Any, state: Mapping[str, np.ndarray]) -> None:
    import mujoco  # here alone: workers of other environments start without it

    for names in (_MUJOCO_STATE, (*_MUJOCO_STATE, *_MUJOCO_POSITIONS)):
        for name in names:
            target = getattr(env.data, name)
            target[...] = state[name][: len(target)]
        env.data.time = float(state["time"])
        if names == _MUJOCO_STATE:
            mujoco.mj_forward(env.model, env.data)  # it spoils the warm start, which the second round puts right
