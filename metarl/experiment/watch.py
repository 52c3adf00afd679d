"""Watching a run: iterations that diverge, and a disk that takes nothing, are counted, and end the run if they last."""

import math
import sys
from collections.abc import Mapping
from pathlib import Path

from metarl.errors import NumericalFault, StorageFault, UsageError

MAX_DIVERGENT = 3
"""Iterations in a row that may diverge, unless the run has its own bound."""
MAX_FAILED_SAVES = 3
"""Checkpoints in a row that may fail to be written."""


class DivergenceWatch:
    """Counts the iterations in a row in which a metric is above its bound or not finite.

    `bounds` maps the name of a metric to its bound, infinity if it only has to be finite. More than `most` such
    iterations in a row raise `NumericalFault`.

    >>> from metarl.experiment.watch import DivergenceWatch
    >>> watch = DivergenceWatch({"kl": 5.0}, most=1)
    >>> watch.see({"kl": 7.0}), watch.see({"kl": 0.1}), watch.see({"kl": float("nan")})
    (1, 0, 1)
    """

    def __init__(self, bounds: Mapping[str, float], most: int | None = None):
        self._bounds = bounds
        self.most = MAX_DIVERGENT if most is None else most
        self.in_row = 0
        """Iterations in a row, up to the last, that diverged."""

    def see(self, metrics: Mapping[str, int | float]) -> int:
        """Looks at the metrics of an iteration: 1 if it diverged, else 0."""
        found = next((name for name, bound in self._bounds.items() if not _is_below(metrics.get(name, 0.0), bound)), "")
        self.in_row = self.in_row + 1 if found else 0
        if self.in_row > self.most:
            bound = self._bounds[found]
            allowed = "which has to be finite" if bound == math.inf else f"of at most {bound:g}"
            raise NumericalFault(
                f"{self.in_row} iterations in a row diverged, of which --max-divergent tolerates {self.most}: "
                f"{found} is {metrics[found]:.4g}, {allowed}. Lower the step sizes, or raise --max-divergent on resume"
            )
        return int(bool(found))


class DiskWatch:
    """Counts what the disk of a run folder refuses.

    >>> from pathlib import Path
    >>> from metarl.experiment.watch import DiskWatch
    >>> watch = DiskWatch(Path("run"))
    >>> watch.failed(OSError(28, "No space left on device"))
    >>> watch.take_count()
    1
    """

    def __init__(self, run: Path):
        self._run = run
        self._count = self._saves = 0

    def failed(self, error: OSError) -> None:
        """Notes a refusal, and says the first of several."""
        if not self._count and not self._saves:
            print(f"metarl: {_refusal(self._run, error)}; training goes on and tries again", file=sys.stderr)
        self._count += 1

    def save_failed(self, error: OSError) -> None:
        """Notes a checkpoint that was not written; raises `StorageFault` for too many in a row."""
        self.failed(error)
        self._saves += 1
        if self._saves >= MAX_FAILED_SAVES:
            raise self.fault(error) from error

    def saved(self) -> None:
        """Notes a checkpoint that was written."""
        self._saves = 0

    def take_count(self) -> int:
        """The refusals since the last call."""
        count, self._count = self._count, 0
        return count

    def fault(self, error: OSError) -> StorageFault:
        """The exception that ends the run."""
        return StorageFault(f"{_refusal(self._run, error)}: make room or make it writable, then resume the run")


def check_max_divergent(most: int | None) -> None:
    """Raises `UsageError` unless `most` is None or a whole number of at least 0."""
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 0):
        raise UsageError(f"max_divergent must be a whole number of at least 0, got {most!r}")


def check_max_hours(hours: float | None) -> None:
    """Raises `UsageError` unless `hours` is None or a positive number."""
    if hours is not None and not (isinstance(hours, int | float) and 0 < hours < math.inf):
        raise UsageError(f"max_hours must be a positive number, got {hours!r}")


def _is_below(value: float, bound: float) -> bool:
    return value <= bound and math.isfinite(value)


def _refusal(run: Path, error: OSError) -> str:
    return f"cannot write {error.filename or run}: {error.strerror or error}"
