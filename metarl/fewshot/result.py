"""The test of a few-shot run, for every shape of its test episodes, and the file with its result."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metarl.experiment.files import write_atomically
from metarl.experiment.progress import Progress
from metarl.fewshot.data import DataSet
from metarl.fewshot.episodes import EpisodeShape
from metarl.fewshot.evaluation import evaluate
from metarl.fewshot.learner import Learner
from metarl.threads import torch_threads

RESULT = "evaluation.json"
"""The file's name in the run folder."""


def measure(
    learner: Learner,
    data: DataSet,
    shapes: Sequence[EpisodeShape],
    *,
    episodes: int,
    split: str = "test",
    seed: int,
    baselines: bool = False,
    show: bool = True,
) -> dict[str, Any]:
    """The result of `evaluate` for the first of `shapes`, with those for the other shapes as the list `further`.

    `baselines` are measured for the first shape, if the data have any. `show` displays the progress on stderr.
    """
    results: list[dict[str, Any]] = []
    total = episodes * len(shapes)
    with torch_threads(), Progress("test", enabled=show) as bar:

        def report(done: int) -> None:
            done += len(results) * episodes
            bar.update(done / total, f"test episode {done}/{total}")

        for shape in shapes:
            how: dict[str, Any] = {"episodes": episodes, "shape": shape, "split": split, "seed": seed}
            results.append(evaluate(learner, data, **how, baselines=baselines and not results, report=report))
    return results[0] | ({"further": results[1:]} if len(results) > 1 else {})


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Writes a result as JSON."""
    write_atomically(path, json.dumps(result, indent=2) + "\n")
