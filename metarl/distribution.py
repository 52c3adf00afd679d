"""Task distributions: families of related environments, with train and test splits of their tasks."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from metarl.devices import resolve_device
from metarl.errors import UsageError
from metarl.parsing import printable
from metarl.protocols import Protocol, per_task
from metarl.randomness import make_generator
from metarl.task_parameters import TaskParameters, decode_tasks
from metarl.task_spaces import describe, encode, outside
from metarl.tasks import Tasks, check_count, check_split, draw_evenly
from metarl.vector_env import TaskVectorEnv


@dataclass(frozen=True)
class Origin:
    """How a distribution was made, so that it can be made again in another process.

    >>> metarl.make("PointNavigation-v0", horizon=50).origin
    Origin(name='PointNavigation-v0', options={'horizon': 50})
    """

    name: str
    """An id, or `module:name`."""
    options: Mapping[str, Any]


class TaskDistribution(abc.ABC):
    """A family of related environments, one per task, with a train and a test split of the tasks.

    A subclass sets the attributes below and implements `_make_env`. Tasks come from its `task_space` if that is a
    `TaskParameters`; else it implements `_sample`, or `all_tasks` if its tasks are finitely many.
    `metarl.check_distribution` checks the result.

    >>> distribution = metarl.make("PointNavigation-v0", horizon=50)
    >>> tasks = distribution.sample(40, split="test", seed=0)
    >>> env = distribution.make_env(num_tasks=40, envs_per_task=20, seed=0)
    >>> env.set_tasks(tasks)
    """

    id: str
    """The registered name, or any name if the distribution is not registered."""
    observation_space: gym.Space
    """The observations of one environment: a box of vectors `[D]` (float32) or of pictures `[H, W, C]` (uint8), or a
    `gymnasium.spaces.Dict` of these."""
    action_space: gym.Space
    """The actions of one environment: `Box` (float32, any shape), `Discrete`, `MultiDiscrete`, `MultiBinary` or a
    `Tuple` of these. `TaskVectorEnv` says which tensors hold them."""
    task_space: Mapping[str, gym.Space]
    """Name and space of each parameter of one task: `Box`, `Discrete`, `MultiDiscrete`, `MultiBinary`, `Choice`."""
    horizon: int
    """Steps after which an episode is truncated."""
    backends: tuple[str, ...]
    """The backends that can step the environments, preferred first."""
    has_success = False
    """Whether `info` carries `success`."""
    has_dense_reward = False
    """Whether `info` carries `dense_reward`, for training where the reward itself is too sparse to find."""
    protocols: Mapping[str, Protocol] = MappingProxyType({"per-task": per_task})
    """Evaluation protocols by name. A family may add its own."""
    origin: Origin | None = None
    """What `metarl.make` made it of; None for an instance made otherwise."""

    @property
    def traits(self) -> Mapping[str, Any]:
        """What else makes it the family that it is: plain values by name, which a run folder keeps and compares."""
        return {}

    def sample(self, num_tasks: int, *, split: str = "train", seed: int) -> Tasks:
        """Draws `num_tasks` tasks of `split`: a pure function of the distribution and the arguments.

        If the tasks are finitely many, none is repeated before each has been drawn once. Raises `UsageError` for a
        count below one or an unknown split.
        """
        check_count("number of tasks", num_tasks)
        check_split(split)
        generator = make_generator("tasks", self.id, split, seed)
        return Tasks(self._sample(num_tasks, split, generator))

    def all_tasks(self, split: str) -> Tasks:
        """Every task of `split` in a fixed order; raises `UsageError` if there are infinitely, or too, many."""
        check_split(split)
        tasks = self.task_space.all_tasks(split) if isinstance(self.task_space, TaskParameters) else None
        if tasks is None:
            raise UsageError(f"{self.id} has too many or infinitely many tasks to list: use sample instead")
        return tasks

    def make_env(
        self,
        num_tasks: int,
        envs_per_task: int = 1,
        *,
        backend: str = "auto",
        device: torch.device | str = "cpu",
        seed: int = 0,
        render_mode: str | None = None,
        graph: bool | None = None,
    ) -> TaskVectorEnv:
        """Makes `num_tasks * envs_per_task` environments. Call `set_tasks` before `reset`.

        `graph`: whether a whole step is one CUDA graph, which gives the same numbers by far fewer launches. By default
        it is wherever that is possible: on a GPU, if the environments can capture their steps. With False, launches go
        out piece by piece; nothing else is possible on the CPU.

        Raises `UsageError` for a count below one, a device that this machine lacks, a backend that the family lacks, or
        `graph=True` where steps cannot be captured.
        """
        check_count("number of tasks", num_tasks)
        check_count("environments per task", envs_per_task)
        env = self._make_env(
            num_tasks, envs_per_task, self.resolve_backend(backend, device), resolve_device(device), seed, render_mode
        )
        env.use_graph(graph)
        return env

    def resolve_backend(self, backend: str = "auto", device: torch.device | str = "cpu") -> str:
        """`backend`, or the family's preferred one for "auto"; raises `UsageError` if the family lacks it."""
        if backend == "auto":
            return self._preferred_backend(resolve_device(device))
        if backend not in self.backends:
            raise UsageError(f"{self.id} has no backend {backend!r}: choose from {', '.join(self.backends)} or auto")
        return backend

    def task(self, /, **parameters: Any) -> Tasks:
        """The task with these parameters, such as `distribution.task(goal=[0.3, 0.1])`, as a batch of one.

        Raises `UsageError` for a missing or unknown name, a wrong shape or a value out of range.
        """
        known = ", ".join(self.task_space)
        for name in parameters:
            if name not in self.task_space:
                raise UsageError(f"{self.id} has no task parameter {name!r}: it has {known}")
        rows = {}
        for name, space in self.task_space.items():
            if name not in parameters:
                raise UsageError(f"task parameter {name!r} is missing: {self.id} has {known}")
            try:
                rows[name] = torch.as_tensor(encode(space, parameters[name]))[None]
            except UsageError as error:
                raise UsageError(f"task parameter {name!r}: {error}") from None
        tasks = Tasks(rows)
        self.validate(tasks)
        return tasks

    def task_values(self, tasks: Tasks) -> list[dict[str, Any]]:
        """The parameters of each task as `task` takes them: numbers, lists, and names rather than their positions."""
        self.validate(tasks)
        return decode_tasks(self.task_space, tasks)

    def validate(self, tasks: Tasks) -> None:
        """Raises `UsageError` unless `tasks` has this family's parameters with the right shapes and values."""
        if tasks.parameters.keys() != self.task_space.keys():
            names = printable(", ".join(tasks.parameters))
            raise UsageError(f"{self.id} has the task parameters {', '.join(self.task_space)}, got {names}")
        for name, space in self.task_space.items():
            value = tasks.parameters[name].detach().cpu().numpy()
            if value.shape[1:] != space.shape:
                raise UsageError(f"task parameter {name!r}: want {describe(space)}, got shape {value.shape[1:]}")
            culprit = outside(space, value)
            if culprit is not None:
                raise UsageError(f"task parameter {name!r}: {culprit} is out of range, want {describe(space)}")
        if isinstance(self.task_space, TaskParameters):
            self.task_space.check(tasks)

    def _sample(self, num_tasks: int, split: str, generator: torch.Generator) -> Mapping[str, Tensor]:
        """The parameters of `num_tasks` random tasks, each `[num_tasks, ...]`, drawn with `generator` only."""
        own_list = type(self).all_tasks is not TaskDistribution.all_tasks
        if isinstance(self.task_space, TaskParameters) and not own_list:
            return self.task_space.sample(num_tasks, split, generator)
        return draw_evenly(self.all_tasks(split), num_tasks, generator).parameters

    @abc.abstractmethod
    def _make_env(
        self,
        num_tasks: int,
        envs_per_task: int,
        backend: str,
        device: torch.device,
        seed: int,
        render_mode: str | None,
    ) -> TaskVectorEnv:
        """Makes the environments; `make_env` has checked and resolved the arguments."""

    def _preferred_backend(self, device: torch.device) -> str:
        """The backend that "auto" stands for on `device`."""
        return self.backends[0]
