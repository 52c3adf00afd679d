"""metarl's environments as Gymnasium's: a vector environment of NumPy arrays, and a single environment.

`gymnasium.make` and `gymnasium.make_vec` make them by the ids `metarl/ID` (`metarl.gymnasium_ids`).
"""

import copy
import functools
from collections.abc import Mapping
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool
from torch import Tensor

from metarl.adapters import as_actions, check_first_observations, checked_step, own_array
from metarl.distribution import TaskDistribution
from metarl.errors import UsageError
from metarl.parsing import LARGEST
from metarl.registry import Family, make
from metarl.spaces import Observations, map_tensors
from metarl.tasks import Tasks, check_count
from metarl.vector_env import TaskVectorEnv, choose_rows

Task: TypeAlias = Mapping[str, Any] | int | Tasks | None
"""A task by its parameters, by its number in `all_tasks(split)`, as `Tasks`, or None for drawn ones."""
Arrays: TypeAlias = np.ndarray | dict[str, np.ndarray]
VectorStep: TypeAlias = tuple[Arrays, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]
MODES = (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)
METADATA: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 30}


def to_gymnasium(
    env: TaskVectorEnv, *, autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP
) -> "NumpyVectorEnv":
    """`env` as a Gymnasium vector environment of NumPy arrays, which Gymnasium's vector wrappers take.

    With `AutoresetMode.NEXT_STEP` ("NextStep"), Gymnasium's default and what `NormalizeObservation` needs, the step
    that ends an episode returns its last observation. The next step ignores that environment's action and returns the
    first observation of its next episode, with reward 0. With `SAME_STEP` ("SameStep"), the step that ends an episode
    returns the first observation of the next one, and `info["final_obs"]` has the last. Episodes are the same in both.

    Set the tasks before `reset`, and again at any time, with `set_tasks` of either environment. Rewards are float64
    `[B]`; every entry of `info` has its mask `_entry`, as Gymnasium defines it.

    Raises `UsageError` for another mode.

    >>> from gymnasium.wrappers.vector import NormalizeObservation, RecordEpisodeStatistics
    >>> family = metarl.make("PointNavigation-v0", horizon=5)
    >>> env = family.make_env(num_tasks=2, envs_per_task=3)
    >>> env.set_tasks(family.sample(2, seed=0))
    >>> envs = RecordEpisodeStatistics(NormalizeObservation(metarl.to_gymnasium(env)))
    >>> observations, info = envs.reset(seed=0)
    >>> observations.shape
    (6, 2)
    """
    return NumpyVectorEnv(env, autoreset_mode=autoreset_mode)


