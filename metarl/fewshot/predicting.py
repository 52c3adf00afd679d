"""Predictions for a user's files by a trained run: labels, probabilities, prediction sets and explanations."""

import warnings
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.errors import UsageError
from metarl.fewshot.calibration import Calibration, read_calibration
from metarl.fewshot.data.encoder import FileEncoder, label_codes
from metarl.fewshot.data.remarks import all_remarks, unlike_training
from metarl.fewshot.explain import explain
from metarl.fewshot.learner import CalibrationWarning, Learner
from metarl.fewshot.run import FewShotRun

SHOWN = 3
"""Support rows and features that the explanation of a prediction names."""


def predict_files(
    run: FewShotRun,
    support: Path | str,
    query: Path | str,
    *,
    calibrated: bool = False,
    explained: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """Learns the labels of the file `support` and predicts those of `query`, as plain values.

    `predictions` has for each query its `label` and `probabilities`; with `calibrated`, these are by the run's
    temperature and `set` is its prediction set, and `note` tells of a support of other sizes than the calibration is
    for; with `explained`, `explanation` names the support rows and the features that decided, by the probabilities as
    they are before calibration. `remarks`, if there are any, say in what the files differ from those of the training.
    Rows are counted from 1; pictures have a `name` too. The classes are those of the support file; they need not be
    those of the training, unless these mean the same in every episode, as those of sites do. `seed` is that of the
    explanation's draws.

    Raises `UsageError` if the run's data are no files, if a file differs in its columns, if the learner was trained for
    another number of classes, or if the run is not calibrated.
    """
    learner, encoder = run.learner, _checked_encoder(run)
    calibration = checked_calibration(run) if calibrated else None
    if calibration is not None:
        learner.temperature = calibration.temperature  # the run may have been calibrated after it was opened
    support_x, query_x = encoder.inputs(support), encoder.inputs(query)
    groups = encoder.groups(support)
    remarks = [line for path in (support, query) for line in encoder.remarks(path)]
    remarks += all_remarks(learner.spec.preprocessing, {"support": support_x, "query": query_x}, encoder.features())
    result: dict[str, Any] = {"support": str(support), "query": str(query), **({"remarks": remarks} if remarks else {})}
    if learner.spec.kind == "regression":
        return result | _regression(learner, support_x, encoder.targets(support), query_x, groups, remarks)
    names, codes = label_codes(encoder.labels(support), encoder.favourable, encoder.fixed_classes)
    if len(names) < 2:
        raise UsageError(f"{support}: all rows are of class {names[0]!r}; want examples of each class")
    y = torch.tensor(codes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)  # it is the note
        probabilities = learner.predict(support_x, y, query_x, groups, calibrated=calibrated)
    rows = _rows(names, probabilities)
    for row, name in zip(rows, encoder.names(query) or (), strict=False):
        row["name"] = name
    if calibration is not None:
        for row, chosen in zip(rows, calibration.sets(probabilities), strict=True):
            row["set"] = [name for name, inside in zip(names, chosen.tolist(), strict=True) if inside]
    if explained:
        found = explain(learner, support_x, y, query_x, groups, features=encoder.features(), seed=seed)
        for row, said in zip(rows, found.of_queries(SHOWN), strict=True):
            row["explanation"] = said
    result |= {"classes": names, "predictions": rows}
    if calibration is not None:
        result["stated_coverage"] = calibration.coverage
        note = learner.calibration_note(y)
        result |= {} if note is None else {"note": note}
    return result


def checked_calibration(run: FewShotRun) -> Calibration:
    """The calibration of a run; raises `UsageError` if it has none, or one of another state, or is regression."""
    if run.learner.spec.kind == "regression":
        raise UsageError(f"{run.path} is regression: calibrated are the probabilities of classes, leave calibrated out")
    found = read_calibration(run.path)
    if found is None:
        raise UsageError(f"{run.path} is not calibrated: metarl evaluate {run.path} --figures does it")
    if found.training_steps != run.learner.updates:
        raise UsageError(
            f"{run.path} was calibrated after {found.training_steps} training steps and has taken "
            f"{run.learner.updates}: metarl evaluate {run.path} --figures calibrates it anew"
        )
    return found


def _checked_encoder(run: FewShotRun) -> FileEncoder:
    """The reader of files of a run; raises `UsageError` if it has none."""
    if run.encoder is None:
        raise UsageError(
            f"{run.path} was trained on {run.config.data}, which reads no files of one's own: use learner.predict"
        )
    return run.encoder


def _regression(
    learner: Learner, support_x: Tensor, targets: Tensor, query_x: Tensor, groups: Tensor | None, remarks: list[str]
) -> dict[str, Any]:
    """The predicted values, and `remarks` with those on the support's values."""
    scaling = learner.spec.targets
    remarks = remarks + ([] if scaling is None else unlike_training(scaling, targets, {"the target": [0]}))
    values = learner.predict(support_x, targets, query_x, groups)
    return {"predictions": _values(values), **({"remarks": remarks} if remarks else {})}


def _rows(names: list[str], probabilities: Float[Tensor, "Q N"]) -> list[dict[str, Any]]:
    return [
        {"row": number, "label": names[int(p.argmax())], "probabilities": dict(zip(names, p.tolist(), strict=True))}
        for number, p in enumerate(probabilities, 1)
    ]


def _values(values: Float[Tensor, "Q O"]) -> list[dict[str, Any]]:
    return [{"row": number, "value": value} for number, value in enumerate(values.tolist(), 1)]
