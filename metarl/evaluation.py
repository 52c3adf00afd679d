"""The meta-test: the returns of an agent on unseen tasks, by the number of episodes it has adapted with."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.agent import Agent, EnvSpec, FixedPolicy
from metarl.distribution import TaskDistribution
from metarl.errors import UsageError
from metarl.parsing import is_count, parse_json
from metarl.protocols import Protocol, Scores
from metarl.randomness import derive_seed
from metarl.registry import Family, make
from metarl.rollout import Policy
from metarl.seen_tasks import check_unseen
from metarl.statistics import FEWEST_TASKS, interquartile_mean, stratified_bootstrap_interval
from metarl.tasks import Tasks, check_count
from metarl.threads import torch_threads
from metarl.vector_env import TaskVectorEnv


@dataclass(frozen=True)
class Evaluation:
    """Scores of `M` tasks at `S` stages of adaptation. A protocol may score a group of tasks as one row.

    >>> family = metarl.make("PointNavigation-v0", horizon=5)
    >>> tasks = family.sample(8, split="test", seed=0)
    >>> evaluation = metarl.Evaluation(torch.arange(16.0).reshape(8, 2), None, episodes_used=[0, 20], tasks=tasks)
    >>> [row["return_mean"] for row in evaluation.summary()]
    [7.0, 8.0]
    """

    returns: Float[Tensor, "M S"]
    """Undiscounted return of an episode, averaged over the environments that ran the task."""
    success: Float[Tensor, "M S"] | None
    """Share of those episodes with success at any step; None if the family defines no success."""
    episodes_used: list[int]
    """Episodes of the test task used for adaptation before each stage: 0 is zero-shot."""
    tasks: Tasks
    """The task of each row, or one task of its group."""
    protocol: str = "per-task"
    faults: int = 0
    """Faults in adaptation and measurement. Each ended its episode, whose return counts as far as it came."""
    family: str | None = None
    """The id of the family; None in files of earlier versions, as are the next two."""
    family_options: Mapping[str, Any] = field(default_factory=dict)
    """The options that the family was made with, except the horizon."""
    horizon: int | None = None
    """Steps after which an episode was truncated."""
    iteration: int | None = None
    """The iteration of its training after which the agent of a run was measured; None if that is not known."""
    drawn_from: str | None = None
    """The split of its tasks, or "outside" for those outside the training range; None if they were given by hand."""

    @property
    def distinct_tasks(self) -> int:
        """The number of distinct tasks among the rows."""
        return int(self._task_numbers().max()) + 1

    @property
    def note(self) -> str | None:
        """A warning for readers of `low` and `high` if they are not an interval over tasks; None if they are."""
        distinct = self.distinct_tasks
        if distinct >= FEWEST_TASKS:
            return None
        count, tasks = self._repetitions(), "1 task" if distinct == 1 else f"{distinct} tasks"
        if count < 2:
            return f"{tasks} once each: no interval; evaluate more tasks or train more seeds"
        return f"{tasks} only: the range is that of {count} repetitions of them, not an interval over tasks"

    def summary(self) -> list[dict[str, Any]]:
        """One row per stage: mean, inter-quartile mean and 95 % stratified-bootstrap interval of the mean over tasks.

        Keys: `episodes_used`; `return_mean`, `return_iqm`, `return_low`, `return_high`, and the same for `success` if
        the family defines it; `tasks`, the number of distinct tasks; `interval`, what `low` and `high` vary over.

        Rows of the same task are averaged first, because copies are not independent. If the family has the parameter
        `task_index` and some of its values have several tasks, its values are the strata. With fewer than five distinct
        tasks, `low` and `high` are the lowest and the highest mean among repetitions of all tasks (`interval` is
        "repetitions"), or None with one repetition.
        """
        distinct = self.distinct_tasks
        over = "tasks" if distinct >= FEWEST_TASKS else "repetitions"
        rows: list[dict[str, Any]] = [
            {"episodes_used": used, "tasks": distinct, "interval": over} for used in self.episodes_used
        ]
        for name, values in (("return", self.returns), ("success", self.success)):
            if values is None:
                continue
            pooled = self.pooled(values)
            low, high = (
                stratified_bootstrap_interval(pooled, self.strata())
                if over == "tasks"
                else self._range(values.double().cpu().numpy())
            )
            iqm = interquartile_mean(pooled.T)
            for stage, row in enumerate(rows):
                row[f"{name}_mean"] = float(pooled[:, stage].mean())
                row[f"{name}_iqm"] = float(iqm[stage])
                row[f"{name}_low"] = None if low is None else float(low[stage])
                row[f"{name}_high"] = None if high is None else float(high[stage])
        return rows

    def to_json(self) -> str:
        """A JSON text: the fields by their names, and `summary`."""
        return json.dumps(
            {
                "returns": self.returns.tolist(),
                "success": None if self.success is None else self.success.tolist(),
                "episodes_used": self.episodes_used,
                "tasks": json.loads(self.tasks.to_json()),
                "protocol": self.protocol,
                "faults": self.faults,
                "family": self.family,
                "family_options": dict(self.family_options),
                "horizon": self.horizon,
                "iteration": self.iteration,
                "drawn_from": self.drawn_from,
                "summary": self.summary(),
            },
            indent=2,
            default=str,
        )

    @classmethod
    def from_json(cls, text: str) -> "Evaluation":
        """The evaluation that `to_json` wrote as `text`; raises `UsageError` for anything else."""
        data = parse_json(text, "the evaluation")
        if not isinstance(data, dict) or not isinstance(data.get("tasks"), dict):
            raise UsageError("the evaluation is damaged: it names no tasks")
        tasks = Tasks.from_json(data["tasks"])
        used, protocol, faults = data.get("episodes_used"), data.get("protocol", "per-task"), data.get("faults", 0)
        if not isinstance(used, list) or not used or not all(map(is_count, used)):
            raise UsageError("the evaluation is damaged: episodes_used is no list of counts")
        if not isinstance(protocol, str) or not is_count(faults):
            raise UsageError("the evaluation is damaged: protocol is no name, or faults no count")
        shape = (len(tasks), len(used))
        success = None if data.get("success") is None else _table(data, "success", shape)
        family, options, horizon = data.get("family"), data.get("family_options", {}), data.get("horizon")
        counts = {"horizon": horizon, "iteration": data.get("iteration")}
        drawn_from = data.get("drawn_from")
        known = isinstance(family, str | None) and isinstance(options, dict) and isinstance(drawn_from, str | None)
        if not known or any(not (count is None or is_count(count)) for count in counts.values()):
            names = "family, options, horizon, drawn_from or iteration"
            raise UsageError(f"the evaluation is damaged: {names} is nothing of that kind")
        of = {"family": family, "family_options": options, "drawn_from": drawn_from, **counts}
        return cls(_table(data, "returns", shape), success, used, tasks, protocol, faults, **of)

    def pooled(self, scores: Float[Tensor, "M S"]) -> Float[np.ndarray, "K S"]:
        """The scores of each distinct task, in order of appearance: means over its rows, which are not independent."""
        numbers, values = self._task_numbers(), scores.double().cpu().numpy()
        return np.stack([values[numbers == number].mean(0) for number in range(int(numbers.max()) + 1)])

    def strata(self) -> Int[np.ndarray, "K"]:
        """The stratum of each distinct task: its `task_index`, if some have several tasks, else the same for all."""
        _, first = np.unique(self._task_numbers(), return_index=True)
        strata = np.zeros(len(first), dtype=np.int64)
        if "task_index" in self.tasks.parameters:
            index = self.tasks.parameters["task_index"].cpu().numpy().astype(np.int64).reshape(-1)[first]
            strata = index if len(np.unique(index)) < len(index) else strata
        return strata

    def distinct(self) -> Tasks:
        """The distinct tasks, in order of appearance."""
        _, first = np.unique(self._task_numbers(), return_index=True)
        return self.tasks[first.tolist()]

    def _task_numbers(self) -> Int[np.ndarray, "M"]:
        """A number for each row, the same for rows of the same task, counted from 0 in order of appearance."""
        rows = [value.cpu().reshape(len(self.tasks), -1).numpy() for value in self.tasks.parameters.values()]
        keys = [b"|".join(row[m].tobytes() for row in rows) for m in range(len(self.tasks))]
        order = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        return np.array([order[key] for key in keys])

    def _repetitions(self) -> int:
        """How many times each distinct task was run, at least."""
        return int(np.bincount(self._task_numbers()).min())

    def _range(self, scores: Float[np.ndarray, "M S"]) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The lowest and the highest, among the repetitions, of the mean over distinct tasks."""
        numbers, count = self._task_numbers(), self._repetitions()
        if count < 2:
            return None, None
        runs = [scores[np.flatnonzero(numbers == number)[:count]] for number in range(int(numbers.max()) + 1)]
        means = np.mean(runs, axis=0)
        return means.min(0), means.max(0)


