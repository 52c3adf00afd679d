"""Pictures that are decoded when they are drawn, once, and kept in a file from then on.

Opening looks at `checked` pictures, evenly spaced, to decide how all are read. The inputs of all pictures lie in a
file in the user's cache folder (`XDG_CACHE_HOME`), mapped to memory and empty at first; a second file has the CRC-32 of
each picture that is filled in, so that what a crash left half written is decoded again.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from metarl.errors import UsageError
from metarl.experiment.files import write_atomically
from metarl.fewshot.data import DataConfig
from metarl.fewshot.data.cache_folder import cache_folder
from metarl.fewshot.data.picture_files import Background, Reading, Survey, Thumbnail, grey, read_picture, shown
from metarl.fewshot.episodes import CHECKED_BYTES, Pool
from metarl.tasks import check_count

CHECKED = 1000
"""Pictures that opening looks at."""
_THREADS = 4
_CHUNK_BYTES = 2**25
"""Most bytes of pictures decoded between writes."""
_KEPT_BYTES = 2**26
"""Most bytes of pictures that are kept from looking at them, to be filled in without decoding them again."""
_FORMAT = 1


@dataclass(frozen=True)
class PictureConfig(DataConfig):
    """Options of data sets of picture files.

    >>> from metarl.fewshot.data.picture_cache import PictureConfig
    >>> PictureConfig(background="black").checked
    1000
    """

    validation: bool = False
    """Test on the validation classes or pictures, which are never used for training."""
    background: Background = "white"
    """What shows through transparent parts."""
    keep_constant: bool = False
    """Take pictures whose pixels are all alike, which are refused otherwise."""
    checked: int = CHECKED
    """Pictures that opening looks at to decide how all are read. The others are checked when they are drawn."""

    def __post_init__(self) -> None:
        check_count("checked", self.checked)

    def options(self, size: int, channels: int | None) -> "PictureOptions":
        return PictureOptions(size, channels, self.background, self.keep_constant, self.checked)


@dataclass(frozen=True)
class PictureOptions:
    """How the pictures of a data set are read.

    >>> from metarl.fewshot.data.picture_cache import PictureOptions
    >>> PictureOptions(size=84).channels is None
    True
    """

    size: int
    channels: int | None = None
    """1 for grey, 3 for colour; colour if one picture is, if not given."""
    background: Background = "white"
    keep_constant: bool = False
    """Take pictures whose pixels are all alike."""
    checked: int = CHECKED

    def thumbnail(self, path: Path | str, what: str) -> Thumbnail:
        """The picture in a file, at the size of the data set. Error lines call it `what`."""
        thumbnail = Thumbnail.of(read_picture(path, what, self.background), self.size)
        return grey(thumbnail) if self.channels == 1 else thumbnail


@dataclass(frozen=True)
class PictureReader:
    """Reads further files as those of a data set.

    >>> from PIL import Image
    >>> from metarl.fewshot.data.picture_cache import PictureOptions, PictureReader
    >>> from metarl.fewshot.data.picture_files import Reading
    >>> Image.linear_gradient("L").save("grey.png")
    >>> PictureReader(PictureOptions(28), Reading(28, 1)).read("grey.png").shape
    (1, 28, 28)
    """

    options: PictureOptions
    reading: Reading
    looked_at: int = 0
    """Pictures by which it was decided how to read all."""
    description: str = ""
    """How that is, in words."""

    def read(self, path: Path | str) -> Shaped[np.ndarray, "C size size"]:
        """Raises `UsageError` for a file that is no picture, or one unlike those of the data set."""
        return self.input(self.options.thumbnail(path, shown(path)), shown(path))

    def input(self, thumbnail: Thumbnail, what: str) -> Shaped[np.ndarray, "C size size"]:
        """The input of a picture that is read; error lines call it `what`."""
        misfit = self.reading.misfit(thumbnail)
        if misfit is not None:
            raise UsageError(
                f"{what} is {misfit}, unlike the {self.looked_at} pictures by which it was decided how to read all "
                f"({self.description}); --checked N looks at N of them first"
            )
        if thumbnail.is_constant and not self.options.keep_constant:
            raise UsageError(_constant_line(f"{what} is", self.options.background, self.options.size))
        return self.reading(thumbnail)


class PictureCache:
    """The inputs of n picture files `[n, C, size, size]`: uint8, or float32 if 8 bits would lose detail.

    `names` are the files below `root`, `stamps` their bytes and times of modification. Raises `UsageError` for files
    that cannot be read, for constant pictures, and for pictures unlike those looked at first.

    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from metarl.fewshot.data.picture_cache import PictureCache, PictureOptions
    >>> Image.linear_gradient("L").save("grey.png")
    >>> cache = PictureCache("mine", Path(), ["grey.png"], [(1, 1)], PictureOptions(size=28))
    >>> cache[torch.tensor([0, 0])].shape
    torch.Size([2, 1, 28, 28])
    """

    def __init__(
        self, label: str, root: Path, names: Sequence[str], stamps: Sequence[tuple[int, int]], options: PictureOptions
    ):
        self.label, self.root, self.names, self.options = label, root, names, options
        self._sizes = [size for size, _ in stamps]
        self._base = _cache_base(label, root, names, stamps, options)
        self._known = np.zeros(len(names), bool)
        findings = self._base.with_suffix(".json")
        found = _read_findings(findings)
        if found is not None:
            self.survey, self.reading = found
            self._open()
            return
        self.survey, kept = self._look()
        self.reading = self.survey.reading(options.size, options.channels)
        self._open()
        self._store((row, self.reading(thumbnail)) for row, thumbnail in kept.items())
        with self._writing():
            entries = {"survey": dataclasses.asdict(self.survey), "reading": dataclasses.asdict(self.reading)}
            write_atomically(findings, json.dumps(entries))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: Int[Tensor, "..."]) -> Shaped[Tensor, "... C size size"]:
        """The inputs of `rows`; decodes those that were not drawn before."""
        self._fill(np.unique(rows.numpy()))
        return torch.from_numpy(self._inputs)[rows]

    @property
    def looked_at(self) -> Int[np.ndarray, "k"]:
        """The rows by which it is decided how all are read, evenly spaced."""
        return np.linspace(0, len(self) - 1, min(len(self), self.options.checked)).round().astype(np.int64)

    def read(self, path: Path | str) -> Shaped[np.ndarray, "C size size"]:
        """The input of another file, read as those of the data set are."""
        return self.reader.read(path)

    def checksum(self, rows: Int[Tensor, "n"], crc: int = 0) -> int:
        """Goes on with the CRC-32 `crc` over the files of `rows`: all names and sizes, and the bytes of every k-th.

        It reads `CHECKED` files and `CHECKED_BYTES` bytes at most.
        """
        chosen = rows.tolist()
        crc = zlib.crc32(repr((self.reading, [(self.names[row], self._sizes[row]) for row in chosen])).encode(), crc)
        total = max(1, sum(self._sizes[row] for row in chosen))
        step = max(1, -(-len(chosen) // CHECKED), -(-total // CHECKED_BYTES))
        for row in chosen[::step]:
            try:
                crc = zlib.crc32((self.root / self.names[row]).read_bytes(), crc)
            except OSError as error:
                raise UsageError(f"{self._shown(row)} cannot be read: {error.strerror}") from None
        return crc

    def _fill(self, rows: Int[np.ndarray, "n"]) -> None:
        """Decodes those of `rows` that are not in the file yet."""
        rows = rows[~self._known[rows]]
        intact = np.array([self._sums[row] != 0 and self._sums[row] == _sum(self._inputs[row]) for row in rows], bool)
        self._known[rows[intact]] = True
        missing, reader = rows[~intact].tolist(), self.reader
        for chunk in self._chunks(missing):
            self._store((row, reader.input(thumbnail, self._shown(row))) for row, thumbnail in self._decode(chunk))

    @property
    def reader(self) -> "PictureReader":
        """What reads a file as those of the data set are read."""
        return PictureReader(self.options, self.reading, self.survey.count, self.describe())

    def describe(self) -> str:
        """How the pictures are read, in words."""
        reading, survey = self.reading, self.survey
        words = ["colour" if reading.channels == 3 else "grey"]
        if survey.byte and reading.byte != 255:
            words.append(f"8-bit files with {reading.byte:g} as white")
        if reading.deep is not None and survey.deep is not None:
            (low, white), (least, most) = reading.deep, survey.deep
            scale = f"{low:g} as black and {white:g} as white"
            words.append(f"files of more than 8 bits with {scale} (values {least:g} to {most:g})")
        return ", ".join(words)

    def summary(self) -> list[str]:
        """How the pictures were read, in lines for people."""
        size, survey = self.options.size, self.survey
        lines = [f"{len(self)} pictures, read as {size} × {size}, {self.describe()}"]
        for trait, count in survey.traits.items():
            shown_over = f" (over {self.options.background})" if trait.startswith("transparent") else ""
            lines.append(f"{count} of {survey.count} pictures have {trait}{shown_over}")
        if survey.constant:
            lines.append(f"{survey.constant} of {survey.count} pictures are constant and kept")
        sums = self._sums[self.looked_at]
        counts = np.unique(sums[sums != 0], return_counts=True)[1]
        if (counts > 1).any():
            lines.append(
                f"{int(counts[counts > 1].sum())} of {survey.count} pictures look like another at this size: if they "
                "are copies, remove them, for they make the test too easy"
            )
        if survey.count < len(self):
            lines.append(f"{survey.count} of them were looked at to decide so; the others are checked when drawn")
        return lines

    def _look(self) -> tuple[Survey, dict[int, Thumbnail]]:
        """Looks at pictures, evenly spaced; keeps as many as memory allows. Raises `UsageError` for constant ones."""
        rows = self.looked_at.tolist()
        survey, kept, kept_bytes = Survey(), {}, 0
        for chunk in self._chunks(rows):
            for row, thumbnail in self._decode(chunk):
                survey.add(thumbnail, self._shown(row))
                kept_bytes += thumbnail.values.nbytes
                if kept_bytes <= _KEPT_BYTES:
                    kept[row] = thumbnail
        if survey.constant and not self.options.keep_constant:
            looked = f"{survey.constant} of {survey.count} pictures {'is' if survey.constant == 1 else 'are'}"
            line = _constant_line(looked, self.options.background, self.options.size, survey.first_constant)
            raise UsageError(f"{self.label}: {line}")
        return survey, kept

    def _chunks(self, rows: Sequence[int]) -> Iterator[Sequence[int]]:
        """Rows to decode together."""
        step = max(1, _CHUNK_BYTES // (12 * self.options.size**2))
        return (rows[start : start + step] for start in range(0, len(rows), step))

    def _decode(self, rows: Sequence[int]) -> list[tuple[int, Thumbnail]]:
        paths = [self.root / self.names[row] for row in rows]
        with warnings.catch_warnings(), ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
            warnings.simplefilter("ignore")  # Pillow's, of metadata that it cannot read
            return list(zip(rows, threads.map(self.options.thumbnail, paths, map(shown, paths)), strict=True))

    def _shown(self, row: int) -> str:
        return shown(self.root / self.names[row])

    def _open(self) -> None:
        """Maps both files, which are made if they are not there, or not whole."""
        shape, sums = (len(self), *self.reading.shape), np.dtype(np.uint32)
        arrays = []
        for suffix, dtype, wanted in ((".inputs", self.reading.dtype, shape), (".sums", sums, shape[:1])):
            path = self._base.with_suffix(suffix)
            with self._writing():
                path.parent.mkdir(parents=True, exist_ok=True)
                size = int(np.prod(wanted, dtype=np.int64)) * dtype.itemsize
                if not path.is_file() or path.stat().st_size != size:
                    with path.open("ab") as file:
                        file.truncate(size)  # zeros that take no space
                arrays.append(np.memmap(path, dtype, "r+", shape=wanted))
        self._inputs, self._sums = arrays

    def _store(self, inputs: Iterable[tuple[int, np.ndarray]]) -> None:
        """Writes inputs by ordinary calls, because a full disk kills a process that writes to mapped memory."""
        files = [self._base.with_suffix(suffix) for suffix in (".inputs", ".sums")]
        with self._writing(), files[0].open("r+b") as values_file, files[1].open("r+b") as sums_file:
            for row, values in inputs:
                values_file.seek(row * values.nbytes)
                values_file.write(values.tobytes())
                values_file.flush()
                sums_file.seek(row * self._sums.itemsize)
                sums_file.write(_sum(values).tobytes())
                self._known[row] = True

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A context in which a failure to write becomes a `UsageError`."""
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"{self.label}: cannot write the decoded pictures to {shown(self._base)}.*: {error.strerror}"
            ) from None


