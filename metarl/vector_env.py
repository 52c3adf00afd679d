"""The environment contract: a Gymnasium vector environment on torch tensors whose tasks can be set."""

import abc
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from metarl.actions import ActionFormat
from metarl.errors import EnvironmentFault, UsageError, noted
from metarl.faults import all_finite, bad_rows, find_faults
from metarl.parallel import Ranks
from metarl.spaces import Observations, check_action_space, map_tensors
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
    observation_space: gym.Space
    action_space: gym.Space
    task_space: Mapping[str, gym.Space]
    horizon: int

    def validate(self, tasks: Tasks) -> None: ...


class TaskVectorEnv(gym.vector.VectorEnv, abc.ABC):
    """`M` tasks times `N` environments each, stepped together: `B = M * N`, task-major.

    The arrays are torch tensors on `device`: rewards `[B]` float32, `terminated` and `truncated` `[B]` bool, and
    observations `[B, D]` float32 (vectors), `[B, H, W, C]` uint8 (pictures) or a dictionary of these. Autoreset is
    SAME_STEP: the step that ends an episode returns the first observation of the next one. The `info` of every step
    holds

    - `final_obs`, like the observations: the true next ones, which differ from those returned only if an episode ended;
    - `_final_obs` `[B]`: the mask of the environments whose episode ended;
    - `success` `[B]`, if the family defines it;
    - `dense_reward` `[B]`, if the family's reward is sparse and training may learn from another (`PEARLConfig`);
    - `fault` `[B]`: the environment gave a number that is not finite, or its simulation broke down, in this step.

    A fault ends its episode: truncated, with reward 0 and the observation before as the last one. The next episode
    starts as always, and the other environments do not notice. `fault_count` counts faults.

    Actions are float32 `[B, *shape]` for a box, int64 `[B]` for `Discrete`, int64 `[B, K]` for `MultiDiscrete` and
    `MultiBinary`. For a `Tuple` of these they are float32 `[B, A]`, the numbers of its parts one after another, whole
    ones for discrete parts. Those outside the bounds of a box are clipped to them.

    A subclass implements `_set_tasks`, `_reset` and `_step`. If it can start an episode in some of its environments, it
    also implements `_restart`; without that, `collect` raises `EnvironmentFault` for a fault. If its state can be
    saved, it implements `get_state` and `set_state`.

    >>> family = metarl.make("PointNavigation-v0", horizon=5)
    >>> env = family.make_env(num_tasks=2, envs_per_task=3)
    >>> env.set_tasks(family.sample(2, seed=0))
    >>> observations, info = env.reset(seed=0)
    >>> observations, rewards, terminated, truncated, info = env.step(torch.zeros(6, 2))
    >>> rewards.shape
    torch.Size([6])
    """

    _handles_faults = False
    """Whether the subclass ends faulty episodes by itself, as its `info["fault"]` shows."""
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
        check_action_space(distribution.action_space, distribution.id)
        self._action_format = ActionFormat(distribution.action_space)
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
        self.fault_report: str | None = None
        """The first fault of the last rollout that had one, in a line: `collect` sets it."""
        self._fault_count = torch.zeros((), dtype=torch.int64, device=device)
        self.ranks = Ranks()
        """The processes that step as many environments each: `reset` seeds all of them as those of one."""
        self._tasks: Tasks | None = None
        self._started = False
        self._steps_taken = 0

    @property
    def horizon(self) -> int:
        """Steps after which an episode is truncated."""
        return self.distribution.horizon

    @property
    def fault_count(self) -> int:
        """Faults since the environments were made. On a GPU, reading it waits for the steps under way."""
        return int(self._fault_count)

    def add_faults(self, count: int) -> None:
        """Counts faults of environments that were stepped in the place of these."""
        self._fault_count = self._fault_count + count

    @property
    def restarts_faults(self) -> bool:
        """Whether an environment goes on with a new episode after a fault."""
        return self._handles_faults or type(self)._restart is not TaskVectorEnv._restart

    @property
    def success_seen(self) -> bool:
        """Whether the environments tell if they succeed, as far as is known."""
        return True

    def own_faults(self) -> list[str]:
        """Breaches of the contract that only the environments themselves can see, a line each.

        `check_distribution` asks for them after it has run the environments, and resets them afterwards.
        """
        return []

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
        with noted(self._place("set_tasks")):
            self._set_tasks(self._tasks)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Starts an episode in every environment; with a seed, environment `i` is seeded with `seed + i`.

        `i` counts the environments of all `ranks`, of which those of a rank are neighbours.
        """
        if options:
            names = ", ".join(map(repr, options))
            raise UsageError(
                f"{self.distribution.id} under backend {self.backend!r} takes no reset options, got {names}"
            )
        _ = self.tasks  # raises if there are none
        self._started = True
        with noted(self._place("reset")):
            observations, info = self._reset(None if seed is None else seed + self.ranks.rank * self.num_envs)
        self._steps_taken = 0
        self._check_observations(observations)
        self._before = observations
        return observations, info

    def step(self, actions: Shaped[Tensor, "B ..."]) -> StepResult:
        """Steps every environment; raises `UsageError` for actions of a wrong shape or dtype, with NaN or not there.

        Values are checked on the CPU only: on a GPU the check would make the host wait at every step.
        """
        if not self._started:
            raise UsageError("call reset before step")
        actions = self._check_actions(actions)
        self._steps_taken += 1
        try:
            result = self._run(actions)
        except Exception:
            with noted(f"{self._place('step')}, {self._steps_taken} steps after a reset"):
                raise
        self._check_observations(result[0])
        return result

    def _run(self, actions: Tensor) -> StepResult:
        """A step with everything that happens on the device."""
        result = self._step(actions)
        self._handles_faults = "fault" in result[4]
        if not self._handles_faults:
            result = self._end_faults(result)
        fault = result[4]["fault"]
        if fault.device.type != "cpu" or fault.any():
            self._fault_count = self._fault_count + fault.sum()
        return result

    def _place(self, method: str) -> str:
        """Where an exception came from that names no environment."""
        count = f"{self.num_envs} environments of {self.distribution.id}, {self.num_tasks} tasks"
        return f"raised by {type(self).__name__}.{method} ({count}, together)"

    def describe_fault(self, index: int, when: str) -> str:
        """A line about a fault of environment `index`, which names its family and its task."""
        task = self.tasks[index // self.envs_per_task]
        values = ", ".join(f"{name}={value[0].tolist()}" for name, value in task.parameters.items())
        return (
            f"{self.distribution.id}: a number that is not finite, or a simulation that broke down, in {when} of "
            f"environment {index % self.envs_per_task} of task {index // self.envs_per_task} ({values})"
        )

    def use_graph(self, graph: bool | None) -> None:
        """`graph` of `TaskDistribution.make_env`. An environment that can capture its steps overrides this."""
        if graph:
            raise UsageError(
                f"graph=True: {self.distribution.id} under backend {self.backend!r} cannot capture its steps: "
                "leave graph out"
            )

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

    def _restart(self, mask: Bool[Tensor, "B"]) -> Observations:
        """Starts an episode in the environments of the mask, whose last step was a fault, and in no others.

        Returns observations of all environments; only the rows of the mask are used.
        """
        raise NotImplementedError

    def _end_faults(self, result: StepResult) -> StepResult:
        """Ends the episodes of environments that gave bad numbers, for a subclass that does not report faults."""
        observations, rewards, terminated, truncated, info = result
        dense = info.get("dense_reward")
        fault = find_faults(rewards if dense is None else rewards + dense, info["final_obs"])
        info["fault"] = torch.zeros_like(terminated) if fault is None else fault
        if fault is not None:
            going_on = fault & ~(terminated | truncated)
            first = self._restart(going_on) if self.restarts_faults else self._before
            observations = choose_rows(going_on, first, observations)
            final_obs, rewards, terminated, truncated = end_by_fault(
                fault, self._before, info["final_obs"], rewards, terminated, truncated
            )
            info |= step_info(final_obs, terminated | truncated)
            if dense is not None:
                info["dense_reward"] = dense.masked_fill(fault, 0.0)
        self._before = observations
        return observations, rewards, terminated, truncated, info

    def _check_observations(self, observations: Observations) -> None:
        """On the CPU, refuses observations that are not finite, which only the start of an episode can still have."""
        if self.device.type == "cpu" and not all_finite(observations):
            index = int(bad_rows(torch.zeros(self.num_envs), observations).nonzero()[0])
            raise EnvironmentFault(self.describe_fault(index, "the first observation of an episode"))

    def _check_actions(self, actions: Tensor) -> Tensor:
        return self._action_format.check(actions, self.num_envs).detach().to(self.device)


def step_info(final_obs: Observations, ended: Bool[Tensor, "B"], **more: Tensor) -> dict[str, Any]:
    """The `info` of a step, as `TaskVectorEnv` defines it."""
    return {"final_obs": final_obs, "_final_obs": ended, **more}


def end_by_fault(
    fault: Bool[Tensor, "B"],
    before: Observations,
    final_obs: Observations,
    rewards: Float[Tensor, "B"],
    terminated: Bool[Tensor, "B"],
    truncated: Bool[Tensor, "B"],
) -> tuple[Observations, Tensor, Tensor, Tensor]:
    """The last four as they are where there is no `fault`, and otherwise `before`, 0, False and True."""
    return (
        choose_rows(fault, before, final_obs),
        rewards.masked_fill(fault, 0.0),
        terminated & ~fault,
        truncated | fault,
    )


def choose_rows(mask: Bool[Tensor, "B"], chosen: Observations, other: Observations) -> Observations:
    """Rows of `chosen` in the mask, rows of `other` elsewhere, `[B, ...]`."""
    return map_tensors(lambda one, two: torch.where(mask.reshape(-1, *[1] * (two.ndim - 1)), one, two), chosen, other)
