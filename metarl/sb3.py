"""Stable-Baselines3 (SB3) on metarl's environments. Nothing else in the core imports it, and this only on first use."""

import operator
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Shaped
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn
from torch import Tensor

from metarl.adapters import check_first_observations, checked_step, own_array
from metarl.errors import UsageError
from metarl.spaces import Observations, explored_range, is_picture, map_tensors
from metarl.vector_env import TaskVectorEnv


def to_sb3(env: TaskVectorEnv, *, rescale_actions: bool = False) -> VecEnv:
    """`env` as a vector environment of SB3, in a `VecMonitor`: SB3's algorithms train on it, each row one environment.

    Set the tasks before training, and again at any time. Episodes that are cut off carry `TimeLimit.truncated`, and all
    that end carry `terminal_observation` and, if the family defines success, `is_success`: whether the episode
    succeeded at any step.

    With `rescale_actions`, boxes of actions become [-1, 1], which SB3 recommends, and actions are scaled to the bounds.
    Missing bounds, which SB3 refuses, are those of `metarl.spaces.explored_range` in either case. Choices count from 0.

    Raises `UsageError` for actions that are a `Tuple`, which SB3 does not have, and for pictures that SB3 would take
    for ones with their channels first.

    >>> family = metarl.make("PointNavigation-v0", horizon=5)
    >>> env = family.make_env(num_tasks=2, envs_per_task=3)
    >>> env.set_tasks(family.sample(2, seed=0))
    >>> vec_env = metarl.to_sb3(env)
    >>> vec_env.reset().shape
    (6, 2)
    >>> from stable_baselines3 import A2C
    >>> model = A2C("MlpPolicy", vec_env).learn(60)
    """
    return VecMonitor(TaskVecEnv(env, rescale_actions=rescale_actions))


class SB3Actions:
    """The actions of SB3 for an action `space` of ours: the `space` that SB3 sees, and what its actions mean.

    >>> from metarl.sb3 import SB3Actions
    >>> actions = SB3Actions(metarl.make("PointNavigation-v0").action_space, rescale=True)
    >>> actions.space, actions.decode([[1.0, -0.5]])
    (Box(-1.0, 1.0, (2,), float32), tensor([[ 0.1000, -0.0500]]))
    """

    def __init__(self, space: gym.Space, *, rescale: bool = False):
        self.discrete = not isinstance(space, gym.spaces.Box)
        self.scale: tuple[Tensor, Tensor] | None = None
        """Bounds that [-1, 1] is scaled to."""
        self.first = np.zeros((), np.int64)
        """The number that stands for SB3's choice 0."""
        self.space: gym.Space
        # New spaces in every case: SB3 seeds the space that it is given.
        if isinstance(space, gym.spaces.Box):
            low, high = explored_range(torch.as_tensor(space.low), torch.as_tensor(space.high))
            self.scale = (low, high) if rescale else None
            bounds = (-torch.ones_like(low), torch.ones_like(high)) if rescale else (low, high)
            self.space = gym.spaces.Box(*(bound.numpy() for bound in bounds), dtype=np.float32)
        elif isinstance(space, gym.spaces.Discrete):
            self.first = np.asarray(space.start, np.int64)
            self.space = gym.spaces.Discrete(int(space.n))
        elif isinstance(space, gym.spaces.MultiDiscrete):
            self.first = np.asarray(space.start, np.int64)
            self.space = gym.spaces.MultiDiscrete(space.nvec)
        elif isinstance(space, gym.spaces.MultiBinary):
            self.space = gym.spaces.MultiBinary(space.n)
        else:
            raise UsageError(
                f"Stable-Baselines3 has no actions like {space}: make them one Box, Discrete, MultiDiscrete or "
                "MultiBinary, or train one of metarl's own agents"
            )

    def decode(self, actions: Any, device: torch.device | str = "cpu") -> Shaped[Tensor, "B ..."]:
        """SB3's `actions` `[B, ...]` as `TaskVectorEnv` takes them, in a tensor of their own.

        Raises `UsageError` for choices that are not whole numbers.
        """
        given = np.asarray(actions)
        if self.discrete:
            choices = given.astype(np.int64)  # SB3 has those of MultiBinary as floats
            if not np.array_equal(choices, given):
                raise UsageError(f"actions of {self.space} must be whole numbers, got {given.dtype} with others")
            return torch.tensor(choices + self.first, device=device)
        values = torch.tensor(given, dtype=torch.float32, device=device)
        if self.scale is None:
            return values
        low, high = (bound.to(device) for bound in self.scale)
        return low + 0.5 * (values.clamp(-1, 1) + 1) * (high - low)


