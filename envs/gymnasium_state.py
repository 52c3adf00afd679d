"""The state of Gymnasium's own environments: reading and writing all that their next step depends on."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium import wrappers

from metarl.envs.gymnasium_answers import layers

Arrays = dict[str, np.ndarray]
StateAccess: TypeAlias = tuple[
    Callable[[gym.Env], Mapping[str, Any]], Callable[[gym.Env, Mapping[str, np.ndarray]], None]
]
"""Reads all that an environment's next step depends on as arrays; writes them back, maybe padded with zeros."""

_MASK = 2**64 - 1
_STATELESS = (
    wrappers.ClipAction,
    wrappers.ClipReward,
    wrappers.DtypeObservation,
    wrappers.FilterObservation,
    wrappers.FlattenObservation,
    wrappers.GrayscaleObservation,
    wrappers.OrderEnforcing,
    wrappers.PassiveEnvChecker,
    wrappers.RescaleAction,
    wrappers.RescaleObservation,
    wrappers.ReshapeObservation,
    wrappers.ResizeObservation,
    wrappers.TimeLimit,  # its clock is set with the family's
)


def read_rng(env: gym.Env) -> np.ndarray:
    """The state of Gymnasium's generator (PCG64: two numbers of 128 bits and a spare half draw) as int64 `[6]`."""
    state: Any = env.unwrapped.np_random.bit_generator.state
    words = [part for name in ("state", "inc") for number in [state["state"][name]] for part in divmod(number, 2**64)]
    return np.array([*words, state["has_uint32"], state["uinteger"]], np.uint64).view(np.int64)


def write_rng(env: gym.Env, words: np.ndarray) -> None:
    high, low, inc_high, inc_low, spare, value = (int(word) & _MASK for word in words)
    env.unwrapped.np_random.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": high << 64 | low, "inc": inc_high << 64 | inc_low},
        "has_uint32": spare,
        "uinteger": value,
    }


def known_state(env: gym.Env) -> StateAccess | None:
    """The access to `env`'s state, if it is one of Gymnasium's classic-control or MuJoCo environments.

    Classes derived from them and wrappers may keep more: their state is known only to those who wrote them.
    """
    if not all(type(layer) in _STATELESS for layer in layers(env)[:-1]):
        return None
    module = type(env.unwrapped).__module__
    if module.startswith("gymnasium.envs.classic_control."):
        return CLASSIC_CONTROL
    return MUJOCO if module.startswith("gymnasium.envs.mujoco.") else None


def read_classic(env: gym.Env) -> Arrays:
    state = np.asarray(env.unwrapped.state)
    # Some go over to single precision with their first step, and compute on in the precision they find.
    return {"state": state.astype(np.float64), "single_precision": np.array(state.dtype == np.float32)}


def write_classic(env: gym.Env, state: Mapping[str, np.ndarray]) -> None:
    problem: Any = env.unwrapped
    problem.state = state["state"].astype(np.float32 if state["single_precision"] else np.float64)
    if hasattr(problem, "steps_beyond_terminated"):
        problem.steps_beyond_terminated = None  # no episode goes on beyond its end here


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


CLASSIC_CONTROL: StateAccess = (read_classic, write_classic)
MUJOCO: StateAccess = (
    lambda env: read_mujoco(env.unwrapped),
    lambda env, state: write_mujoco(env.unwrapped, state),
)
"""For environments derived from Gymnasium's `MujocoEnv` that keep nothing else, as `GymnasiumDistribution(state=…)`."""
