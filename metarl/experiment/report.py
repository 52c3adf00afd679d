"""What a report compares: run folders, put together by kind. Curves are averaged, evaluations combined.

Runs of one place, an environment or a data set, that differ only in their seeds are of one kind.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from metarl.errors import UsageError
from metarl.evaluation import Evaluation
from metarl.experiment.config_file import read_entries
from metarl.experiment.evaluation_file import check_agent_evaluation, check_learner_evaluation
from metarl.experiment.metrics import Row, metric_values, read_any_metrics
from metarl.experiment.plots import new_figure
from metarl.experiment.report_evaluations import out_of_date, repeated_seeds, unlike_training
from metarl.parsing import is_count, is_number, parse_json, printable

POINTS = 200
"""Points at which the curves of a kind are averaged."""
DRAWN = 1e30
"""Numbers beyond it are left out of curves."""
LAST = 10
"""The last 1/LAST of the rows count as the end of training."""
_NAMES = {"agent": ("agent", "env"), "few-shot": ("learner", "data")}
"""Kind of run → the entries that name who is trained on what."""
_NO_SETTINGS = {"format", "kind", "seed", "versions", "device", "checkpoint_every", "threads", "spec", "fingerprint"}
_NO_SETTINGS |= {"unnamed", "row_every", "max_faults", "max_divergent", "evaluate_every", "evaluate_tasks", "logger"}
_NO_SETTINGS |= {"from_scratch"}  # which follows from the agent and its options


@dataclass(frozen=True)
class RunRecord:
    """The part of a run folder that a report needs; neither agent nor data are loaded."""

    path: Path
    entries: Mapping[str, Any]
    rows: list[Row]
    evaluation: Mapping[str, Any] | None

    @classmethod
    def open(cls, path: Path) -> "RunRecord":
        """Reads a run folder; raises `UsageError` if it is not a run, is damaged, or has no rows of metrics yet."""
        entries = read_entries(path)
        for name in _NAMES[entries["kind"]]:
            if name not in entries:
                raise UsageError(f"{path / 'config.yaml'} is damaged: {name} is missing")
        rows = read_any_metrics(path)
        if not rows:
            raise UsageError(f"{path} has nothing to report yet: its metrics.jsonl is empty")
        found = cls(path, entries, rows, _read_evaluation(path / "evaluation.json", entries["kind"] == "agent"))
        counted = found.axes[0]
        if any(not _is_time(row.get("wall_seconds")) or not is_count(row.get(counted)) for row in rows):
            raise UsageError(f"{path / 'metrics.jsonl'} is damaged: not every row has wall_seconds and {counted}")
        return found

    @property
    def of_agent(self) -> bool:
        return self.entries["kind"] == "agent"

    @property
    def from_scratch(self) -> bool:
        """Whether the agent trains on each test task alone: its metrics are those of an untrained policy."""
        if "from_scratch" in self.entries:
            return self.entries["from_scratch"] is True
        options = self.entries.get("agent_options")  # all that earlier versions noted, of SB3's agents
        return isinstance(options, Mapping) and options.get("from_scratch") is True

    @property
    def who(self) -> str:
        name = printable(str(self.entries[_NAMES[self.entries["kind"]][0]]))
        return f"{name} from scratch" if self.from_scratch else name

    @property
    def where(self) -> str:
        return printable(str(self.entries[_NAMES[self.entries["kind"]][1]]))

    @property
    def axes(self) -> tuple[str, str]:
        """The names of the metrics on the x and y axes of its curve."""
        if self.of_agent:
            return "env_steps", "return_mean"
        return "iteration", next((name for name in ("accuracy", "mse") if name in self.rows[-1]), "loss")

    def settings(self) -> dict[str, str]:
        """All settings that distinguish kinds of runs, with nested options by their own names.

        Options of the same name and of different values, such as one of the agent and one of the family, have the name
        of their group before it.
        """
        settings = {name: value for name, value in self.entries.items() if name not in _NO_SETTINGS}
        # A family without a name has no options that would distinguish it from another one of the same id.
        if "env" in self.entries.get("unnamed", ()):
            settings["family"] = self.entries.get("fingerprint")
        found = list(_flatten(settings))
        uses = Counter(name for name, _ in {(path[-1], value) for path, value in found})
        return {" ".join(path) if uses[path[-1]] > 1 else path[-1]: value for path, value in found}

    @property
    def remarks(self) -> list[str]:
        """What a reader has to know of its evaluation, in lines."""
        if self.evaluation is None:
            return [f"{self.path} has no evaluation: metarl evaluate {self.path}"]
        if not self.of_agent:
            return []
        unlike, before = unlike_training(self.entries, self.evaluation), out_of_date(self.rows, self.evaluation)
        found = [f"{self.path} was evaluated unlike its training: {unlike}"] if unlike else []
        return found + ([] if before is None else [f"{self.path} was {before}: metarl evaluate {self.path}"])


@dataclass(frozen=True)
class Kind:
    """Runs that differ only in their seeds."""

    label: str
    """The agent or learner, and the options in which it differs from other kinds with the same name."""
    runs: list[RunRecord]

    @property
    def has_curve(self) -> bool:
        """Whether its training has something to show."""
        return not self.runs[0].from_scratch

    @property
    def evaluations(self) -> list[Mapping[str, Any]]:
        """Of those of its runs that have one."""
        return [run.evaluation for run in self.runs if run.evaluation is not None]

    def evaluated_alike(self) -> dict[str, list[Mapping[str, Any]]]:
        """The evaluations of agents, those that were made alike together, by words for what sets them apart.

        Figures of other families, horizons, protocols or stages have no mean.
        """
        groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for run in self.runs:
            if run.evaluation is not None:
                stages = ", ".join(str(row["episodes_used"]) for row in run.evaluation["summary"])
                groups.setdefault((unlike_training(run.entries, run.evaluation), stages), []).append(run.evaluation)
        uses = Counter(words for words, _ in groups)
        return {
            words if uses[words] == 1 else f"{words}{', ' * bool(words)}stages {stages}": evaluations
            for (words, stages), evaluations in groups.items()
        }

    @property
    def remarks(self) -> list[str]:
        """What a reader has to know of its runs together, in lines."""
        return repeated_seeds(self.label, {str(run.path): run.entries.get("seed") for run in self.runs})

    def curve(self, axis: str | None = None) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "runs n"]]:
        """Points on the x axis that all runs have reached, and the curve of each run, smoothed over 2 % of its rows.

        `axis` is the metric on the x axis: env steps, or iterations of a few-shot learner, if not given.
        """
        curves = [_smooth(run, axis or run.axes[0]) for run in self.runs]
        start, end = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
        grid = np.linspace(start, max(start, end), POINTS)
        return grid, np.stack([np.interp(grid, x, y) for x, y in curves])

    def row(self) -> list[str]:
        """The cells of its table row; `header` has their names."""
        last = [run.rows[-1] for run in self.runs]
        steps = [str(row["env_steps" if self.runs[0].of_agent else "iteration"]) for row in last]
        minutes = np.mean([row["wall_seconds"] for row in last]) / 60
        standing = [float(np.mean(_ordinates(run)[-max(1, len(run.rows) // LAST) :])) for run in self.runs]
        if self.runs[0].of_agent:
            figures = [f for words, alike in self.evaluated_alike().items() for f in _agent_figures(alike, words)]
        else:
            figures = _learner_figures(self.evaluations)
        found = "; ".join(figures)
        same = len(set(steps)) == 1
        training = [
            f"{int(steps[0]):,}" if same else f"{min(map(int, steps)):,} … {max(map(int, steps)):,}",
            f"{minutes:.1f}",
            spread(standing),
        ]
        return [self.label, str(len(self.runs)), *(training if self.has_curve else ["–"] * 3), found or "–"]


def header(kind: Kind) -> list[str]:
    """The names of the cells of a row."""
    steps, ordinate = kind.runs[0].axes
    names = {"env_steps": "env steps", "iteration": "steps", "return_mean": "return"}
    standing = f"{names.get(ordinate, ordinate)} at the end of training"
    evaluated = "evaluated (95 % interval of one run, range of several)" if kind.runs[0].of_agent else "evaluated"
    return ["", "runs", names[steps], "minutes", standing, evaluated]


def kinds_by_place(records: Sequence[RunRecord]) -> dict[str, list[Kind]]:
    """The kinds of runs on each environment or data set, in order of appearance."""
    places: dict[str, dict[tuple[tuple[str, str], ...], list[RunRecord]]] = {}
    for record in records:
        key = tuple(sorted(record.settings().items()))
        places.setdefault(record.where, {}).setdefault(key, []).append(record)
    return {place: _labelled(list(kinds.values())) for place, kinds in places.items()}


def draw_curves(place: str, kinds: Sequence[Kind]) -> Figure:
    """Draws a line for each kind that has a curve, the mean over its runs, and a band from lowest to highest."""
    x, y = kinds[0].runs[0].axes
    names = {"env_steps": "environment steps", "iteration": "training steps", "return_mean": "return after adaptation"}
    figure, axes = new_figure(place, names[x], names.get(y, f"{y} of training episodes"), height=4.5)
    lines = []
    drawn = [kind for kind in kinds if kind.has_curve]
    for number, kind in enumerate(drawn):
        grid, curves = kind.curve()
        style = ("-", "--", ":")[number // 10 % 3]  # after ten lines, matplotlib's colours begin again
        (line,) = axes.plot(grid, curves.mean(0), style, linewidth=1.2)
        lines.append(line)
        if len(curves) > 1:
            axes.fill_between(grid, curves.min(0), curves.max(0), alpha=0.2, color=line.get_color())
    if y == "mse" and all(min(_ordinates(run)) > 0 for kind in drawn for run in kind.runs):
        axes.set_yscale("log")
    for text in axes.legend(lines, [kind.label for kind in drawn], fontsize=8).get_texts():
        text.set_parse_math(False)
    return figure


def _read_evaluation(file: Path, of_agent: bool) -> Mapping[str, Any] | None:
    """The evaluation of a run, None if it has none; raises `UsageError` if it is damaged."""
    if not file.is_file():
        return None
    text = file.read_bytes()
    evaluation = parse_json(text, str(file))
    (check_agent_evaluation if of_agent else check_learner_evaluation)(evaluation, str(file))
    if of_agent:
        try:
            stages = Evaluation.from_json(text.decode()).episodes_used
        except UsageError as error:
            raise UsageError(f"{file}: {error}; metarl evaluate {file.parent} writes it again") from None
        if [row["episodes_used"] for row in evaluation["summary"]] != stages:
            raise UsageError(f"{file} is damaged: its summary is not that of its episodes_used")
    return evaluation


def _is_time(value: Any) -> bool:
    return is_number(value) and value >= 0


def _flatten(entries: Mapping[str, Any], within: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each value as JSON, with the names that lead to it."""
    for name, value in entries.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, (*within, name))
        else:
            yield (*within, name), json.dumps(value)


