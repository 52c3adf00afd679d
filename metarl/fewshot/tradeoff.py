"""What fairness costs: accuracy against the gap between groups, for a series of penalties."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metarl.errors import UsageError
from metarl.experiment.files import write_atomically
from metarl.experiment.options import build
from metarl.experiment.plots import new_figure, save_figure
from metarl.experiment.run_folder import check_output
from metarl.experiment.training import train
from metarl.fewshot.objectives import objective_class
from metarl.fewshot.objectives.fairness import FairnessConfig
from metarl.fewshot.result import RESULT
from metarl.fewshot.run import FewShotConfig

GAPS = {
    "demographic-parity": "parity_gap",
    "equal-opportunity": "equal_opportunity_gap",
    "equalised-odds": "equalised_odds_gap",
}
"""Criterion → the metric that measures it."""


def fairness_curve(
    config: FewShotConfig, penalties: Sequence[int | float], output: Path | str, *, progress: bool = True
) -> list[dict[str, Any]]:
    """Trains and tests a run for each of `penalties` (λ on the queries), alike but for the penalty.

    The penalty inside adaptation, on the support, is scaled along: the configured inside / outside ratio holds. Returns
    a row for each: `penalty`, `accuracy`, `gap` (that of the configured criterion), their `ci95`s, and the folder of
    the run, `output`/penalty-λ. Writes them as `output`/curve.json and draws `output`/curve.png. Penalty 0 is plain.

    Choose a penalty on other data than those it is then reported on: the rows are measured on the test split.

    >>> options = {"iterations": 2}
    >>> config = metarl.fewshot.FewShotConfig("protonet", "biased", "fairness", learner_options=options, episodes=5)
    >>> rows = metarl.fewshot.fairness_curve(config, [0, 10], "curve", progress=False)
    >>> [row["penalty"] for row in rows]
    [0.0, 10.0]
    """
    cls = objective_class(config.objective)
    options = config.objective_options
    fair = build(cls.config_class, options, "objective 'fairness'") if isinstance(options, Mapping) else options
    if not isinstance(fair, FairnessConfig):
        raise UsageError(f"a fairness curve is of the objective fairness, not {config.objective}")
    values = [float(penalty) for penalty in penalties]
    if len(set(values)) != len(values) or not values or not all(value >= 0 for value in values):
        raise UsageError(f"penalties must be different numbers of at least 0, got {list(penalties)}")
    check_output(output)
    ratio = fair.penalty_inside / fair.penalty_outside if fair.penalty_outside > 0 else 0.0
    rows = []
    for penalty in values:
        objective = dataclasses.replace(fair, penalty_outside=penalty, penalty_inside=ratio * penalty)
        folder = Path(output) / f"penalty-{penalty:g}"
        run = train(dataclasses.replace(config, objective_options=objective, output=folder), progress=progress)
        result = json.loads((run / RESULT).read_text())
        gap = result["metrics"][GAPS[fair.criterion]]
        rows.append(
            {
                "penalty": penalty,
                "accuracy": result["accuracy"],
                "accuracy_ci95": result["ci95"],
                "gap": gap["mean"],
                "gap_ci95": gap["ci95"],
                "run": str(run),
            }
        )
    write_atomically(Path(output) / "curve.json", json.dumps(rows, indent=2) + "\n")
    _draw(rows, fair.criterion, Path(output) / "curve.png")
    return rows


def _draw(rows: Sequence[Mapping[str, Any]], criterion: str, path: Path) -> None:
    figure, axes = new_figure("what fairness costs", f"gap between groups ({criterion})", "accuracy")
    known = [row for row in rows if row["gap"] is not None]
    axes.errorbar(
        [row["gap"] for row in known],
        [row["accuracy"] for row in known],
        xerr=[row["gap_ci95"] or 0 for row in known],
        yerr=[row["accuracy_ci95"] or 0 for row in known],
        marker="o",
        capsize=2,
    )
    for row in known:
        axes.annotate(f"λ = {row['penalty']:g}", (row["gap"], row["accuracy"]), fontsize=8)
    save_figure(figure, path)
