"""Replay buffers in the run folder: the rows of each iteration are appended to files, and nothing is copied as a whole.

`buffers/NAME/header.json` has the capacity, and dtype and shape of each field of a row. `FIELD-000003.bin` holds the
raw values of one field for `capacity` rows, one row after the other. A checkpoint records how many rows belong to it,
and the CRC-32 of each file it needs, which is updated as rows are appended. Files that no kept checkpoint needs are
deleted: the disk holds at most two capacities of rows and those appended since the oldest checkpoint.
"""

import contextlib
import json
import math
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from metarl.errors import UsageError
from metarl.experiment.files import remove_temporaries, sync_folder, write_atomically
from metarl.parsing import LARGEST, is_count, parse_json, printable
from metarl.replay import ReplayBuffer

_NAME = re.compile(r"\w[\w.-]{0,59}")  # with four bytes a character, file systems still take it
_SEGMENT = re.compile(r"(.+)-(\d{6,})\.bin")


class BufferFiles:
    """The files of an agent's buffers: the rows in a checkpoint's `record`, and the rows appended since.

    Rows in the files beyond the record are cut off: a killed run may have written them after its last checkpoint.

    >>> from pathlib import Path
    >>> from metarl.experiment.buffers import BufferFiles
    >>> buffer = metarl.ReplayBuffer(capacity=100)
    >>> files = BufferFiles(Path("run"), {"replay": buffer}, {})
    >>> buffer.append({"rewards": torch.zeros(5)})
    >>> files.append()
    >>> files.record()["replay"]["count"]
    5
    """

    def __init__(self, run: Path, buffers: Mapping[str, ReplayBuffer], record: Mapping[str, Any]):
        self._files = {
            name: _Files(_folder(run, name), buffer, record.get(name, _EMPTY)) for name, buffer in buffers.items()
        }

    def append(self) -> None:
        """Writes the rows that the buffers have received since the last call."""
        for files in self._files.values():
            files.append()

    def record(self) -> dict[str, Any]:
        """What a checkpoint has to store: the number of rows, and the checksums of the last `capacity` of them."""
        return {name: files.record() for name, files in self._files.items()}

    def sync(self) -> None:
        """Waits until all appended rows are on disk. Call it before writing a checkpoint that needs them."""
        for files in self._files.values():
            files.sync()

    def prune(self, oldest: Mapping[str, Any]) -> None:
        """Deletes the files that neither the checkpoint with the record `oldest` nor any later one needs."""
        for name, files in self._files.items():
            if name in oldest:
                files.prune(oldest[name]["stored"])


def restore_buffers(run: Path, buffers: Mapping[str, ReplayBuffer], record: Mapping[str, Any]) -> None:
    """Fills `buffers` with the rows that a checkpoint recorded. Changes no file.

    Raises `UsageError` if files are missing, too short, altered, or of other buffers.
    """
    if record.keys() != buffers.keys():
        raise UsageError(f"{run}: its buffers are {_listed(record)}, the agent has {_listed(buffers)}")
    for name, buffer in buffers.items():
        rows = _read(_folder(run, name), buffer, record[name])
        try:
            buffer.restore(record[name]["count"], rows)
        except RuntimeError as error:  # a buffer of more rows than memory has room for
            raise UsageError(f"{run}: the buffer {name!r} cannot be restored: {printable(str(error))}") from None


_EMPTY: dict[str, Any] = {"count": 0, "stored": 0, "checksums": {}}


class _Files:
    """The files of one buffer. `stored` counts the rows written; a segment holds `capacity` of them."""

    def __init__(self, folder: Path, buffer: ReplayBuffer, record: Mapping[str, Any]):
        self.folder, self.buffer = folder, buffer
        self.count, self.stored = int(record["count"]), int(record["stored"])
        self.checksums: dict[str, int] = dict(record["checksums"])
        self.unsynced: set[Path] = set()
        self._cut()

    def append(self) -> None:
        # An iteration may append more rows than the buffer holds. Rows that it has already dropped are never stored.
        rows = self.buffer.rows(self.count, self.buffer.count) if self.buffer.count > self.count else {}
        length = len(next(iter(rows.values()))) if rows else 0
        if not length:
            self.count = self.buffer.count
            return
        checksums, last = dict(self.checksums), self.stored + length
        try:
            self._check_header(rows)
            for start, end, segment in _pieces(self.stored, last, self.buffer.capacity):
                for field, value in rows.items():
                    self._write(_segment_name(field, segment), value[start - self.stored : end - self.stored])
        except OSError:  # as if nothing had been written
            self.checksums = checksums
            with contextlib.suppress(OSError):
                self._cut()
            raise
        self.count, self.stored = self.buffer.count, last

    def record(self) -> dict[str, Any]:
        needed = {segment for _, _, segment in _needed(self.stored, self.count, self.buffer.capacity)}
        self.checksums = {name: crc for name, crc in self.checksums.items() if _segment_of(name) in needed}
        return {"count": self.count, "stored": self.stored, "checksums": dict(self.checksums)}

    def sync(self) -> None:
        if not self.unsynced:
            return
        for path in list(self.unsynced):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(self.folder)
        self.unsynced.clear()

    def prune(self, stored: int) -> None:
        capacity = self.buffer.capacity
        for path, segment in _segments(self.folder):
            if (segment + 1) * capacity <= stored - capacity:
                path.unlink()

    def _write(self, name: str, rows: Tensor) -> None:
        data, path = _to_bytes(rows), self.folder / name
        with path.open("ab") as file:
            file.write(data)
        self.checksums[name] = zlib.crc32(data, self.checksums.get(name, 0))
        self.unsynced.add(path)

    def _check_header(self, rows: Mapping[str, Tensor]) -> None:
        """Writes the header before the first row."""
        if self.stored:
            return
        for field in rows:
            _check_name("field", field)
        fields = {name: {"dtype": _dtype_name(v.dtype), "shape": list(v.shape[1:])} for name, v in rows.items()}
        header = {"capacity": self.buffer.capacity, "fields": fields}
        write_atomically(self.folder / "header.json", json.dumps(header, indent=2) + "\n")

    def _cut(self) -> None:
        """Removes what lies beyond the `stored` rows."""
        remove_temporaries(self.folder)
        sizes = {}
        if self.stored:
            header = _read_header(self.folder, self.buffer)
            sizes = {name: math.prod(shape) * dtype.itemsize for name, (dtype, shape) in header.items()}
        for path, segment in _segments(self.folder):
            rows = self.stored - segment * self.buffer.capacity
            size = sizes.get(_field_of(path.name))
            if rows <= 0 or size is None:
                path.unlink()
            elif rows < self.buffer.capacity:
                os.truncate(path, rows * size)