class NumpyVectorEnv(gym.vector.VectorEnv):
    """A `TaskVectorEnv`, `env`, as Gymnasium's vector environments are. `to_gymnasium` makes one and says the rest.

    All arrays that it returns are copies. Spaces are copies too, so that seeding them leaves the family's alone.

    Under NEXT_STEP, environments whose episode has ended wait while the others step: their state is read before that
    step and written back after it. If all end at once, as in families whose episodes end by time alone, the next step
    simulates nothing.

    >>> from metarl.gymnasium_adapter import NumpyVectorEnv
    >>> family = metarl.make("Bandit-v0", arms=5, pulls=10)
    >>> env = family.make_env(num_tasks=2)
    >>> env.set_tasks(family.sample(2, seed=0))
    >>> NumpyVectorEnv(env).action_space
    MultiDiscrete([5 5])
    """

    def __init__(self, env: TaskVectorEnv, *, autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP):
        if autoreset_mode not in [known for mode in MODES for known in (mode, mode.value)]:
            known = " or ".join(repr(mode.value) for mode in MODES)
            raise UsageError(f"autoreset_mode must be {known}, got {autoreset_mode!r}")
        self.env = env
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = METADATA | {"autoreset_mode": self.autoreset_mode}
        self.render_mode = env.render_mode
        self.num_envs = env.num_envs
        self.single_observation_space = copy.deepcopy(env.single_observation_space)
        self.single_action_space = copy.deepcopy(env.single_action_space)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._waiting: Tensor = torch.zeros(self.num_envs, dtype=torch.bool, device=env.device)
        """`[B]`: the environments whose next step returns the first observation of an episode (NEXT_STEP)."""
        self._first: Observations = {}
        """What the environments returned last: in the rows of `_waiting`, first observations."""

    @property
    def tasks(self) -> Tasks:
        """The tasks that the environments run."""
        return self.env.tasks

    def set_tasks(self, tasks: Tasks) -> None:
        """`TaskVectorEnv.set_tasks`. A running episode continues with the new task; `reset` starts a fresh one."""
        self.env.set_tasks(tasks)

    def reset(
        self, *, seed: int | np.integer | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Arrays, dict[str, Any]]:
        """Starts an episode in every environment; with a seed, environment `i` is seeded with `seed + i`.

        A list of None is no seed. Raises `UsageError` for a list of other seeds that do not count up, for what is no
        whole number of at least 0, and for `options["reset_mask"]`: environments are reset all at once.
        """
        if options and "reset_mask" in options:
            raise UsageError("these environments start their episodes themselves: leave out options['reset_mask']")
        if isinstance(seed, list):
            first = seed[0] if seed else None
            counted = [None if first is None else _check_seed(first) + i for i in range(self.num_envs)]
            if seed != counted:
                raise UsageError(f"seeds must count up, seed, seed + 1, … for {self.num_envs} environments, got {seed}")
            seed = first
        seed = None if seed is None else _check_seed(seed)
        super().reset(seed=seed)
        observations, _ = self.env.reset(seed=seed, options=options)
        check_first_observations(self.env, observations)
        self._waiting = torch.zeros_like(self._waiting)
        return map_tensors(own_array, observations), {}

    def step(self, actions: Any) -> VectorStep:
        """Steps every environment, or starts its next episode; `to_gymnasium` says when."""
        taken = as_actions(actions, self.single_action_space, self.num_envs).to(self.env.device)
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            return self._same_step(taken)
        return self._next_step(taken)

    def render(self) -> tuple[Any, ...] | None:
        """A picture `[H, W, 3]` (uint8) of each environment, if it was made with `render_mode="rgb_array"`."""
        return self.env.render()

    def close_extras(self, **kwargs: Any) -> None:
        """Closes `env`; `close` comes here once."""
        self.env.close()

    def _same_step(self, actions: Tensor) -> VectorStep:
        observations, rewards, terminated, truncated, info = checked_step(self.env, actions)
        ended = own_array(info.pop("_final_obs"))
        reached = info.pop("final_obs")
        entries = _with_masks(info, np.ones(self.num_envs, dtype=bool))
        if ended.any():
            last = map_tensors(own_array, reached)
            rows = np.full(self.num_envs, None, dtype=object)  # Gymnasium has rows of objects here
            for index in ended.nonzero()[0].tolist():
                rows[index] = _row(last, index)
            entries |= {"final_obs": rows, "_final_obs": ended}
        arrays = (own_array(rewards.double()), own_array(terminated), own_array(truncated))
        return map_tensors(own_array, observations), *arrays, entries

    def _next_step(self, actions: Tensor) -> VectorStep:
        waiting, first = self._waiting, self._first
        if bool(waiting.all()):
            self._waiting = torch.zeros_like(waiting)
            nothing = np.zeros(self.num_envs, dtype=bool)
            return map_tensors(own_array, first), np.zeros(self.num_envs), nothing, nothing.copy(), {}
        some = bool(waiting.any())
        returned, rewards, terminated, truncated, info = (
            _step_others(self.env, actions, waiting) if some else checked_step(self.env, actions)
        )
        del info["_final_obs"]
        seen = info.pop("final_obs")
        if some:
            seen = map_tensors(functools.partial(choose_rows, waiting), first, seen)
            returned = map_tensors(functools.partial(choose_rows, waiting), first, returned)
            rewards = rewards.masked_fill(waiting, 0)
            terminated, truncated = terminated & ~waiting, truncated & ~waiting
        self._first, self._waiting = returned, terminated | truncated
        arrays = (own_array(rewards.double()), own_array(terminated), own_array(truncated))
        return map_tensors(own_array, seen), *arrays, _with_masks(info, ~own_array(waiting))


class SingleEnv(gym.Env):
    """One environment of a family under one task, as `gymnasium.make("metarl/ID", ...)` makes it.

    `task` is a dictionary of the task's parameters, its number in the family's `all_tasks(split)`, or `Tasks` of one;
    by default, the first that `sample(split=split, seed=seed)` draws. It stays until `set_tasks` changes it. `seed` is
    that of the environment as well, until `reset` is given one. `options` are the family's. Several that are made alike
    are the same environment several times: `make_vec` draws a task for each.

    The episode is truncated at the family's horizon. Raises `UsageError` as `metarl.make` does.

    >>> from metarl.gymnasium_adapter import SingleEnv
    >>> env = SingleEnv("PointNavigation-v0", task={"goal": [0.3, 0.1]}, horizon=20)
    >>> observation, info = env.reset(seed=0)
    >>> env.step(env.action_space.sample())[2:4]
    (False, False)
    """

    metadata = METADATA

    def __init__(
        self,
        family: Family,
        *,
        task: Task = None,
        split: str = "train",
        seed: int = 0,
        backend: str = "auto",
        device: torch.device | str = "cpu",
        render_mode: str | None = None,
        **options: Any,
    ):
        distribution = make(family, **options)
        tasks = _tasks(distribution, task, split, seed, 1)
        self.env = distribution.make_env(1, backend=backend, device=device, seed=seed, render_mode=render_mode)
        self.env.set_tasks(tasks)
        self.render_mode = render_mode
        self.observation_space = copy.deepcopy(self.env.single_observation_space)
        self.action_space = copy.deepcopy(self.env.single_action_space)
        self._next: Observations | None = None
        """The first observation of the episode that has started by itself at the end of the last one."""
        self._ended = False

    @property
    def task(self) -> Tasks:
        """The task that the environment runs."""
        return self.env.tasks

    def set_tasks(self, tasks: Tasks) -> None:
        """Sets the task, `Tasks` of one. A running episode continues with it; `reset` starts a fresh one."""
        self.env.set_tasks(tasks)
        self._next = None

    def reset(
        self, *, seed: int | np.integer | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Arrays, dict[str, Any]]:
        seed = None if seed is None else _check_seed(seed)
        super().reset(seed=seed)
        observations = self._next
        if observations is None or seed is not None or options:
            observations, _ = self.env.reset(seed=seed, options=options)
            check_first_observations(self.env, observations)
        self._next, self._ended = None, False
        return _row(map_tensors(own_array, observations), 0), {}

    def step(self, action: Any) -> tuple[Arrays, float, bool, bool, dict[str, Any]]:
        """One step; raises `UsageError` after the end of an episode, until `reset`."""
        if self._ended:
            raise UsageError("the episode has ended: call reset before step")
        batch = tuple(np.asarray(part)[None] for part in action) if isinstance(action, tuple) else action
        batch = batch if isinstance(batch, tuple) else np.asarray(batch)[None]
        taken = as_actions(batch, self.action_space, 1).to(self.env.device)
        returned, rewards, terminated, truncated, info = checked_step(self.env, taken)
        reached, self._ended = info.pop("final_obs"), bool(info.pop("_final_obs"))
        self._next = returned if self._ended else None
        entries = {name: own_array(value)[0] for name, value in info.items()}
        seen = _row(map_tensors(own_array, reached), 0)
        return seen, float(rewards), bool(terminated), bool(truncated), entries

    def render(self) -> Any:
        pictures = self.env.render()
        return None if pictures is None else pictures[0]

    def close(self) -> None:
        self.env.close()


