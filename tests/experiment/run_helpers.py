"""Small runs of the hill climber, and how to compare two."""

from dataclasses import replace
from pathlib import Path

import torch

import metarl
from metarl.experiment.checkpoints import load_checkpoint
from metarl.experiment.metrics import read_metrics

TIMES = {"wall_seconds", "steps_per_second"}


def config(output: Path, **options) -> metarl.TrainConfig:
    base = metarl.TrainConfig(
        "hill-climber", "PointNavigation-v0", {"horizon": 10}, iterations=12, seed=3, checkpoint_every=4
    )
    return replace(base, output=output, **options)


def timeless(run: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_metrics(run)]


def assert_same_run(left: Path, right: Path) -> None:
    """Equal metrics apart from times, and bit-identical checkpoints."""
    assert timeless(left) == timeless(right)
    a, b = load_checkpoint(left), load_checkpoint(right)
    assert (a.iteration, a.env_steps, a.values, a.buffers) == (b.iteration, b.env_steps, b.values, b.buffers)
    assert a.tensors.keys() == b.tensors.keys()
    assert all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)
