"""Runs of few-shot learners that take seconds."""

from pathlib import Path
from typing import Any

import metarl.fewshot
from metarl.fewshot import FewShotConfig, FewShotRun


def train_small(
    learner: str,
    data: str,
    data_options: dict[str, Any],
    output: Path,
    *,
    learner_options: dict[str, Any],
    **others: Any,
) -> FewShotRun:
    """A run that has ended, tested on few episodes and without baselines."""
    config = FewShotConfig(
        learner,
        data,
        data_options=data_options,
        learner_options=learner_options,
        output=output,
        **{"episodes": 10, "baselines": False} | others,
    )
    run = metarl.load_run(metarl.fewshot.train(config, progress=False))
    assert isinstance(run, FewShotRun)
    return run
