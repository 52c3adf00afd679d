"""Evaluations in the course of training, which leave the training as it is."""

from metarl.agent import Agent
from metarl.distribution import TaskDistribution
from metarl.errors import UsageError
from metarl.evaluation import evaluate
from metarl.parallel import Ranks
from metarl.randomness import derive_seed


class PeriodicEvaluation:
    """Evaluates `agent` after every `every` iterations, on the same `num_tasks` test tasks each time.

    Its metrics are `test_return_K` and, if the family defines it, `test_success_K`: means over the tasks after K
    episodes of adaptation. Tasks, environments and seeds are its own: the training does not notice, and a resumed run
    evaluates what it would have evaluated. The steps do not count as training steps.

    >>> from metarl.experiment.periodic_evaluation import PeriodicEvaluation
    >>> family = metarl.make("PointNavigation-v0", horizon=5)
    >>> agent = metarl.TrainConfig("random", family).resolve().make()
    >>> evaluation = PeriodicEvaluation(agent, family, every=10, num_tasks=5, seed=0, backend="auto")
    >>> evaluation.metrics(9), list(evaluation.metrics(10))
    ({}, ['test_return_0'])
    """

    def __init__(
        self, agent: Agent, family: TaskDistribution, *, every: int, num_tasks: int, seed: int, backend: str = "auto"
    ):
        self.agent, self.family, self.every, self.num_tasks, self.backend = agent, family, every, num_tasks, backend
        self.seed = derive_seed("evaluation in training", seed)

    def metrics(self, iteration: int) -> dict[str, float]:
        """What is measured after `iteration`; nothing between evaluations."""
        if iteration % self.every:
            return {}
        # The training's own family: its test tasks are what they are, even if some are training tasks too.
        found = evaluate(
            self.agent,
            self.family,
            num_tasks=self.num_tasks,
            split="test",
            seed=self.seed,
            backend=self.backend,
            allow_training_tasks=True,
        )
        metrics = {}
        for row in found.summary():
            for name in ("return", "success"):
                if f"{name}_mean" in row:
                    metrics[f"test_{name}_{row['episodes_used']}"] = row[f"{name}_mean"]
        return metrics


def periodic_evaluation(
    agent: Agent, family: TaskDistribution, *, every: int | None, num_tasks: int, seed: int, backend: str, ranks: Ranks
) -> PeriodicEvaluation | None:
    """The evaluation of a training on `ranks`, or None if `every` is; raises `UsageError` for more than one rank."""
    if every is None:
        return None
    if ranks.world_size > 1:
        raise UsageError(
            "evaluate_every measures in one process, for which the other ranks would have to wait: leave it out, and "
            "measure with metarl evaluate RUN"
        )
    return PeriodicEvaluation(agent, family, every=every, num_tasks=num_tasks, seed=seed, backend=backend)