class PicturePool(Pool):
    """A pool of pictures, the `rows` of a cache. `inputs` decodes all of them; drawing episodes only what is drawn.

    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from metarl.fewshot.data.picture_cache import PictureCache, PictureOptions, PicturePool
    >>> Image.linear_gradient("L").save("grey.png")
    >>> cache = PictureCache("mine", Path(), ["grey.png"], [(1, 1)], PictureOptions(size=28))
    >>> PicturePool(cache, torch.tensor([0]), torch.tensor([5])).examples(torch.tensor([0])).shape
    torch.Size([1, 1, 28, 28])
    """

    def __init__(self, pictures: PictureCache, rows: Int[Tensor, "n"], labels: Int[Tensor, "n"], **names: Any):
        super().__init__(rows, labels, **names)
        self.pictures = pictures

    @property
    def inputs(self) -> Shaped[Tensor, "n C H W"]:
        return self.pictures[self._inputs]

    def examples(self, index: Int[Tensor, "..."]) -> Shaped[Tensor, "... C H W"]:
        return self.pictures[self._inputs[index]]

    def checksum(self, crc: int = 0) -> int:
        crc = self.pictures.checksum(self._inputs, crc)
        for values in (self.classes, self.counts):
            crc = zlib.crc32(values.numpy(), crc)
        return crc


