"""Folders of 100,000 pictures, and damaged files and folders: memory stays bounded and errors are one clear line."""

import io
import json
import os
import random
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metarl.errors import UsageError
from metarl.fewshot.data import open_data
from metarl.fewshot.data.picture_files import Thumbnail, read_picture
from metarl.fewshot.episodes import EpisodeShape

SIZE = 16
CLASSES, EACH = 100, 1000


def links(root: Path, classes: int, each: int) -> None:
    """`classes` folders of `each` pictures, which are links to one file in each class."""
    for way in range(classes):
        folder = root / f"class{way:03}"
        folder.mkdir(parents=True)
        values = np.random.default_rng(way).integers(0, 256, (28, 28)).astype(np.uint8)
        Image.fromarray(values).save(folder / "0.png")
        for number in range(1, each):
            os.link(folder / "0.png", folder / f"{number}.png")


MEASURE = """
import json, resource, sys, time
import torch
from metarl.fewshot.data import open_data
from metarl.fewshot.episodes import EpisodeShape

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

open_data("folder", {"root": sys.argv[2], "size": 84})  # imports what it needs
found = {"peak_before": peak()}
began = time.perf_counter()
data = open_data("folder", {"root": sys.argv[1], "size": 84})
found |= {"seconds": time.perf_counter() - began, "peak_open": peak(), "decoded_open": int(data.pictures._known.sum())}
drawn = set()
for seed in range(20):
    data.episodes("train", 2, EpisodeShape(5, 5, 15), seed=seed)
began = time.perf_counter()
found |= {"fingerprint": data.fingerprint(), "fingerprint_seconds": time.perf_counter() - began}
found |= {"peak_drawn": peak(), "decoded_drawn": int(data.pictures._known.sum()), "pictures": len(data.pictures)}
began = time.perf_counter()
open_data("folder", {"root": sys.argv[1], "size": 84})
print(json.dumps(found | {"seconds_again": time.perf_counter() - began}))
"""


@pytest.mark.slow
def test_100_000_pictures_are_listed_and_only_those_drawn_are_decoded(tmp_path):
    links(tmp_path / "many", CLASSES, EACH)
    links(tmp_path / "few", 12, 10)
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "many"), str(tmp_path / "few")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(found)
    assert found["pictures"] == CLASSES * EACH
    assert found["decoded_open"] == 1000
    drawn = 20 * 2 * 5 * 20
    assert 1000 < found["decoded_drawn"] <= 1000 + drawn
    assert found["peak_open"] - found["peak_before"] < 150  # MiB; all pictures would be 673
    assert found["peak_drawn"] - found["peak_open"] < 150


def originals() -> list[bytes]:
    """A small file of every format and mode."""
    grey = np.random.default_rng(0).integers(0, 256, (20, 17)).astype(np.uint8)
    layers = [Image.fromarray(np.roll(grey, k)) for k in range(4)]
    rgb, rgba = Image.merge("RGB", layers[:3]), Image.merge("RGBA", layers)
    deep = Image.fromarray(grey.astype(np.uint16) * 16)
    exif = Image.Exif()
    exif[0x0112] = 6
    several = {"save_all": True, "append_images": layers[1:]}
    kinds = [
        *(("png", image, {}) for image in (layers[0], rgb, rgba, deep, rgb.quantize(16), layers[0].convert("1"))),
        ("png", rgb.quantize(16), {"transparency": 3}),
        *(("jpeg", image, {"exif": exif}) for image in (layers[0], rgb, Image.merge("CMYK", layers))),
        *(("tiff", image, {"exif": exif}) for image in (rgb, rgba, deep, Image.fromarray(grey.astype(np.float32)))),
        *(("tiff", rgb, {"compression": name}) for name in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")),
        ("tiff", layers[0].convert("1"), {"compression": "group4"}),
        ("tiff", layers[0], several),
        ("gif", layers[0], several),
        ("webp", rgba, {"lossless": True}),
        ("webp", rgb, {"exif": exif}),
        ("bmp", rgb, {}),
        ("bmp", layers[0], {}),
        ("ppm", rgb, {}),
        ("ppm", layers[0], {}),
    ]
    files = []
    for kind, image, options in kinds:
        file = io.BytesIO()
        image.save(file, kind, **options)
        files.append(file.getvalue())
    return files


def mutated(files: list[bytes], rng: random.Random) -> bytes:
    """One of `files` with some bytes changed, cut, doubled, put to extremes, or exchanged with another file's."""
    content = bytearray(rng.choice(files))
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = min(rng.randrange(len(content) + 1), rng.randrange(len(content) + 1))  # headers are in front
        kind = rng.randrange(6)
        if kind <= 1:
            content[place : place + 1] = bytes([rng.randrange(256)])
        elif kind == 2:
            content[place : place + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"\0\0\x20\0"))
        elif kind == 3:
            del content[place : place + rng.randrange(1, 1 + max(1, len(content)))]
        elif kind == 4:
            content[place:place] = content[: rng.randrange(64)]
        else:
            other = rng.choice(files)
            content[place:] = other[min(place, len(other)) :]
    return bytes(content)


