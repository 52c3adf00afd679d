"""Replay buffers: experience kept for many iterations, appended to and never copied as a whole."""

from collections.abc import Mapping

import torch
from jaxtyping import Int
from torch import Tensor

from metarl.errors import UsageError
from metarl.tasks import check_count


class ReplayBuffer:
    """A ring buffer of the last `capacity` rows of named tensors. All rows have the same names, shapes and dtypes.

    Rows are numbered from 0 in the order in which they were appended; `count` is the number of rows ever appended. If
    an agent returns a buffer from `Agent.buffers`, the run folder stores the rows that each iteration appends.

    >>> buffer = metarl.ReplayBuffer(capacity=1000)
    >>> buffer.append({"rewards": torch.zeros(50), "observations": torch.zeros(50, 3)})
    >>> buffer.sample(16, torch.Generator().manual_seed(0))["observations"].shape
    torch.Size([16, 3])
    """

    def __init__(self, capacity: int, device: torch.device | str = "cpu"):
        check_count("capacity", capacity)
        self.capacity = capacity
        self.device = torch.device(device)
        self.count = 0
        """Rows ever appended."""
        self._rows: dict[str, Tensor] = {}

    def __len__(self) -> int:
        """Rows in the buffer."""
        return min(self.count, self.capacity)

    def append(self, rows: Mapping[str, Tensor]) -> None:
        """Appends rows, each tensor `[n, ...]`, and drops the oldest if full.

        Raises `UsageError` for names, shapes or dtypes that differ from those of the first rows.
        """
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

    def sample(self, count: int, generator: torch.Generator, part: slice = slice(None)) -> dict[str, Tensor]:
        """Draws `count` rows uniformly with replacement; returns the `part` of them that is asked for.

        Raises `UsageError` if the buffer is empty.
        """
        if not len(self):
            raise UsageError("the buffer is empty: append rows before sampling")
        places = torch.randint(len(self), (count,), generator=generator, device=generator.device)[part]
        return self.at(places + (self.count - len(self)))

    def at(self, numbers: Int[Tensor, "..."], *names: str) -> dict[str, Tensor]:
        """The rows with these `numbers`, which must be among the last `capacity`; only the fields `names` if given."""
        places = numbers.to(self.device) % self.capacity
        return {name: self._rows[name][places] for name in names or self._rows}

    def rows(self, first: int, last: int) -> dict[str, Tensor]:
        """The rows numbered `first` to `last` (exclusive) that are still in the buffer, oldest first."""
        first, last = max(first, self.count - len(self)), min(last, self.count)
        return self.at(torch.arange(first, max(first, last)))

    def restore(self, count: int, rows: Mapping[str, Tensor]) -> None:
        """Restores a buffer to which `count` rows had been appended; `rows` are the last of them."""
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