def _labelled(groups: list[list[RunRecord]]) -> list[Kind]:
    settings = [group[0].settings() for group in groups]
    kinds = []
    for group, own in zip(groups, settings, strict=True):
        others = [s for other, s in zip(groups, settings, strict=True) if other[0].who == group[0].who]
        differing = {name for s in others for name in s.keys() | own.keys() if s.get(name) != own.get(name)}
        told = [printable(f"{name.replace('_', '-')} {own[name]}") for name in own if name in differing]
        kinds.append(Kind(", ".join([group[0].who, *told]), group))
    return kinds


def _ordinates(run: RunRecord) -> Float[np.ndarray, "n"]:
    """The values of a run's curve; NaN for one that is missing, or too large to draw."""
    values = np.array(metric_values(run.rows, run.axes[1]), dtype=np.float64)
    return np.where(np.abs(values) < DRAWN, values, np.nan)


def _smooth(run: RunRecord, axis: str) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    x, y = np.array([row[axis] for row in run.rows], dtype=np.float64), _ordinates(run)
    known = np.isfinite(y)
    if not known.any():
        raise UsageError(f"{run.path} has nothing to draw: no row of its metrics has a finite {run.axes[1]}")
    x, y = x[known], y[known]
    width = max(1, len(y) // 50)
    return x[width - 1 :], np.convolve(y, np.ones(width) / width, mode="valid")


def spread(values: Sequence[float]) -> str:
    """The mean, and for several values also the lowest and the highest."""
    mean = number(float(np.mean(values)))
    return mean if len(values) == 1 else f"{mean} ({number(min(values))} … {number(max(values))})"


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _agent_figures(evaluations: Sequence[Mapping[str, Any]], words: str) -> list[str]:
    """Return, or success if the family defines it, at the first and the last stage of adaptation.

    The evaluations are alike; `words` say what sets them apart from others.
    """
    found: list[str] = []
    for stage in (0, -1):
        rows = [evaluation["summary"][stage] for evaluation in evaluations]
        if not rows or (stage == -1 and all(len(evaluation["summary"]) == 1 for evaluation in evaluations)):
            continue
        name = "success" if all("success_mean" in row for row in rows) else "return"
        if len(rows) == 1:
            mean, low, high = (rows[0][f"{name}_{part}"] for part in ("mean", "low", "high"))
            text = number(mean) + ("" if low is None else f" ({number(low)} … {number(high)})")
        else:
            text = spread([row[f"{name}_mean"] for row in rows])
        used = rows[0]["episodes_used"]
        found.append(f"{name} after {used} episode{'s' * (used != 1)} {text}" + (f" [{words}]" if words else ""))
    return found


def _learner_figures(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    """The score and the metrics of the objective, with intervals; for several runs, the range of the means."""
    figures: dict[str, list[tuple[float | None, float | None]]] = {}
    for evaluation in evaluations:
        score = "accuracy" if "accuracy" in evaluation else "mse"
        measured = {score: {"mean": evaluation[score], "ci95": evaluation["ci95"]}, **evaluation.get("metrics", {})}
        for name, value in measured.items():
            figures.setdefault(printable(name.replace("_", " ")), []).append((value["mean"], value["ci95"]))
    found = []
    for name, values in figures.items():
        means, ci95 = [mean for mean, _ in values if mean is not None], values[0][1]
        interval = "" if ci95 is None or len(values) > 1 else f" ± {ci95:.2g}"
        found.append(f"{name} {spread(means)}{interval}" if means else f"{name} unknown")
    return found
