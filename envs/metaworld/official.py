"""Meta-World's tasks on the environments of its official package: slow, and what the batched ones are compared with."""

import functools
import pickle
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from metarl.envs.gymnasium_env import GymnasiumDistribution
from metarl.envs.gymnasium_state import read_mujoco, write_mujoco
from metarl.envs.metaworld.family_options import ACTION_SPACE, FamilyOptions
from metarl.envs.metaworld.goals import RANDOM_VECTOR_SIZE, task_class


def official_distribution(
    id: str,
    options: FamilyOptions,
    *,
    task_space: Mapping[str, gym.spaces.Box],
    horizon: int,
    vectorization: str,
    workers: int | None,
) -> GymnasiumDistribution:
    """A family on worker processes that run the package's environments."""
    return GymnasiumDistribution(
        id,
        functools.partial(OfficialEnv, options),
        parameters=task_space,
        apply=lambda env, task: env.unwrapped.set_task(task["task_index"], task["rand_vec"]),
        horizon=horizon,
        vectorization=vectorization,
        workers=workers,
        has_success=True,
        state=(lambda env: env.unwrapped.read_state(), lambda env, state: env.unwrapped.write_state(state)),
        spaces=(options.observation_space, ACTION_SPACE),
    )


class OfficialEnv(gym.Env):
    """One environment of a batch: the package's environment of whatever task it is given.

    Another task class means another environment. MuJoCo keeps the meshes that it has read, so building one takes some
    10 ms, less than a reset.

    >>> env = OfficialEnv(FamilyOptions(("reach-v3",)))
    >>> env.set_task(0, rand_vec)
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}
    action_space = ACTION_SPACE

    def __init__(self, options: FamilyOptions, render_mode: str | None = None):
        self.observation_space = options.observation_space
        self._options = options
        self._name: str | None = None
        self._rand_vec = np.zeros(RANDOM_VECTOR_SIZE)
        self._env: Any = None
        self._is_reset = False
        self.render_mode = render_mode

    def set_task(self, task_index: int, rand_vec: np.ndarray) -> None:
        from metaworld.types import Task

        name = self._options.names[task_index]
        self._index = task_index
        if name == self._name and np.array_equal(rand_vec, self._rand_vec):
            return
        if name != self._name:
            self.close()
            self._env = task_class(name)(render_mode=self.render_mode, reward_function_version=self._options.reward)
        size = self._env._random_reset_space.low.size
        hidden = not self._options.goal_observable
        data = {"rand_vec": rand_vec[:size].copy(), "env_cls": type(self._env), "partially_observable": hidden}
        self._env.set_task(Task(name, pickle.dumps(data)))
        self._name, self._rand_vec, self._is_reset = name, rand_vec, False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._is_reset = True
        observation, info = self._env.reset()
        return self._observe(observation), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._ensure_reset()
        obs, reward, terminated, truncated, info = self._env.step(action)
        terminated = terminated or bool(self._options.terminate_on_success and info["success"])
        return self._observe(obs), float(reward), terminated, truncated, info

    def render(self) -> Any:
        self._ensure_reset()
        return self._env.render()

    def close(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None

    def read_state(self) -> dict[str, Any]:
        """MuJoCo's state and `memory`, the numbers that the package's class keeps between steps."""
        self._ensure_reset()
        memory = [_numbers(getattr(self._env, name)) for name in self._memory_names()]
        return read_mujoco(self._env) | {"memory": np.concatenate(memory)}

    def write_state(self, state: Mapping[str, np.ndarray]) -> None:
        self._ensure_reset()
        write_mujoco(self._env, state)
        position = 0
        for name in self._memory_names():
            old = getattr(self._env, name)
            size = _numbers(old).size
            values = state["memory"][position : position + size]
            position += size
            if isinstance(old, np.ndarray) and not old.flags.owndata:
                old[...] = values.reshape(old.shape)  # some attributes are views of MuJoCo's arrays: keep them so
            elif isinstance(old, np.ndarray):
                setattr(self._env, name, values.reshape(old.shape).astype(old.dtype))
            else:
                setattr(self._env, name, None if np.isnan(values[0]) else type(old or 0.0)(values[0]))

    def _ensure_reset(self) -> None:
        if not self._is_reset:
            self.reset()

    def _observe(self, observation: np.ndarray) -> np.ndarray:
        if not self._options.one_hot:
            return observation
        return np.concatenate([observation, np.eye(len(self._options.names))[self._index]])

    def _memory_names(self) -> list[str]:
        """The numeric attributes, constants among them. A reset defines them all; None is set later."""
        kinds = (bool, int, float, np.generic, np.ndarray, type(None))
        return [
            name
            for name, value in sorted(vars(self._env).items())
            if isinstance(value, kinds) and name not in ("_last_stable_obs", "render_mode", "_np_random")
        ]


def _numbers(value: Any) -> np.ndarray:
    return np.array([np.nan]) if value is None else np.ravel(value).astype(np.float64)