def make_vec(
    family: Family,
    num_envs: int = 1,
    *,
    task: Task = None,
    split: str = "train",
    seed: int = 0,
    backend: str = "auto",
    device: torch.device | str = "cpu",
    render_mode: str | None = None,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    **options: Any,
) -> NumpyVectorEnv:
    """`num_envs` environments of a family, as `gymnasium.make_vec("metarl/ID", num_envs=...)` makes them.

    They share `task`, if it is one; `Tasks` of several share out the environments evenly, task by task. By default each
    environment has a task of its own, drawn by `sample(split=split, seed=seed)`. The rest is as in `SingleEnv` and
    `to_gymnasium`. Raises `UsageError` for a number of environments that the tasks do not divide.

    >>> from metarl.gymnasium_adapter import make_vec
    >>> envs = make_vec("HalfCheetahVel-v0", num_envs=8, horizon=20)
    >>> envs.reset(seed=0)[0].shape
    (8, 17)
    """
    check_count("num_envs", num_envs)
    distribution = make(family, **options)
    tasks = _tasks(distribution, task, split, seed, num_envs)
    if num_envs % len(tasks):
        raise UsageError(f"num_envs must be a multiple of the {len(tasks)} tasks, got {num_envs}")
    share = num_envs // len(tasks)
    env = distribution.make_env(len(tasks), share, backend=backend, device=device, seed=seed, render_mode=render_mode)
    env.set_tasks(tasks)
    return NumpyVectorEnv(env, autoreset_mode=autoreset_mode)


def _check_seed(seed: Any) -> int:
    """`seed` as Python's number; raises `UsageError` unless it is a whole number of an environment's seeds."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed <= LARGEST:
        raise UsageError(f"a seed must be a whole number of at least 0, got {seed!r}")
    return int(seed)


def _tasks(family: TaskDistribution, task: Task, split: str, seed: int, count: int) -> Tasks:
    """The tasks that `task` names, or `count` of the split."""
    if task is None:
        return family.sample(count, split=split, seed=seed)
    if isinstance(task, Tasks):
        return task
    if isinstance(task, Mapping):
        return family.task(**task)
    tasks = family.all_tasks(split)
    if isinstance(task, bool) or not isinstance(task, int) or not 0 <= task < len(tasks):
        raise UsageError(f"task must be parameters by name or a number in [0, {len(tasks) - 1}], got {task!r}")
    return tasks[task]


def _step_others(env: TaskVectorEnv, actions: Tensor, waiting: Bool[Tensor, "B"]) -> Any:
    """Steps the environments that do not wait. The results of the others are to be ignored."""
    try:
        before = env.get_state()
    except UsageError as error:
        raise UsageError(
            f"{error}, so that no environment can wait while others step: use autoreset_mode='SameStep'"
        ) from None
    result = checked_step(env, actions)
    after = env.get_state()
    env.set_state({name: choose_rows(waiting, before[name], value) for name, value in after.items()})  # type: ignore[misc]
    env.add_faults(-int((result[4]["fault"] & waiting).sum()))
    return result


def _with_masks(info: Mapping[str, Tensor], mask: np.ndarray) -> dict[str, Any]:
    """The entries of `info` as arrays, each with the mask of the environments that it is of."""
    entries: dict[str, Any] = {}
    for name, value in info.items():
        entries |= {name: own_array(value), f"_{name}": mask.copy()}
    return entries


def _row(arrays: Arrays, index: int) -> Any:
    return map_tensors(lambda array: array[index], arrays)