class TaskVecEnv(VecEnv):
    """A `TaskVectorEnv`, `env`, behind SB3's interface. `to_sb3` makes one; its docstring says the rest.

    All arrays that it returns are copies: the next step changes none of them. The environments are stepped as one, so
    `set_attr` and `env_method` apply to all of them. `get_attr("task")` gives the task of each.

    >>> from metarl.sb3 import TaskVecEnv
    >>> family = metarl.make("Bandit-v0", arms=5, pulls=10)
    >>> env = family.make_env(num_tasks=2)
    >>> env.set_tasks(family.sample(2, seed=0))
    >>> TaskVecEnv(env).get_attr("task")[1] == env.tasks[1]
    True
    """

    def __init__(self, env: TaskVectorEnv, *, rescale_actions: bool = False):
        self.env = env
        self.actions = SB3Actions(env.single_action_space, rescale=rescale_actions)
        super().__init__(env.num_envs, sb3_observations(env.single_observation_space), self.actions.space)
        self._succeeded = np.zeros(env.num_envs, dtype=bool)
        """The environments whose running episode has succeeded."""
        self._next: Tensor | None = None

    def reset(self) -> VecEnvObs:
        options = next((options for options in self._options if options), None)
        observations, _ = self.env.reset(seed=self._seeds[0], options=options)
        check_first_observations(self.env, observations)
        self._reset_seeds()
        self._reset_options()
        self._succeeded[:] = False
        return sb3_arrays(observations)

    def step_async(self, actions: Any) -> None:
        self._next = self.actions.decode(actions, self.env.device)

    def step_wait(self) -> VecEnvStepReturn:
        if self._next is None:
            raise UsageError("call step_async before step_wait")
        actions, self._next = self._next, None
        observations, rewards, terminated, truncated, info = checked_step(self.env, actions)
        ended = terminated | truncated
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": cut} for cut in (truncated & ~terminated).tolist()]
        if "success" in info:
            self._succeeded |= own_array(info["success"])
        if bool(ended.any()):
            self._conclude(infos, ended, info["final_obs"], "success" in info)
        return sb3_arrays(observations), own_array(rewards), own_array(ended), infos

    def close(self) -> None:
        self.env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """A picture of each environment, if the environment was made with `render_mode="rgb_array"`."""
        return list(self.env.render() or [None] * self.num_envs)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        chosen = self._get_indices(indices)
        if attr_name == "task":
            return [self.env.tasks[index // self.env.envs_per_task] for index in chosen]
        return [getattr(self.env, attr_name) for _ in chosen]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        self._check_all(f"the attribute {attr_name!r} is set", indices)
        setattr(self.env, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Calls the method of `env` once, for all environments; each has the same result."""
        self._check_all(f"the method {method_name!r} is called", indices)
        return [getattr(self.env, method_name)(*method_args, **method_kwargs)] * self.num_envs

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """False for each: a wrapper inside a family does not show."""
        return [False for _ in self._get_indices(indices)]

    def _check_all(self, what: str, indices: VecEnvIndices) -> None:
        if indices is not None and sorted(self._get_indices(indices)) != list(range(self.num_envs)):
            raise UsageError(f"{what} for all environments at once, which are stepped as one: leave out indices")

    def _conclude(self, infos: list[dict[str, Any]], ended: Tensor, reached: Observations, has_success: bool) -> None:
        """Adds what SB3 wants to know of the episodes that ended."""
        last = sb3_arrays(map_tensors(lambda value: value[ended], reached))
        for row, index in enumerate(ended.nonzero().flatten().tolist()):
            infos[index]["terminal_observation"] = map_tensors(operator.itemgetter(row), last)
            if has_success:
                infos[index]["is_success"] = bool(self._succeeded[index])
        self._succeeded[own_array(ended)] = False


def sb3_arrays(observations: Observations) -> VecEnvObs:
    """Observations `[B, ...]` as arrays of their own in `sb3_observations` of their space."""
    if isinstance(observations, dict):
        return {_name(name): own_array(value) for name, value in observations.items()}
    return own_array(observations)


def sb3_observations(space: gym.Space) -> gym.Space:
    """The observation space as SB3 sees it: pictures reach from 0 to 255, and names have `_` instead of dots.

    Raises `UsageError` for pictures that SB3 would take for ones with their channels first, and for names that would be
    the same without dots.
    """
    if isinstance(space, gym.spaces.Dict):
        entries = {_name(name): sb3_observations(entry) for name, entry in space.spaces.items()}
        if len(entries) < len(space.spaces):
            raise UsageError(f"Stable-Baselines3 takes no dots in names, and without them {', '.join(space)} collide")
        return gym.spaces.Dict(entries)
    if not is_picture(space):
        return space
    assert space.shape is not None
    if np.argmin(space.shape) != 2:
        raise UsageError(
            f"Stable-Baselines3 takes the smallest side of a picture for its channels: {list(space.shape)} would be "
            "misread, wanted are height and width above the number of channels"
        )
    return gym.spaces.Box(0, 255, space.shape, np.uint8)


def _name(entry: str) -> str:
    """torch's modules, which SB3 names after the entries, have no dots in their names."""
    return entry.replace(".", "_")
