"""The model card of a few-shot run: what it is, what it was measured to do, and what nobody has measured.

After Mitchell et al. (Model cards for model reporting, FAT* 2019). It states what the run knows; what it is meant for,
only people know.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metarl.experiment.files import write_atomically
from metarl.fewshot.data import DataSet

CARD = "MODEL_CARD.md"
"""The file's name in the run folder."""


def write_model_card(run: Path, result: Mapping[str, Any], data: DataSet) -> None:
    """Writes the card for a `result` as in evaluation.json."""
    write_atomically(run / CARD, "\n".join(_lines(result, data)) + "\n")


def _lines(result: Mapping[str, Any], data: DataSet) -> Iterator[str]:
    metric = "accuracy" if "accuracy" in result else "mse"
    yield f"# {result['learner']} on {result['data']}"
    yield ""
    shape = f"{result['ways']} classes, " if metric == "accuracy" else ""
    yield f"A few-shot learner: it learns a new task from {shape}{result['shots']} examples each and predicts others."
    yield ""
    yield f"- Made by: `{result['command']}`"
    yield f"- Objective: {result['objective']}; training steps: {result['training_steps']}"
    if "validation" in result:
        yield f"- State: the best of {_validated(result['validation'])}"
    yield ""
    yield "## Data"
    yield ""
    summary = data.summary()
    yield from (f"- {line}" for line in summary or ["No files of one's own: the data set describes itself."])
    yield ""
    yield "## Measured"
    yield ""
    rows = [result, *result.get("further", ())]
    for row in rows:
        what = f"{row['shots']} shots, {row['queries']} queries" + (f", {row['ways']} ways" if shape else "")
        yield f"- {metric} {_figure(row[metric], row['ci95'])} ({what}, {row['episodes']} {row['split']} episodes)"
    for name, row in result.get("metrics", {}).items():
        yield f"- {name.replace('_', ' ')} {_figure(row['mean'], row['ci95'])}"
    yield f"- 95 % interval: {result['interval']}"
    if "verdict" in result.get("baselines", {}):
        yield f"- Beside simple models: {result['baselines']['verdict']}"
    yield ""
    yield "## Limits"
    yield ""
    yield from (f"- {line}" for line in _limits(result))


def _limits(result: Mapping[str, Any]) -> Iterator[str]:
    yield "Measured on data like the training's; for other sources, such as another clinic, nothing is known."
    if result["ci95"] is None:
        yield f"The test is too small for an interval: {result['interval']}."
    if result["normalisation"] == "transductive":
        yield "Transductive: a prediction depends on the other queries that are predicted with it."
    if "accuracy" in result:
        yield "Probabilities are not calibrated unless calibration.json exists (`metarl evaluate RUN --figures`)."
    if not {"groups", "protected"} & result.keys():
        yield "No protected group is named: whether groups are treated alike has not been measured."
    elif not result.get("metrics"):
        yield "How groups are treated is not in this card: `metarl evaluate RUN --figures` measures it."
    if not any(name.startswith("adversarial") for name in result.get("metrics", {})):
        yield "Robustness to attacks has not been measured."


def _validated(validation: Mapping[str, Any]) -> str:
    stopped = ", stopped early" if validation["stopped_early"] else ""
    return f"the validations, step {validation['step']} with {validation['best']:.4f}{stopped}"


def _figure(mean: float | None, half: float | None) -> str:
    if mean is None:
        return "unknown"
    return f"{mean:.4f}" if half is None else f"{mean:.4f} ± {half:.4f}"