def check_line(message: str, start: str = "") -> None:
    assert message.startswith(start)
    assert message.isprintable()
    assert len(message) < 2000


def read_or_refused(content: bytes) -> bool:
    """Whether a file is read; otherwise its error must be one line that names it."""
    try:
        thumbnail = Thumbnail.of(read_picture(content, "the-file"), SIZE)
    except UsageError as error:
        check_line(str(error), "the-file ")
        return False
    assert thumbnail.values.shape[:2] == (SIZE, SIZE)
    assert np.isfinite(thumbnail.values).all()
    return True


def fuzz(count: int, seed: int) -> list[bool]:
    files, rng = originals(), random.Random(seed)
    assert all(map(read_or_refused, files))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, as the cache of a data set ignores them
        return [read_or_refused(mutated(files, rng)) for _ in range(count)]


def fuzz_folders(count: int, seed: int, root: Path) -> int:
    """Opens `count` folders with random names, files and nesting; returns how many could be drawn from."""
    files, rng, drawn = originals(), random.Random(seed), 0
    names = ["a", "B", "b", "train", "test", "val", "__MACOSX", ".git", "p 1", "p\n2", "\u00e9", "x" * 200, "\udcff"]
    suffixes = [".png", ".JPG", ".tif", ".txt", "", ".db", ".gif", ".png\n", ".webp"]
    for trial in range(count):
        tree = root / str(trial)
        top = rng.choice((["a", "b"], ["a/p1", "a/p2", "b/p1", "b/p2"], ["train/a", "train/b", "test/a", "test/b"]))
        extra = ["/".join(rng.choices(names, k=rng.randrange(1, 4))) for _ in range(rng.choice((0, 0, 1, 3)))]
        for folder in [*top, *extra]:
            (tree / folder).mkdir(parents=True, exist_ok=True)
            for number in range(4):
                usual = folder in top and rng.random() < 0.9
                name = f"{number}.png" if usual else f"{rng.choice(('', '._', chr(13)))}{number}{rng.choice(suffixes)}"
                path, is_damaged = tree / folder / name, rng.random() < 0.02
                if not path.exists():
                    path.write_bytes(mutated(files, rng) if is_damaged else rng.choice(files))
        options = {"size": SIZE, "split_by": rng.choice((None, None, None, "classes", "pictures", "folders"))}
        options |= {"checked": rng.choice((1, 1000)), "validation": rng.random() < 0.1}
        try:
            data = open_data("folder", {"root": tree, **options})
            for split in ("train", "test"):
                data.episodes(split, 2, EpisodeShape(2, 1, 1), seed=0)
            assert all(line.isprintable() for line in (*data.summary(), *data.classes))
            drawn += 1
        except UsageError as error:
            check_line(str(error))
    return drawn


def test_damaged_pictures_are_refused_in_one_line():
    found = fuzz(150, 0)
    assert 10 < sum(found) < 140


def test_strange_folders_are_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert fuzz_folders(8, 1, tmp_path / "trees") < 8


@pytest.mark.slow
def test_20_000_damaged_pictures_and_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = fuzz(19_500, 2)
    assert 1000 < sum(found) < 19_000
    assert 20 < fuzz_folders(500, 3, tmp_path / "trees") < 480
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 1024  # MiB