def _read(folder: Path, buffer: ReplayBuffer, record: Mapping[str, Any]) -> dict[str, Tensor]:
    """Reads the last rows that belong to `record`, as many as the buffer holds."""
    count, stored, capacity = record["count"], record["stored"], buffer.capacity
    if not stored:
        return {}
    if stored < min(count, capacity):
        raise UsageError(f"the record of {folder} is damaged: {stored} of {count} rows, of a buffer of {capacity}")
    rows = {}
    for field, (dtype, shape) in _read_header(folder, buffer).items():
        size = math.prod(shape) * dtype.itemsize
        parts = []
        for start, end, segment in _needed(stored, count, capacity):
            path = folder / _segment_name(field, segment)
            data = _read_checked(path, (end - segment * capacity) * size, record["checksums"].get(path.name))
            parts.append(data[(start - segment * capacity) * size :])
        rows[field] = _from_bytes(b"".join(parts), dtype, shape)
    return rows


def _read_checked(path: Path, length: int, checksum: int | None) -> bytes:
    """Reads the first `length` bytes of a file; raises `UsageError` if they are not what was written."""
    try:
        with path.open("rb") as file:
            # Memory for all that is asked for is taken before it is known if the file has it.
            data = file.read(min(length, os.fstat(file.fileno()).st_size))
    except OSError as error:
        raise UsageError(f"buffer file {path} cannot be read: {error.strerror}") from None
    if len(data) < length:
        raise UsageError(f"buffer file {path} is damaged: it has {len(data)} of {length} bytes")
    if zlib.crc32(data) != checksum:
        raise UsageError(f"buffer file {path} is damaged (wrong checksum)")
    return data


def _read_header(folder: Path, buffer: ReplayBuffer) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Dtype and shape of each field of a row."""
    path = folder / "header.json"
    try:
        header = parse_json(path.read_bytes(), str(path))
        capacity = header["capacity"]
        if not is_count(capacity):
            raise ValueError(f"capacity is {capacity!r}")
        fields = {name: (_dtype(entry["dtype"]), _shape(entry["shape"])) for name, entry in header["fields"].items()}
        for name in fields:
            _check_name("field", name)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{path} is missing or damaged: {printable(str(error))}") from None
    if capacity != buffer.capacity:
        raise UsageError(f"{path} is of a buffer of {capacity} rows, the agent's has {buffer.capacity}")
    return fields


def _needed(stored: int, count: int, capacity: int) -> Iterator[tuple[int, int, int]]:
    """The pieces of the rows that a buffer still holds after `count` rows."""
    yield from _pieces(stored - min(count, capacity), stored, capacity)


def _pieces(first: int, last: int, capacity: int) -> Iterator[tuple[int, int, int]]:
    """Start, end and number of each segment's part of the rows `first` to `last` (exclusive)."""
    while first < last:
        segment = first // capacity
        end = min(last, (segment + 1) * capacity)
        yield first, end, segment
        first = end


def _segments(folder: Path) -> list[tuple[Path, int]]:
    """The segment files of a buffer's folder and their numbers."""
    found = [(path, _SEGMENT.fullmatch(path.name)) for path in sorted(folder.glob("*.bin"))]
    return [(path, int(match[2])) for path, match in found if match]


def _segment_name(field: str, segment: int) -> str:
    return f"{field}-{segment:06d}.bin"


def _field_of(name: str) -> str:
    return name.rpartition("-")[0]


def _segment_of(name: str) -> int:
    return int(name.rpartition("-")[2].removesuffix(".bin"))


def _folder(run: Path, name: str) -> Path:
    _check_name("buffer", name)
    return run / "buffers" / name


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        shown = printable(repr(name), 80)
        raise UsageError(f"{what} {shown} cannot name a file: use up to 60 letters, digits, '_', '-' and '.'")


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(names) or "none"


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or dtype.itemsize < 1:
        raise ValueError(f"{name!r} is no dtype")
    return dtype


def _shape(sizes: Any) -> tuple[int, ...]:
    if not isinstance(sizes, list) or not all(map(is_count, sizes)) or math.prod(sizes) > LARGEST >> 8:
        raise ValueError(f"{sizes!r} is no shape")
    return tuple(sizes)


def _to_bytes(rows: Shaped[Tensor, "n ..."]) -> bytes:
    flat = rows.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def _from_bytes(data: bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> Shaped[Tensor, "n ..."]:
    if not data:
        return torch.zeros(0, *shape, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(-1, *shape)
