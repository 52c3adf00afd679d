"""Damaged tables: readers of CSV, Parquet and .npz files answer each in one line, execute nothing and stay small."""

import io
import resource
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from metarl import UsageError
from metarl.fewshot.data import open_data

FILES = {"csv": 20_000, "npz": 20_000, "parquet": 500}
"""Mutated files of each kind; each Parquet file is read in a process of its own, which takes its time to start."""
FEW = {"csv": 60, "npz": 60, "parquet": 4}
MORE_MEMORY = 2**30
"""Bytes that the process may grow by."""
PIECES = (
    b"\x00",
    b'"',
    b"\n",
    b",",
    b";",
    b"\xff\xfe",
    b"1e999",
    b"-1",
    b"9" * 30,
    b"nan",
    b"\\",
    b"\x7f" * 4,
    b"\xff" * 8,
)


def table(rows: int = 24) -> dict[str, list]:
    return {
        "age": [20 + 3 * row for row in range(rows)],
        "dose": [0.5 * row**1.5 for row in range(rows)],
        "city": [("Rome", "Oslo", "Paris")[row % 3] for row in range(rows)],
        "seen": [f"2024-01-{1 + row % 28:02d}" for row in range(rows)],
        "label": [("ill", "well")[row % 2] for row in range(rows)],
    }


def csv_seed() -> bytes:
    return pl.DataFrame(table()).write_csv().encode()


def parquet_seed() -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame(table()).write_parquet(buffer)
    return buffer.getvalue()


def npz_seed() -> bytes:
    buffer = io.BytesIO()
    arrays = {"x": np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32), "y": np.arange(24) % 2}
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def mutated(seed: bytes, generator: np.random.Generator) -> bytes:
    """The bytes with one to eight changes: bytes replaced, inserted, cut out, copied elsewhere, or the end lost."""
    data = bytearray(seed)
    for _ in range(int(generator.integers(1, 9))):
        place, length = int(generator.integers(len(data) + 1)), int(generator.integers(1, 17))
        piece = PIECES[int(generator.integers(len(PIECES)))]
        match int(generator.integers(6)):
            case 0:
                data[place : place + 1] = bytes([int(generator.integers(256))])
            case 1:
                data[place:place] = piece
            case 2:
                del data[place : place + length]
            case 3:
                data[place : place + len(piece)] = piece
            case 4:
                other = int(generator.integers(len(data) + 1))
                data[place : place + length] = data[other : other + length]
            case _ if generator.random() < 0.2:
                del data[place:]
    return bytes(data)


def renumbered(seed: bytes, generator: np.random.Generator) -> bytes:
    """Half of the .npz files keep their archive whole: the arrays in it are mutated."""
    if generator.random() < 0.5:
        return mutated(seed, generator)
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(seed)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, mutated(old.read(name), generator))
    return buffer.getvalue()


KINDS: dict[str, tuple[str, dict[str, object], Callable[[], bytes], Callable]] = {
    "csv": ("table.csv", {"label": "label"}, csv_seed, mutated),
    "parquet": ("table.parquet", {"label": "label"}, parquet_seed, mutated),
    "npz": ("table.npz", {}, npz_seed, renumbered),
}


def damaged(kind: str, folder: Path, count: int) -> Iterator[tuple[str, dict[str, object]]]:
    """Writes one mutated file after another; yields how to open each."""
    name, options, seed, mutate = KINDS[kind]
    generator, original = np.random.default_rng(0), seed()
    data = "npz" if kind == "npz" else "csv"
    for _ in range(count):
        (folder / name).unlink(missing_ok=True)  # some file systems flush a file that is written over
        (folder / name).write_bytes(mutate(original, generator))
        yield data, {**options, "file" if kind == "npz" else "csv": str(folder / name)}


def answer(data: str, options: dict[str, object]) -> str | None:
    """The line that refuses the file, if it is refused."""
    try:
        open_data(data, options)
    except UsageError as error:
        return str(error)
    return None


def check(kind: str, folder: Path, count: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for number, (data, options) in enumerate(damaged(kind, folder, count)):
        refused += (line := answer(data, options)) is not None
        assert "\n" not in (line or ""), number
    assert refused > count / 4
    assert {path.name for path in folder.iterdir()} == {KINDS[kind][0]}
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < MORE_MEMORY


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_refused_in_a_line(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check(kind, tmp_path, FEW[kind])


def test_a_file_that_ends_the_process_that_reads_it_is_refused() -> None:
    """Mutated so that the runs of a page claim 2**61 values, for which polars ends the process (version 2.1)."""
    damaged = Path(__file__).with_name("damaged.parquet")
    with pytest.raises(UsageError, match=r"damaged.parquet is no Parquet file"):
        open_data("csv", {"csv": str(damaged), "label": "label"})


@pytest.mark.slow
def test_a_text_a_million_times_takes_no_memory(tmp_path: Path) -> None:
    """Nine gigabytes in a file of fifty kilobytes: one text of a dictionary, and how often it comes."""
    pl.select(label=pl.repeat("x" * 1000, 9_000_000)).write_parquet(tmp_path / "texts.parquet")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError, match=r"is no Parquet file, is damaged, or takes more than 2 GiB"):
        open_data("csv", {"csv": str(tmp_path / "texts.parquet"), "label": "label"})
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < MORE_MEMORY


def test_a_small_file_of_many_rows_is_refused_before_it_is_read(tmp_path: Path) -> None:
    pl.select(label=pl.repeat(1, 20_000_000, dtype=pl.Int8)).write_parquet(tmp_path / "many.parquet")
    with pytest.raises(UsageError, match="claims 20000000 rows of 1 columns, too many for a file of its size"):
        open_data("csv", {"csv": str(tmp_path / "many.parquet"), "label": "label"})


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_thousands_of_damaged_files(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check(kind, tmp_path, FILES[kind])