def _table(data: Mapping[str, Any], name: str, shape: tuple[int, int]) -> Float[Tensor, "M S"]:
    """An entry of an evaluation's JSON with a number, NaN included, for each row and stage."""
    rows = data.get(name)
    try:
        table = torch.tensor(rows, dtype=torch.float32)
    except (ValueError, TypeError, RuntimeError, OverflowError):
        table = torch.zeros(0)
    if table.shape != shape:
        raise UsageError(f"the evaluation is damaged: {name} is no table of {shape[0]} times {shape[1]} numbers")
    return table


def evaluate(
    agent: Agent | Policy,
    distribution: Family,
    *,
    num_tasks: int = 40,
    episodes: int | None = None,
    split: str = "test",
    seed: int = 0,
    backend: str = "auto",
    device: torch.device | str | None = None,
    envs_per_task: int | None = None,
    tasks: Tasks | None = None,
    protocol: str = "per-task",
    allow_training_tasks: bool = False,
) -> Evaluation:
    """Adapts `agent` to `num_tasks` tasks of `split`, or to `tasks`, and measures it at each stage of adaptation.

    `episodes` is the number of episodes to adapt with, per task, each with the distribution's own horizon.
    `Agent.stages` chooses the stages from 0 to `episodes`. Measuring runs forks of the adapted policy and leaves the
    policy unchanged. `device` defaults to the agent's device, `envs_per_task` to the value of its training.

    A `Policy` is measured as it stands, at one stage, without any adaptation.

    `protocol` is `"per-task"`, in which every task counts once, or one of the family's own
    (`TaskDistribution.protocols`). Raises `UsageError` if the family does not have it.

    Raises `UsageError` for a family with other spaces than the agent's, and, unless `allow_training_tasks`, for test
    tasks that the agent, if a run made it, was trained on (`metarl.seen_tasks` says what is compared).

    >>> from metarl.agents.random import RandomAgent, RandomConfig
    >>> agent = RandomAgent(RandomConfig(), metarl.EnvSpec.of(metarl.make("Bandit-v0")))
    >>> metarl.evaluate(agent, "Bandit-v0", num_tasks=10, seed=1).returns.shape
    torch.Size([10, 1])
    """
    if episodes is not None:
        check_count("number of episodes", episodes)
    distribution = make(distribution)
    agent = FixedPolicy(agent, EnvSpec.of(distribution)) if isinstance(agent, Policy) else agent
    agent.spec.check(distribution)
    measure = _find_protocol(distribution, protocol)
    trained_on = None if tasks is None and distribution is agent.trained_on else agent.trained_on
    chosen = distribution.sample(num_tasks, split=split, seed=seed) if tasks is None else tasks
    if trained_on is not None and split == "test" and not allow_training_tasks:
        check_unseen(trained_on, chosen, distribution)
    env = distribution.make_env(
        len(chosen),
        agent.config.envs_per_task if envs_per_task is None else envs_per_task,
        backend=backend,
        device=agent.device if device is None else device,
        seed=derive_seed("evaluation", seed),
    )
    stages = agent.stages(episodes)
    try:
        with torch_threads():
            env.set_tasks(chosen)
            scores = _measure_stages(agent, env, measure, stages, seed)
            faults = env.fault_count
    finally:
        env.close()
    return _stacked(scores, stages, chosen, distribution, protocol, faults, split if tasks is None else None)


