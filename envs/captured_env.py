"""Environments whose whole steps run as one CUDA graph."""

from typing import ClassVar

from torch import Tensor

from metarl.envs.capture import Capture, capture_torch
from metarl.envs.step_graph import StepGraph
from metarl.errors import UsageError
from metarl.tasks import Tasks
from metarl.vector_env import StepResult, TaskVectorEnv


class CapturedEnv(TaskVectorEnv):
    """An environment that captures its steps on a GPU (`StepGraph` says how), observation, reward and resets included.

    A subclass has nothing to do for it as long as its `_step` is a function of tensors that hang on the environment:
    what Python does in a step, other than replacing tensors, is not repeated by a graph. Such a step is recognised if
    it changes a plain attribute; it then runs uncaptured, with a warning.

    >>> env = metarl.make("PointNavigation-v0").make_env(num_tasks=2)
    >>> env.is_captured
    False
    """

    outside_steps: ClassVar[frozenset[str]] = frozenset({"_graph", "_tasks", "_before", "_steps_taken", "fault_report"})
    """Attributes that no step reads, of the environment or of anything that hangs on it."""
    exact_steps: ClassVar[bool] = True
    """Whether a step gives the same bits each time on a GPU."""
    uncompared: ClassVar[frozenset[str]] = frozenset()
    """Attributes whose numbers differ from run to run without changing what a step returns."""
    _graph: StepGraph | None = None

    @property
    def capture(self) -> Capture:
        """How launches are recorded."""
        return capture_torch

    @property
    def is_captured(self) -> bool:
        """Whether steps run as one graph, or are going to from the first one on."""
        return self._graph is not None and self._graph.refusal is None

    @property
    def graph_refusal(self) -> str | None:
        """Why steps are not captured although they were to be; None otherwise."""
        return None if self._graph is None else self._graph.refusal

    def use_graph(self, graph: bool | None) -> None:
        """`graph` of `TaskDistribution.make_env`."""
        if self.device.type != "cuda":
            if graph:
                raise UsageError(
                    f"graph=True: {self.distribution.id} captures its steps on a GPU only, and the device is "
                    f"{str(self.device)!r}: leave graph out"
                )
            return
        self._graph = None
        if graph is not False:
            self._graph = StepGraph(
                self,
                super()._run,
                self.device,
                self.capture,
                exact=self.exact_steps,
                name=f"{self.distribution.id} on {self.device}",
                outside=self.outside_steps,
                uncompared=self.uncompared,
            )

    def set_tasks(self, tasks: Tasks) -> None:
        super().set_tasks(tasks)
        if self._graph is not None:
            self._graph.stale()

    def _run(self, actions: Tensor) -> StepResult:
        return super()._run(actions) if self._graph is None else self._graph(actions)
