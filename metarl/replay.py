"""Experience kept for many iterations: a ring of rows that is appended to and never copied whole."""

from collections.abc import Mapping

import torch
from jaxtyping import Int
from torch import Tensor

from metarl.errors import UsageError
from metarl.tasks import check_count


class ReplayBuffer:
    """The last `capacity` rows of named tensors; every append has the same names, shapes and dtypes.

    Rows are numbered from 0 in the order in which they came, `count` is how many have come. An agent that returns its
    buffers from `Agent.buffers` has the rows of each iteration appended to files of the run folder.

    >>> buffer = ReplayBuffer(capacity=1000)
    >>> buffer.append({"rewards": torch.zeros(50), "observations": torch.zeros(50, 3)})
    >>> batch = buffer.sample(16, torch.Generator().manual_seed(0))
    >>> batch["observations"].shape
    torch.Size([16, 3])
    """

    def __init__(self, capacity: int, device: torch.device | str = "cpu"):
        check_count("capacity", capacity)
        self.capacity = capacity
        self.device = torch.device(device)
        self.count = 0
        """Rows that have ever been appended."""
        self._rows: dict[str, Tensor] = {}

    def __len__(self) -> int:
        """Rows that are there."""
        return min(self.count, self.capacity)

    def append(self, rows: Mapping[str, Tensor]) -> None:
        """Adds rows, each tensor `[n, ...]`; the oldest make room. Raises `UsageError` for rows unlike the first."""
        lengths = {len(value) for value in rows.values()}
        if len(lengths) != 1:
            raise UsageError(f"rows of a buffer need the same leading size, got {sorted(lengths)}")
        (length,) = lengths
        if not self._rows:
            self._rows = {
                name: torch.empty(self.capacity, *value.shape[1:], dtype=value.dtype, device=self.device)
                for name, value in rows.items()
            }
        self._check(rows)
        kept = min(length, self.capacity)
        places = torch.arange(self.count + length - kept, self.count + length, device=self.device) % self.capacity
        for name, value in rows.items():
            self._rows[name][places] = value[length - kept :].to(self.device)
        self.count += length

    def sample(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """`count` rows drawn uniformly with replacement. Raises `UsageError` if there are none."""
        if not len(self):
            raise UsageError("the buffer is empty: append rows before sampling")
        places = torch.randint(len(self), (count,), generator=generator, device=generator.device)
        return self.at(places + (self.count - len(self)))

    def at(self, numbers: Int[Tensor, "n"]) -> dict[str, Tensor]:
        """The rows with these `numbers`, each of the last `capacity`."""
        places = numbers.to(self.device) % self.capacity
        return {name: value[places] for name, value in self._rows.items()}

    def rows(self, first: int, last: int) -> dict[str, Tensor]:
        """Rows `first` to `last` (exclusive) that are still there, oldest first."""
        first, last = max(first, self.count - len(self)), min(last, self.count)
        return self.at(torch.arange(first, max(first, last)))

    def restore(self, count: int, rows: Mapping[str, Tensor]) -> None:
        """Makes this the buffer that had seen `count` rows, the last of which are `rows`."""
        self._rows, self.count = {}, 0
        if rows:
            self.count = count - len(next(iter(rows.values())))
            self.append(rows)

    def _check(self, rows: Mapping[str, Tensor]) -> None:
        for name in rows.keys() ^ self._rows.keys():
            raise UsageError(f"rows of this buffer have {', '.join(self._rows)}: {name!r} does not fit")
        for name, value in rows.items():
            place = self._rows[name]
            if value.dtype != place.dtype or value.shape[1:] != place.shape[1:]:
                wanted, got = (f"{list(t.shape[1:])} {t.dtype}" for t in (place, value))
                raise UsageError(f"rows of this buffer have {name!r} of {wanted}, got {got}")
