"""The figures of a few-shot run, computed for `metarl evaluate RUN --figures`, and as tables for people."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from metarl.experiment.progress import Progress
from metarl.fewshot import FewShotRun
from metarl.fewshot.calibration import draw_reliability, write_calibration
from metarl.fewshot.report import CALIBRATION_EPISODES, figures
from metarl.threads import torch_threads

_RATES = ("selection_rate", "tpr", "fpr", "accuracy")


def run_figures(run: FewShotRun, *, episodes: int, split: str, seed: int, coverage: float) -> dict[str, Any]:
    """The figures of a run; keeps the calibration and plots/reliability.png in its folder."""
    total = episodes + min(CALIBRATION_EPISODES, episodes)
    with torch_threads(), Progress("figures", enabled=True) as bar:
        found, calibration = figures(
            run.learner,
            run.experiment.splits,
            episodes=episodes,
            split=split,
            seed=seed,
            calibration_split=run.experiment.calibration_split,
            coverage=coverage,
            report=lambda done: bar.update(done / total, f"episode {done}/{total}"),
        )
    write_calibration(run.path, calibration)
    both = found["calibration"]
    draw_reliability(both["raw"], both["calibrated"], run.experiment.title, run.path / "plots" / "reliability.png")
    return found


def figure_tables(found: Mapping[str, Any]) -> Iterator[tuple[str, Table]]:
    """The figures as titled tables; none if there are no figures."""
    if not found:
        return
    yield f"figures, averaged {found['averaging']}", _overall(found)
    per_class = found.get("per_class")
    if isinstance(per_class, list):
        yield "classes", _rows(per_class, "class", [name for name in per_class[0] if name not in ("class", "queries")])
    if "confusion" in found:
        yield "confusion: rows are the truth, columns predictions", _confusion(found["confusion"])
    columns = {"groups": found.get("groups")} | dict(found.get("protected", {}))
    for name, groups in columns.items():
        if isinstance(groups, Mapping):
            yield f"{name}; favourable is {groups['favourable']}", _rows(groups["groups"], "group", _RATES)


def mean_and_interval(mean: float | None, ci95: float | None) -> str:
    """A mean and half the width of its 95 % interval as text, if they are known."""
    if mean is None:
        return "unknown"
    return f"{mean:.4f}" if ci95 is None else f"{mean:.4f} ± {ci95:.4f}"


def baseline_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The baselines of a few-shot result in lines for people; none if it has none."""
    found = result.get("baselines", {})
    metric = "accuracy" if "accuracy" in result else "mse"
    for row in found.get("models", ()):
        score = mean_and_interval(row[metric], row["ci95"])
        yield f"baseline: {row['model']} fitted on {row['fitted_on']}, {metric} {score}"
    for name in ("note", "verdict"):
        if name in found:
            yield f"baselines: {found[name]}"


def _overall(found: Mapping[str, Any]) -> Table:
    table = Table("figure", "value")
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc"):
        table.add_row(name.replace("_", " "), _text(found[name]))
    for name, row in (("raw", found["calibration"]["raw"]), ("calibrated", found["calibration"]["calibrated"])):
        table.add_row(f"ECE, {name}", f"{row['ece']:.4f}")
        table.add_row(f"Brier score, {name}", _text(row["brier"]))
    table.add_row("temperature", f"{found['calibration']['calibrated']['temperature']:.3f}")
    sets = found["conformal"]
    table.add_row(f"coverage of {sets['stated_coverage']:.0%} sets", _text(sets["coverage"]))
    table.add_row("classes in a set", f"{sets['mean_size']:.2f}")
    table.add_row("answered (one class in the set)", f"{sets['answered']:.1%}")
    table.add_row("accuracy if answered", mean_and_interval(sets["accuracy_if_answered"], None))
    table.add_row("calibrated on", sets["calibrated_on"])
    return table


def _rows(rows: list[Mapping[str, Any]], what: str, names: tuple[str, ...] | list[str]) -> Table:
    counted = [name for name in ("queries", "examples") if any(row.get(name) is not None for row in rows)]
    table = Table(what, *counted, *(name.replace("_", " ") for name in names))
    for row in rows:
        label = f"{row[what]} (rare)" if row.get("rare") else str(row[what])
        table.add_row(label, *(str(row[name]) for name in counted), *(_text(row[name]) for name in names))
    return table


def _confusion(found: Mapping[str, Any]) -> Table:
    table = Table("", *found["classes"])
    for name, counts in zip(found["classes"], found["counts"], strict=True):
        table.add_row(name, *map(str, counts))
    return table


def _text(row: Mapping[str, Any]) -> str:
    return mean_and_interval(row["mean"], row["ci95"])
