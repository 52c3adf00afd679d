"""What a report shows of one place: charts, heat maps of the tasks, the settings that differ, and remarks."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from metarl.experiment.report import Kind, RunRecord, header, number
from metarl.experiment.report_tables import Table
from metarl.parsing import printable

HEAT_MAP_STAGES = 5
"""Stages of each evaluation in a heat map, at most: the first and the last among them."""
AXES = {"env_steps": "environment steps", "iteration": "training steps", "wall_seconds": "minutes of training"}


@dataclass(frozen=True)
class Line:
    """One kind of run in a chart. A value is None where the kind has none."""

    label: str
    colour: int
    """The number of the kind at its place: a kind has one colour in all charts."""
    mean: Sequence[float | None]
    low: Sequence[float | None]
    high: Sequence[float | None]


@dataclass(frozen=True)
class Chart:
    """Lines over a common axis, each with a band."""

    title: str
    x_label: str
    x: Sequence[float]
    lines: Sequence[Line]
    marks: bool = False
    """Whether a dot stands at every value."""
    logarithmic: bool = False


@dataclass(frozen=True)
class HeatMap:
    """A value for each row, a stage of a kind, and each column, a task; the easiest task first."""

    title: str
    rows: Sequence[str]
    tasks: Sequence[str]
    values: Float[np.ndarray, "rows tasks"]


@dataclass(frozen=True)
class Section:
    """Everything about one environment or data set."""

    place: str
    kinds: Sequence[Kind]
    results: Table
    charts: Sequence[Chart]
    heat_maps: Sequence[HeatMap]
    settings: Table | None
    remarks: Sequence[str]

    @property
    def runs(self) -> list[RunRecord]:
        return [run for kind in self.kinds for run in kind.runs]


def section(place: str, kinds: Sequence[Kind]) -> Section:
    """Puts together what the runs of one place say."""
    results = Table(header(kinds[0]), [kind.row() for kind in kinds])
    axes = (kinds[0].runs[0].axes[0], "wall_seconds") if any(kind.has_curve for kind in kinds) else ()
    charts = [learning_chart(kinds, axis) for axis in axes]
    evaluated = [kind for kind in kinds if kind.evaluations] if kinds[0].runs[0].of_agent else []
    charts += [chart for name in ("return", "success") if (chart := adaptation_chart(kinds, name)) is not None]
    return Section(place, kinds, results, charts, _heat_maps(evaluated), settings_table(kinds), _remarks(kinds))


def learning_chart(kinds: Sequence[Kind], axis: str) -> Chart:
    """The mean over the runs of each kind and the band from the lowest to the highest, against metric `axis`.

    Kinds whose training has nothing to show are left out; at least one has.
    """
    y = kinds[0].runs[0].axes[1]
    scale = 60 if axis == "wall_seconds" else 1
    shown = [(i, kind, *kind.curve(axis)) for i, kind in enumerate(kinds) if kind.has_curve]
    x = np.unique(np.concatenate([grid / scale for _, _, grid, _ in shown]))
    lines = []
    for i, kind, steps, values in shown:
        grid = steps / scale
        known = (grid[0] <= x) & (x <= grid[-1])
        over = [np.interp(x, grid, row) for row in (values.mean(0), values.min(0), values.max(0))]
        mean, low, high = ([_short(v) if k else None for v, k in zip(row, known, strict=True)] for row in over)
        lines.append(Line(kind.label, i, mean, low, high))
    name = "return after adaptation" if y == "return_mean" else f"{y} of training episodes"
    return Chart(f"Training: {name}", AXES[axis], [_short(v) for v in x], lines, logarithmic=y == "mse")


def adaptation_chart(kinds: Sequence[Kind], name: str) -> Chart | None:
    """The evaluated `name`, return or success, by episodes used; None if no kind has it.

    The band is the interval of one evaluation, and the range of the means of several.
    """
    stages: dict[int, dict[int, tuple[float, float | None, float | None]]] = {}
    for i, kind in enumerate(kinds):
        if not kind.runs[0].of_agent:
            return None
        by_stage: dict[int, list[Mapping[str, Any]]] = {}
        for row in itertools.chain.from_iterable(evaluation["summary"] for evaluation in kind.evaluations):
            by_stage.setdefault(row["episodes_used"], []).append(row)
        for used, rows in by_stage.items():
            means = [row[f"{name}_mean"] for row in rows if f"{name}_mean" in row]
            if len(means) == 1:
                stages.setdefault(used, {})[i] = means[0], rows[0][f"{name}_low"], rows[0][f"{name}_high"]
            elif means:
                stages.setdefault(used, {})[i] = float(np.mean(means)), min(means), max(means)
    if not stages:
        return None
    x, none = sorted(stages), (None, None, None)
    lines = []
    for i, kind in enumerate(kinds):
        if any(i in found for found in stages.values()):
            mean, low, high = zip(*(stages[used].get(i, none) for used in x), strict=True)
            lines.append(Line(kind.label, i, mean, low, high))
    return Chart(
        f"Adaptation: {name} on tasks of the evaluation",
        "episodes of the task used",
        list(map(float, x)),
        lines,
        marks=True,
    )


def settings_table(kinds: Sequence[Kind]) -> Table | None:
    """The settings in which the kinds of one place differ; None if they differ in nothing."""
    settings = [kind.runs[0].settings() for kind in kinds]
    names = dict.fromkeys(name for own in settings for name in own)
    rows = [[name.replace("_", "-"), *(own.get(name, "–") for own in settings)] for name in names]
    differing = [row for row in rows if len(set(row[1:])) > 1]
    return Table(["setting", *(kind.label for kind in kinds)], differing) if differing else None


def _heat_maps(kinds: Sequence[Kind]) -> list[HeatMap]:
    """A map for each set of tasks that runs were evaluated on: kinds are comparable task by task only on the same."""
    groups: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for kind in kinds:
        for evaluation in kind.evaluations:
            groups.setdefault(json.dumps(evaluation["tasks"]), []).append((kind.label, evaluation))
    maps = []
    for members in groups.values():
        name = "success" if all(evaluation["success"] is not None for _, evaluation in members) else "return"
        values: dict[str, list[np.ndarray]] = {}
        for label, evaluation in members:
            scores = np.array(evaluation["success" if name == "success" else "returns"], dtype=np.float64)
            stages = np.linspace(0, scores.shape[1] - 1, min(scores.shape[1], HEAT_MAP_STAGES)).round().astype(int)
            for stage in stages:
                used = evaluation["episodes_used"][stage]
                values.setdefault(f"{label}, after {used}", []).append(scores[:, stage])
        means = np.stack([np.mean(rows, axis=0) for rows in values.values()])
        order = np.argsort(-means.mean(0), kind="stable")
        tasks = _task_names(members[0][1]["tasks"]["parameters"])
        title = f"{name.capitalize()} by task, the easiest first"
        maps.append(HeatMap(title, list(values), [tasks[i] for i in order], means[:, order]))
    return maps


def _task_names(parameters: Mapping[str, list[Any]]) -> list[str]:
    """Each task's parameters in a line, without those that all tasks share."""
    count = len(next(iter(parameters.values())))
    told = {name: rows for name, rows in parameters.items() if any(row != rows[0] for row in rows)} or parameters
    return [", ".join(f"{name} {_values(rows[i])}" for name, rows in told.items()) for i in range(count)]


