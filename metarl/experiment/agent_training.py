"""The training of an agent: an iteration, what it tolerates, and what the engine reads of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from metarl.agent import Agent
from metarl.distribution import TaskDistribution
from metarl.errors import EnvironmentFault
from metarl.experiment.engine import Training
from metarl.experiment.loggers import open_loggers
from metarl.experiment.metrics import Row, RunLogger
from metarl.experiment.periodic_evaluation import periodic_evaluation
from metarl.experiment.plots import plot_training
from metarl.experiment.report_tables import figure
from metarl.experiment.together import call, check_same_state, merged_metrics
from metarl.parallel import Ranks
from metarl.randomness import derive_seed
from metarl.replay import ReplayBuffer
from metarl.vector_env import TaskVectorEnv

FAULT_SHARE, FEWEST_FAULTS = 0.01, 10


@runtime_checkable
class _Setting(Protocol):
    """What the training needs of an `AgentExperiment`."""

    config: Any
    distribution: TaskDistribution
    ranks: Ranks
    result: ClassVar[Path]

    @property
    def title(self) -> str: ...

    def entries(self) -> dict[str, Any]: ...

    def share(self, iteration: int, env_steps: int) -> float: ...


class AgentTraining(Training):
    """An iteration draws tasks from the agent's source and lets the agent improve on them."""

    def __init__(self, experiment: _Setting, agent: Agent, env: TaskVectorEnv):
        self.experiment, self.agent, self.env = experiment, agent, env
        self.title = experiment.title
        self.checkpoint_every = experiment.config.checkpoint_every
        self.max_faults = experiment.config.max_faults
        self.max_divergent = experiment.config.max_divergent
        self.alarms = agent.alarms
        self.threads = experiment.config.threads
        seed = derive_seed("task source", experiment.config.seed)
        self.source = agent.task_source(experiment.distribution, seed=seed)
        self.evaluation = periodic_evaluation(
            agent,
            experiment.distribution,
            every=experiment.config.evaluate_every,
            num_tasks=experiment.config.evaluate_tasks,
            seed=experiment.config.seed,
            backend=experiment.config.backend,
            ranks=experiment.ranks,
        )

    def iterate(self, iteration: int) -> Mapping[str, int | float]:
        ranks, share = self.experiment.ranks, self.env.num_tasks
        if ranks.is_first:
            call(ranks, iteration)
        seeds = [derive_seed(part, self.experiment.config.seed, iteration) for part in ("train tasks", "improve")]
        tasks = self.source.draw(share * ranks.world_size, seed=seeds[0])
        self.env.set_tasks(tasks if ranks.world_size == 1 else tasks[share * ranks.rank : share * (ranks.rank + 1)])
        before = self.env.fault_count
        metrics = self.agent.improve(self.env, seed=seeds[1])
        metrics = merged_metrics(ranks, {**metrics, "faults": self.env.fault_count - before})
        self._check_faults(int(metrics["faults"]), int(metrics["env_steps"]))
        if iteration % self.checkpoint_every == 0:
            check_same_state(ranks, self.state()[0], self.title)
        return metrics if self.evaluation is None else {**metrics, **self.evaluation.metrics(iteration)}

    def close(self) -> None:
        """On the first rank, tells the others that the training is over."""
        if self.experiment.ranks.is_first:
            call(self.experiment.ranks, None)

    def open_loggers(self, path: Path) -> list[RunLogger]:
        return open_loggers(self.experiment.config.logger, path, self.title, self.experiment.entries())

    def _check_faults(self, faults: int, env_steps: int) -> None:
        """Raises `EnvironmentFault` for more faults in an iteration than the run tolerates."""
        bound = max(FEWEST_FAULTS, round(FAULT_SHARE * env_steps)) if self.max_faults is None else self.max_faults
        if faults > bound:
            raise EnvironmentFault(
                f"{faults} faults in {env_steps} steps, of which --max-faults tolerates {bound} (metarl resume takes "
                f"another bound); the first of the last rollout: {self.env.fault_report or 'unknown'}"
            )

    def share(self, iteration: int, env_steps: int) -> float:
        return self.experiment.share(iteration, env_steps)

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        return self.agent.state()

    def score(self, metrics: Mapping[str, int | float]) -> float | None:
        return metrics.get("return_mean")

    def buffers(self) -> Mapping[str, ReplayBuffer]:
        return self.agent.buffers()

    def describe(self, row: Row) -> tuple[str, str]:
        bound = self.experiment.config.iterations
        text = (
            f"iteration {row['iteration']}{'' if bound is None else f'/{bound}'}  env steps {row['env_steps']:,}  "
            f"return {figure(row['return_mean'])}  {row['steps_per_second']:,.0f} steps/s"
        )
        shown = {"iteration", "env_steps", "wall_seconds", "steps_per_second", "return_mean"}
        return text, "  ".join(f"{name} {value:.4g}" for name, value in row.items() if name not in shown)

    def conclude(self, path: Path, rows: list[Row], show: bool) -> None:
        plot_training(rows, self.title, path / self.experiment.result)