def _constant_line(whose: str, background: Background, size: int, first: str | None = None) -> str:
    other = "black" if background == "white" else "white"
    named = "" if first is None else f", first {first}"
    return (
        f"{whose} constant at {size} × {size}{named}: remove such pictures, or say --keep-constant, "
        f"or --background {other} if they are drawn in {background} on transparent ground"
    )


def _sum(values: np.ndarray) -> np.uint32:
    """The CRC-32, with 1 for 0, which stands for what is not there."""
    return np.uint32(zlib.crc32(np.ascontiguousarray(values).data) or 1)


def _cache_base(
    label: str, root: Path, names: Sequence[str], stamps: Sequence[tuple[int, int]], options: PictureOptions
) -> Path:
    """The cache files without suffix, named by the options and by the paths, sizes and times of the pictures."""
    digest = hashlib.sha256(repr((_FORMAT, os.path.abspath(root), options)).encode())
    for name, stamp in zip(names, stamps, strict=True):
        digest.update(repr((name, stamp)).encode())
    return cache_folder() / f"{label}-{options.size}-{digest.hexdigest()[:16]}"


def _read_findings(path: Path) -> tuple[Survey, Reading] | None:
    """What was found when the pictures were first looked at; None if that is not known."""
    try:
        entries = json.loads(path.read_text())
        survey, reading = Survey(**entries["survey"]), Reading(**entries["reading"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    pairs = [None if deep is None else (deep[0], deep[1]) for deep in (survey.deep, reading.deep)]
    return dataclasses.replace(survey, deep=pairs[0]), dataclasses.replace(reading, deep=pairs[1])