def _find_protocol(family: TaskDistribution, name: str) -> Protocol:
    if name not in family.protocols:
        raise UsageError(f"{family.id} has no protocol {name!r}: choose from {', '.join(family.protocols)}")
    return family.protocols[name]


def _stacked(
    scores: list[Scores],
    stages: list[int],
    tasks: Tasks,
    family: TaskDistribution,
    protocol: str,
    faults: int,
    drawn_from: str | None,
) -> Evaluation:
    """The scores of all stages as an evaluation."""
    options = {} if family.origin is None else family.origin.options
    chosen = scores[0].tasks
    success = [score.success.cpu() for score in scores if score.success is not None]
    return Evaluation(
        returns=torch.stack([score.returns.cpu() for score in scores], dim=1),
        success=torch.stack(success, dim=1) if success else None,
        episodes_used=stages,
        tasks=tasks if chosen is None else tasks[chosen.cpu()],
        protocol=protocol,
        faults=faults,
        family=family.id,
        family_options={name: value for name, value in options.items() if name != "horizon"},
        horizon=family.horizon,
        drawn_from=drawn_from,
    )


def _measure_stages(agent: Agent, env: TaskVectorEnv, measure: Protocol, stages: list[int], seed: int) -> list[Scores]:
    """The scores after each number of episodes in `stages`. Each stage adapts the policy of the stage before."""
    scores, policy, spent = [], None, 0
    for stage, budget in enumerate(stages):
        seeds = [derive_seed("evaluation", seed, stage, part) for part in ("adapt", "act", "reset")]
        policy = agent.adapt(env, budget - spent, seed=seeds[0], policy=policy)
        scores.append(measure(env, functools.partial(_fork, agent, env, policy, seeds[1]), seeds[2]))
        spent = budget
    return scores


def _fork(agent: Agent, env: TaskVectorEnv, policy: Policy, seed: int, number: int) -> Policy:
    """A fork of `policy` whose random numbers depend on `seed` and `number`."""
    return agent.adapt(env, 0, seed=derive_seed(seed, number), policy=policy).fork()
