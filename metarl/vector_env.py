"""The environment contract: a Gymnasium vector environment on torch tensors whose tasks can be set."""

import abc
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Shaped
from torch import Tensor

from metarl.errors import UsageError
from metarl.spaces import Observations
from metarl.tasks import Tasks

StepResult = tuple[Observations, Tensor, Tensor, Tensor, dict[str, Any]]


@runtime_checkable
class TaskFamily(Protocol):
    """What an environment needs from the distribution that made it. Every `metarl.TaskDistribution` is one.

    >>> from metarl.vector_env import TaskFamily
    >>> isinstance(metarl.make("PointNavigation-v0"), TaskFamily)
    True
    """

    id: str
    observation_space: gym.spaces.Box
    action_space: gym.spaces.Box | gym.spaces.Discrete
    horizon: int

    def validate(self, tasks: Tasks) -> None: ...


class TaskVectorEnv(gym.vector.VectorEnv, abc.ABC):
    """`M` tasks times `N` environments each, stepped together: `B = M * N`, task-major.

    The arrays are torch tensors on `device`: observations `[B, D]` float32, rewards `[B]` float32, `terminated` and
    `truncated` `[B]` bool. Autoreset is SAME_STEP: the step that ends an episode returns the first observation of the
    next one. The `info` of every step holds

    - `final_obs` `[B, D]`: the true next observation, which differs from the returned one only if an episode ended;
    - `_final_obs` `[B]`: the mask of the environments whose episode ended;
    - `success` `[B]`, if the family defines it;
    - `fault` `[B]`, if the family simulates physics: the simulation failed in this step, which ended the episode.

    Actions outside the bounds of the action space are clipped to them.

    A subclass implements `_set_tasks`, `_reset` and `_step`. If its state can be saved, it also implements `get_state`
    and `set_state`.

    >>> family = metarl.make("PointNavigation-v0", horizon=5)
    >>> env = family.make_env(num_tasks=2, envs_per_task=3)
    >>> env.set_tasks(family.sample(2, seed=0))
    >>> observations, info = env.reset(seed=0)
    >>> observations, rewards, terminated, truncated, info = env.step(torch.zeros(6, 2))
    >>> rewards.shape
    torch.Size([6])
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": ["rgb_array"]}

    def __init__(
        self,
        distribution: TaskFamily,
        num_tasks: int,
        envs_per_task: int,
        *,
        backend: str,
        device: torch.device,
        render_mode: str | None = None,
    ):
        self.distribution = distribution
        self.num_tasks = num_tasks
        self.envs_per_task = envs_per_task
        self.num_envs = num_tasks * envs_per_task
        self.backend = backend
        self.device = device
        self.render_mode = render_mode
        self.single_observation_space = distribution.observation_space
        self.single_action_space = distribution.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._tasks: Tasks | None = None
        self._started = False

    @property
    def horizon(self) -> int:
        """Steps after which an episode is truncated."""
        return self.distribution.horizon

    @property
    def success_seen(self) -> bool:
        """Whether the environments tell if they succeed, as far as is known."""
        return True

    @property
    def tasks(self) -> Tasks:
        """The `M` tasks that the environments run."""
        if self._tasks is None:
            raise UsageError("this environment has no tasks yet: call set_tasks first")
        return self._tasks

    def set_tasks(self, tasks: Tasks) -> None:
        """Assigns each group of `envs_per_task` environments its task, from now until the next call.

        A running episode continues with the new task; call `reset` to start a fresh one. Raises `UsageError` for a
        wrong number of tasks and for parameters that are not this family's.
        """
        if len(tasks) != self.num_tasks:
            raise UsageError(f"this environment runs {self.num_tasks} tasks, got {len(tasks)}")
        self.distribution.validate(tasks)
        self._tasks = tasks.to(self.device)
        self._set_tasks(self._tasks)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Starts an episode in every environment; with a seed, environment `i` is seeded with `seed + i`."""
        if options:
            names = ", ".join(map(repr, options))
            raise UsageError(
                f"{self.distribution.id} under backend {self.backend!r} takes no reset options, got {names}"
            )
        _ = self.tasks  # raises if there are none
        self._started = True
        return self._reset(seed)

    def step(self, actions: Shaped[Tensor, "B ..."]) -> StepResult:
        """Steps every environment; raises `UsageError` for actions of a wrong shape or dtype or with NaN.

        NaN is checked for on the CPU only: on a GPU the check would make the host wait at every step.
        """
        if not self._started:
            raise UsageError("call reset before step")
        return self._step(self._check_actions(actions))

    def get_state(self) -> dict[str, Tensor]:
        """Everything that a step depends on, each `[B, ...]`. Once restored, the same actions give the same steps."""
        raise UsageError(f"{self.distribution.id} under backend {self.backend!r} does not offer its state")

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Restores what `get_state` returned, for this environment or another one of the same shape."""
        raise UsageError(f"{self.distribution.id} under backend {self.backend!r} does not offer its state")

    def render(self) -> tuple[Any, ...] | None:
        """One RGB array `[height, width, 3]` (uint8) per environment, if `render_mode` is "rgb_array"."""
        raise UsageError(f"{self.distribution.id} under backend {self.backend!r} cannot be rendered")

    @abc.abstractmethod
    def _set_tasks(self, tasks: Tasks) -> None: ...

    @abc.abstractmethod
    def _reset(self, seed: int | None) -> tuple[Observations, dict[str, Any]]: ...

    @abc.abstractmethod
    def _step(self, actions: Tensor) -> StepResult: ...

    def _check_actions(self, actions: Tensor) -> Tensor:
        if not isinstance(actions, Tensor):
            raise UsageError(f"actions must be a torch tensor, got {type(actions).__name__}")
        expected = (self.num_envs, *self.single_action_space.shape)
        if tuple(actions.shape) != expected:
            raise UsageError(f"actions must have shape {list(expected)}, got {list(actions.shape)}")
        if isinstance(self.single_action_space, gym.spaces.Discrete):
            if actions.dtype.is_floating_point or actions.dtype == torch.bool:
                raise UsageError(f"discrete actions must be integers, got {actions.dtype}")
            low, count = int(self.single_action_space.start), int(self.single_action_space.n)
            if actions.device.type == "cpu" and bool(((actions < low) | (actions >= low + count)).any()):
                raise UsageError(f"discrete actions must lie in [{low}, {low + count - 1}]")
        else:
            if not actions.dtype.is_floating_point:
                raise UsageError(f"actions must be floating-point numbers, got {actions.dtype}")
            if actions.device.type == "cpu" and not bool(actions.isfinite().all()):
                raise UsageError("actions contain NaN or infinity")
        return actions.detach().to(self.device)


def step_info(final_obs: Observations, ended: Bool[Tensor, "B"], **more: Tensor) -> dict[str, Any]:
    """The `info` of a step, as `TaskVectorEnv` defines it."""
    return {"final_obs": final_obs, "_final_obs": ended, **more}
