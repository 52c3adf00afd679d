"""Small data that tell what they are: the pixels of an image and the first feature of a row name its class."""

from pathlib import Path

import pytest
import torch

from metarl.fewshot.data import DataConfig, DataSet, LabelledData, open_data
from metarl.fewshot.episodes import EpisodeShape, Pool
from metarl.fewshot.preprocessing import Preprocessing

CLASSES, EXAMPLES = 12, 10


class ToyImages(LabelledData):
    """16 × 16 images: class c is a bright row c (train) or column c (test), in noise."""

    def __init__(self) -> None:
        super().__init__(DataConfig())
        self.preprocessing = Preprocessing((1, 16, 16))
        generator = torch.Generator().manual_seed(0)
        self.pools = {}
        for split in ("train", "test"):
            images = torch.randint(0, 60, (CLASSES * EXAMPLES, 1, 16, 16), dtype=torch.uint8, generator=generator)
            labels = torch.arange(CLASSES).repeat_interleave(EXAMPLES)
            for image, label in zip(images, labels, strict=True):
                image[0, label] = 255
            self.pools[split] = Pool(images if split == "train" else images.mT.contiguous(), labels, name="toy images")


class ToyRows(LabelledData):
    """Three features around a centre of each class."""

    def __init__(self) -> None:
        super().__init__(DataConfig())
        self.preprocessing = Preprocessing((3,))
        generator = torch.Generator().manual_seed(1)
        centres = torch.randn(2 * CLASSES, 1, 3, generator=generator)
        rows = (centres + 0.2 * torch.randn(2 * CLASSES, EXAMPLES, 3, generator=generator)).flatten(0, 1)
        labels = torch.arange(2 * CLASSES).repeat_interleave(EXAMPLES)
        half = CLASSES * EXAMPLES
        self.pools = {"train": Pool(rows[:half], labels[:half]), "test": Pool(rows[half:], labels[half:])}


@pytest.fixture(scope="session")
def images() -> ToyImages:
    return ToyImages()


@pytest.fixture(scope="session")
def rows() -> ToyRows:
    return ToyRows()


@pytest.fixture(scope="session")
def toy_data(images: ToyImages, rows: ToyRows) -> dict[str, DataSet]:
    return {"images": images, "rows": rows, "sinusoid": open_data("sinusoid")}


@pytest.fixture(scope="session")
def shape() -> EpisodeShape:
    return EpisodeShape(ways=3, shots=2, queries=4)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of decoded pictures, in a working directory that is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "metarl"
