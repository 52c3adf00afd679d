"""Training in several processes: the first rank leads and writes the run folder, the others follow it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from metarl.errors import UsageError
from metarl.experiment.engine import Training
from metarl.experiment.interrupts import Interrupts
from metarl.experiment.options import option_differences
from metarl.parallel import Ranks, restarts
from metarl.threads import torch_threads

SUMMED = ("env_steps", "faults")
"""The metrics of a rank that count something. All others are means over its tasks, or the same on every rank."""
DRIFT = 1e-3
"""Relative difference between the parameters of two ranks that rounding does not explain."""


def call(ranks: Ranks, iteration: int | None) -> int | None:
    """The iteration that the first rank calls, or None if its training is over, on every rank."""
    return ranks.gather_values(iteration)[0]


def follow(ranks: Ranks, training: Training) -> None:
    """Takes part in each iteration that the first rank calls, and writes nothing."""
    with torch_threads(training.threads), Interrupts():
        iteration = call(ranks, None)
        while iteration is not None:
            training.iterate(iteration)
            iteration = call(ranks, None)


def merged_metrics(ranks: Ranks, metrics: dict[str, int | float]) -> dict[str, int | float]:
    """The metrics of an iteration over all ranks, which have the same number of tasks each."""
    if ranks.world_size == 1:
        return metrics
    every = ranks.gather_values(metrics)
    merged: dict[str, int | float] = {}
    for name in dict.fromkeys(name for own in every for name in own):
        values = [own[name] for own in every if name in own]
        merged[name] = sum(values) if name in SUMMED else sum(values) / len(values)
    return merged


def check_same_state(ranks: Ranks, tensors: Mapping[str, Tensor], title: str) -> None:
    """Raises `UsageError` if the ranks no longer train the same parameters."""
    if ranks.world_size == 1:
        return
    every = ranks.gather_values({name: float(value.double().abs().sum()) for name, value in tensors.items()})
    for name, first in every[0].items():
        for rank, own in enumerate(every):
            same = math.isclose(own[name], first, rel_tol=DRIFT, abs_tol=DRIFT)
            if not same and math.isfinite(own[name] + first):
                raise UsageError(
                    f"{title}: {name} is not the same on rank 0 and rank {rank}: the agent does not share its tasks "
                    "out exactly, or the machines compute differently; train it in one process"
                )


def check_same_configuration(ranks: Ranks, configuration: Mapping[str, Any]) -> None:
    """Raises `UsageError` if another rank has been started with another `configuration` than the first."""
    for rank, own in enumerate(every := ranks.gather_values(configuration)):
        changes = option_differences(every[0], own)
        if changes:
            raise UsageError(f"rank {rank} was started otherwise than rank 0: {', '.join(changes.values())}")


def check_restarts(output: Path | str | None) -> None:
    """Raises `UsageError` if torchrun may start the ranks anew and no `output` says where they find the run."""
    if restarts()[1] and output is None:
        raise UsageError("torchrun --max-restarts goes on with the run that it finds: name its folder, --output DIR")


def begun_before(ranks: Ranks, output: Path | str | None) -> bool:
    """Whether torchrun has started the ranks anew and `output` holds what they had begun.

    Each node counts its own failures: one that has had none does not know of the restart.
    """
    restarted = ranks.any(restarts()[0] > 0)
    return ranks.from_first(lambda: restarted and (Path(output or "") / "config.yaml").exists())
