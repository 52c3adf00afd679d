"""Damaged and hostile pickles of data sets: one line answers each, nothing is executed, and memory stays small."""

import pickle
import resource
from pathlib import Path

import numpy as np
import pytest

from metarl import UsageError
from metarl.fewshot.data import open_data
from metarl.fewshot.data.plain_pickle import read_plain_pickle

HOSTILE = {
    "a place far beyond the memo": b"Nr\xff\xff\xff\xff.",
    "bytes that are not there": b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"abc.",
    "a text that is not there": b"\x80\x04\x8d" + (2**40).to_bytes(8, "little") + b"abc.",
    "an array of bytes that is not there": b"\x80\x05\x96" + (2**34).to_bytes(8, "little") + b"abc.",
    "a frame that is not there": b"\x80\x04\x95" + (2**40).to_bytes(8, "little") + b"N.",
    "as many zeros as a number says": b"cbuiltins\nbytearray\n(J\x00\x00\x00\x7ftR.",
    "copies of copies": b"(" + b"](" + b"N" * 200 + b"eq\x000" + b"(cbuiltins\nlist\n(h\x00tR" * 40 + b"t.",
    "a function": b"cos\nsystem\n(S'touch executed'\ntR.",
    "a name of two lines": b"\x80\x04\x8c\x05mul\nt\x8c\x04name\x93.",
    "a function of numpy": b"cnumpy\nfromfile\n(S'/etc/passwd'\ntR.",
}
MORE_MEMORY = 2**28
"""Bytes that the process may grow by."""


def peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_take_no_memory(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file, before = tmp_path / "cache.pkl", peak()
    file.write_bytes(HOSTILE[name])
    if name == "a place far beyond the memo":  # it is legal, and says nothing
        assert read_plain_pickle(file) is None
    else:
        with pytest.raises(UsageError, match=r"cache.pkl is (damaged|refused)") as caught:
            read_plain_pickle(file)
        assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == [file]
    assert peak() - before < MORE_MEMORY


def published(folder: Path) -> dict[str, bytes]:
    """The two files of a tiny miniImageNet."""
    images = np.random.default_rng(0).integers(0, 256, (8, 84, 84, 3)).astype(np.uint8)
    content = {"image_data": images[:, :4, :4], "class_dict": {"a": [0, 1, 2, 3], "b": [4, 5, 6, 7]}}
    return {f"mini-imagenet-cache-{split}.pkl": pickle.dumps(content, 4) for split in ("train", "test")}


def mutated(seed: bytes, generator: np.random.Generator) -> bytes:
    """One to eight changes: opcodes exchanged, bytes changed, pieces cut out, copied, or replaced by hostile ones."""
    data, hostile = bytearray(seed), list(HOSTILE.values())
    opcodes = b"".join(value for name, value in vars(pickle).items() if name.isupper() and isinstance(value, bytes))
    for _ in range(int(generator.integers(1, 9))):
        place, length = int(generator.integers(len(data) + 1)), int(generator.integers(1, 17))
        match int(generator.integers(5)):
            case 0:
                data[place : place + 1] = bytes([int(generator.integers(256))])
            case 1:
                data[place : place + 1] = opcodes[(at := int(generator.integers(len(opcodes)))) : at + 1]
            case 2:
                del data[place : place + length]
            case 3:
                other = int(generator.integers(len(data) + 1))
                data[place:place] = data[other : other + length]
            case _:
                data[place:place] = hostile[int(generator.integers(len(hostile)))]
    return bytes(data)


def answer(folder: Path) -> str | None:
    """The line that refuses the data set, if it is refused."""
    try:
        open_data("miniimagenet", {"root": folder})
    except UsageError as error:
        return str(error)
    return None


def fuzz(folder: Path, count: int) -> int:
    """Opens `count` damaged data sets; returns how many were refused."""
    generator, files, refused, before = np.random.default_rng(0), published(folder), 0, peak()
    for number in range(count):
        for name, content in files.items():
            path = folder / name
            path.unlink(missing_ok=True)
            path.write_bytes(mutated(content, generator) if "train" in name else content)
        line = answer(folder)
        refused += line is not None
        assert "\n" not in (line or ""), number
    assert {path.name for path in folder.iterdir()} == set(files)
    assert peak() - before < MORE_MEMORY
    return refused


def test_damaged_pickles_are_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "data")
    assert fuzz(tmp_path / "data", 200) > 100


@pytest.mark.slow
def test_twenty_thousand_damaged_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "data")
    assert fuzz(tmp_path / "data", 20_000) > 10_000
