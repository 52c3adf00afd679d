"""Folders of small pictures that tell themselves apart, and their inputs."""

from pathlib import Path

import numpy as np
from PIL import Image

from metarl.fewshot.data import open_data

SIZE = 16
SCALES = np.arange(SIZE * SIZE).reshape(SIZE, SIZE)
"""0 to 255, a different value at each pixel."""


def write(path: str, values: np.ndarray, **options) -> Path:
    """Writes an array as a picture, in the mode that its type has."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(file, **options)
    return file


def scan(number: int, offset: int = 0) -> np.ndarray:
    """A grey picture that its `number` tells from others."""
    return ((SCALES + 7 * number + offset) % 256).astype(np.uint8)


def folder(root: str, classes: int = 2, each: int = 8, change=lambda values: values, suffix: str = "png") -> Path:
    """`classes` folders of `each` grey pictures; `change` makes of a grey picture what is written."""
    for way in range(classes):
        for number in range(each):
            write(f"{root}/class{way:02}/{number:02}.{suffix}", change(scan(number, 40 * way)))
    return Path(root)


def opened(root, **options):
    return open_data("folder", {"root": root, "size": SIZE, **options})


def inputs_of(data, way: int = 0, number: int = 0) -> np.ndarray:
    """The input of a picture by its class and number, from 0 to 1."""
    values = data.encode([f"{data.config.root}/class{way:02}/{number:02}.png"])[0].numpy()
    return values / 255 if values.dtype == np.uint8 else values


def same(got: np.ndarray, expected: np.ndarray, tolerance: float = 0.5 / 255) -> None:
    np.testing.assert_allclose(got, np.broadcast_to(expected, got.shape), atol=tolerance)