def _values(value: Any) -> str:
    return f"({', '.join(map(_values, value))})" if isinstance(value, list) else f"{value:.3g}"


def _remarks(kinds: Sequence[Kind]) -> list[str]:
    """What a reader has to know before comparing figures."""
    runs = [run for kind in kinds for run in kind.runs]
    remarks = [f"{run.path} has no evaluation: metarl evaluate {run.path}" for run in runs if run.evaluation is None]
    remarks += [remark for run in runs if run.of_agent for remark in _conditions(run)]
    evaluations = [run.evaluation for run in runs if run.evaluation is not None and run.of_agent]
    if len({json.dumps(evaluation["tasks"]) for evaluation in evaluations}) > 1:
        remarks.append("not all runs were evaluated on the same tasks: their figures differ by the draw of tasks too")
    if len({evaluation.get("protocol", "per-task") for evaluation in evaluations}) > 1:
        remarks.append("not all runs were evaluated by the same protocol: their figures are not comparable")
    if faults := sum(evaluation.get("faults", 0) for evaluation in evaluations):
        remarks.append(f"{number(faults)} faults in the evaluations, each of which ended an episode early")
    return remarks


def _conditions(run: RunRecord) -> Iterator[str]:
    """Under what conditions a run's figures were measured, if not under those that a reader takes for granted."""
    if run.evaluation is None:
        return
    if unlike := run.evaluation.get("unlike_training"):
        yield printable(f"{run.path} was evaluated unlike its training: {', '.join(unlike)}", 500)
    last, measured = run.rows[-1].get("iteration"), run.evaluation.get("iteration")
    if measured is not None and measured != last:
        yield f"{run.path} was evaluated after iteration {measured} of {last}: metarl evaluate {run.path}"


def _short(value: float) -> float:
    """Six digits are more than a screen shows."""
    return float(f"{value:.6g}")
