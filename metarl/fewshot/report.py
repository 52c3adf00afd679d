"""The figures of a run in one result: `metarl evaluate RUN --figures`."""

import dataclasses
from collections.abc import Callable
from typing import Any

from metarl.fewshot.calibration import Calibration, calibrate, calibration_figures, conformal_figures
from metarl.fewshot.data import DataSet
from metarl.fewshot.figures import classification_figures, group_figures
from metarl.fewshot.learner import Learner
from metarl.fewshot.objectives.fairness import FairnessConfig
from metarl.fewshot.predictions import Predictions, collect_predictions
from metarl.fewshot.validation import validation_shape
from metarl.randomness import derive_seed

CALIBRATION_EPISODES = 200
"""Episodes that temperature and prediction sets are fitted on."""


def figures(
    learner: Learner,
    data: DataSet,
    *,
    episodes: int = 600,
    split: str = "test",
    seed: int = 0,
    calibration_split: str = "train",
    coverage: float = 0.9,
    report: Callable[[int], None] = lambda done: None,
) -> tuple[dict[str, Any], Calibration]:
    """All figures of a classifier on episodes of `split`, and the calibration fitted on `calibration_split`.

    The keys are those of `classification_figures`, `calibration` (`raw` and `calibrated`), `conformal`, and, if a class
    is favourable, `groups` for the protected group and `protected` for each further protected column. Raises
    `UsageError` for regression. `report` gets the episodes done.

    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.learners.protonet import ProtoNet, ProtoNetConfig
    >>> from metarl.fewshot.report import figures
    >>> data = open_data("biased")
    >>> learner = ProtoNet(ProtoNetConfig(), data.spec(data.default_shape()))
    >>> found, calibration = figures(learner, data, episodes=4)
    >>> sorted(found)[:4]
    ['accuracy', 'averaging', 'balanced_accuracy', 'calibration']
    """
    favourable = favourable_label(learner, data)
    count = min(CALIBRATION_EPISODES, episodes)
    shape = validation_shape(data, learner.spec.shape) if calibration_split == "validation" else learner.spec.shape
    fitted = collect_predictions(
        learner,
        data,
        episodes=count,
        shape=shape,
        split=calibration_split,
        seed=derive_seed("calibration", seed),
        report=report,
    )
    calibration = calibrate(fitted, coverage=coverage, split=calibration_split, training_steps=learner.updates)
    tested = collect_predictions(
        learner,
        data,
        episodes=episodes,
        split=split,
        seed=seed,
        favourable=favourable,
        report=lambda done: report(count + done),
    )
    result = classification_figures(tested)
    raw, calibrated = calibration_figures(tested), calibration_figures(tested, calibration)
    result["calibration"] = {
        "raw": raw,
        "calibrated": calibrated,
        "fitted_on": f"{count} episodes of {calibration_split}",
    }
    result["conformal"] = conformal_figures(tested, calibration)
    return result | _groups(tested, data), calibration


def _groups(tested: Predictions, data: DataSet) -> dict[str, Any]:
    """The figures of the protected group and of each further protected column; why there are none, if groups exist."""
    favourable = tested.favourable
    if favourable is None:
        return {} if tested.groups is None else {"groups": "no class is favourable in all episodes"}
    found = {} if tested.groups is None else {"groups": group_figures(tested, favourable)}
    ids = None if tested.members is None else tested.members.query_ids
    if ids is None or not data.protected():
        return found
    columns = {}
    for column, (names, codes) in data.protected().items():
        grouped = dataclasses.replace(tested, groups=codes[ids], group_names=tuple(names))
        columns[column] = group_figures(grouped, favourable)
    return found | {"protected": columns}


def favourable_label(learner: Learner, data: DataSet) -> int | None:
    """The label of the favourable class: that of the objective, or 1 if the data have one; None if there is none."""
    config = learner.objective.config
    if isinstance(config, FairnessConfig):
        return config.favourable_label
    return 1 if data.facts().get("favourable") is not None else None
