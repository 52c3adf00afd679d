"""Photographs of everyday things: miniImageNet (Vinyals et al. 2016) and tieredImageNet (Ren et al. 2018), 84 × 84.

miniImageNet has 64 classes for training, 16 for validation and 20 for test, 600 images each, as Ravi and Larochelle
(2017) split them. tieredImageNet has 351, 97 and 160 classes, 779,165 images, split by broad categories. metarl does
not download them: `root` is a folder with one of the layouts in which they are distributed,

    train/CLASS/*.jpg            a folder for each split, in it one for each class (val/ and test/ likewise)
    train.csv  images/*.jpg      a table with the columns filename and label for each split
    mini-imagenet-cache-train.pkl                     miniImageNet's published arrays
    train_images_png.pkl  train_labels.pkl            tieredImageNet's published PNGs and labels

Images of another size are resized to 84 × 84 by Lanczos resampling, as Ravi and Larochelle do. Decoded images are
cached in the user's cache folder (`XDG_CACHE_HOME`; 21 kB per image: 1.1 GB and 14 GB in all) and memory-mapped from
there. Files are decoded when they are first drawn (`metarl.fewshot.data.picture_cache`), pickles all at once.
"""

import csv
import hashlib
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from metarl.errors import UsageError
from metarl.experiment.files import write_atomically
from metarl.fewshot.data import LabelledData
from metarl.fewshot.data.cache_folder import cache_folder
from metarl.fewshot.data.picture_cache import PictureCache, PictureConfig, PicturePool
from metarl.fewshot.data.picture_files import Reading, Thumbnail, read_picture
from metarl.fewshot.data.picture_listing import PictureListing, list_pictures
from metarl.fewshot.data.plain_pickle import PlainArray, read_plain_pickle
from metarl.fewshot.episodes import Pool
from metarl.fewshot.preprocessing import Preprocessing
from metarl.parsing import is_count, printable

SIZE = 84
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's channels, the values in common use."""
_CHUNK = 1024
"""Images decoded between writes to the cache."""
_SLOW = 5000
"""Number of images above which decoding is announced, because it takes long."""
_FORMAT = 1


@dataclass(frozen=True)
class ImageNetConfig(PictureConfig):
    """Options of both data sets; `root` is a folder with one of the layouts.

    >>> from metarl.fewshot.data.imagenet import ImageNetConfig
    >>> ImageNetConfig(validation=True).validation
    True
    """


@dataclass(frozen=True)
class Listing:
    """One split of pickles: items that `decode` converts to images, and the class of each."""

    items: Sequence[Any]
    classes: Sequence[str]
    decode: Callable[[Any], UInt8[np.ndarray, "H W 3"]]


class MiniImageNet(LabelledData):
    """miniImageNet, uint8 `[n, 3, 84, 84]`. Network inputs have channels of about zero mean and unit variance.

    >>> from metarl.fewshot.data import open_data
    >>> data = open_data("miniimagenet", {"root": "data/miniimagenet"})
    >>> data.episodes("test", 4, data.default_shape(), seed=0).support.x.shape
    torch.Size([4, 5, 3, 84, 84])
    """

    config_class = ImageNetConfig
    name: ClassVar[str] = "miniimagenet"
    pickles: ClassVar[tuple[str, ...]] = ("mini-imagenet-cache-{}.pkl",)

    def __init__(self, config: ImageNetConfig):
        super().__init__(config)
        scale = tuple(1 / std for std in STD)
        shift = tuple(-mean / std for mean, std in zip(MEAN, STD, strict=True))
        self.preprocessing = Preprocessing((3, SIZE, SIZE), scale, shift)
        self._notes: list[str] = []
        folders = {"train": "train", "test": "val" if config.validation else "test"}
        pickles = {folder: [name.format(folder) for name in self.pickles] for folder in folders.values()}
        if config.root is None:
            raise UsageError(f"{self.name}: name with --root the folder that holds {self._expected('train')}")
        if (config.root / "train").is_dir():
            self.pools = self._file_pools(config, folders, *_in_folders(config.root, self.name, list(folders.values())))
        elif (config.root / "train.csv").is_file():
            self.pools = self._file_pools(config, folders, *_in_tables(config.root, self.name, list(folders.values())))
        else:
            self.pools = {}
            for split, folder in folders.items():
                paths = tuple(config.root / name for name in pickles[folder])
                if not all(path.is_file() for path in paths):
                    raise UsageError(f"{self.name}: {config.root} does not hold {self._expected(folder)}")
                images, labels = self._read(paths)
                self.pools[split] = Pool(images, labels, name=f"{self.name} ({folder})")

    def summary(self) -> list[str]:
        """How picture files were read and what was skipped; nothing of pickles, which are as published."""
        return self._notes

    def _expected(self, split: str) -> str:
        pickles = " and ".join(name.format(split) for name in self.pickles)
        return f"{split}/CLASS/*.jpg, or images/ and {split}.csv, or {pickles}"

    def _file_pools(
        self, config: ImageNetConfig, folders: Mapping[str, str], files: PictureListing, classes: list[tuple[str, str]]
    ) -> dict[str, Pool]:
        """The pools of picture files, of which `classes` has the folder of the split and the class."""
        assert config.root is not None
        pictures = PictureCache(self.name, config.root, files.names, files.stamps, config.options(SIZE, 3))
        skipped = files.skipped_line()
        self._notes = [*pictures.summary(), *([] if skipped is None else [skipped])]
        pools: dict[str, Pool] = {}
        for split, folder in folders.items():
            rows = [row for row, (found, _) in enumerate(classes) if found == folder]
            names = sorted({classes[row][1] for row in rows})
            place = {name: index for index, name in enumerate(names)}
            labels = torch.tensor([place[classes[row][1]] for row in rows])
            pools[split] = PicturePool(pictures, torch.tensor(rows), labels, name=f"{self.name} ({folder})")
        return pools

    def _unpickle(self, *paths: Path) -> Listing:
        """Reads `image_data` `[n, 84, 84, 3]` and `class_dict`, class → indices of its images."""
        content = _entries(paths[0], "image_data", "class_dict")
        images, members = _array(content["image_data"], paths[0]), content["class_dict"]
        if not isinstance(members, dict) or images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise UsageError(f"{paths[0]} is not as published: want uint8 images [n, 84, 84, 3] and a dict of classes")
        classes = [""] * len(images)
        for name, rows in members.items():
            for row in _array(rows, paths[0]).ravel().tolist():
                if not is_count(row) or row >= len(images):
                    what = printable(f"class {_text(name)} has an image {row!r}")
                    raise UsageError(f"{paths[0]} is damaged: {what} of {len(images)}")
                classes[row] = _text(name)
        if "" in classes:
            raise UsageError(f"{paths[0]} is damaged: image {classes.index('')} is of no class")
        return Listing(range(len(images)), classes, lambda row: _fit(Image.fromarray(images[row])))

    def _read(self, paths: tuple[Path, ...]) -> tuple[UInt8[Tensor, "n 3 84 84"], Tensor]:
        """All images of pickles, sorted by class, and the index of the class of each; decoded once, then cached."""
        cache = self._cache_file(paths)
        index = cache.with_suffix(".json")
        if not (cache.is_file() and index.is_file()):
            listing = self._unpickle(*paths)
            order = sorted(range(len(listing.classes)), key=lambda i: listing.classes[i])
            if len(order) > _SLOW:
                print(f"{self.name}: decoding {len(order)} images, once; kept as {cache}", file=sys.stderr, flush=True)
            try:
                _write_images(cache, listing, order)
                counts = Counter(listing.classes[i] for i in order)
                write_atomically(index, json.dumps(counts))
            except OSError as error:
                raise UsageError(f"{self.name}: cannot write the decoded images to {cache}: {error.strerror}") from None
        counts = json.loads(index.read_text())
        images = torch.from_numpy(np.load(cache, mmap_mode="c"))
        return images, torch.arange(len(counts)).repeat_interleave(torch.tensor(list(counts.values())))

    def _cache_file(self, paths: tuple[Path, ...]) -> Path:
        """The cache file of the decoded images, named by the paths, sizes and modification times of the pickles."""
        stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
        key = hashlib.sha256(repr((_FORMAT, SIZE, stats)).encode()).hexdigest()[:16]
        return cache_folder() / f"{self.name}-{SIZE}-{key}.npy"


class TieredImageNet(MiniImageNet):
    """tieredImageNet, in the same form as miniImageNet. Its classes are the specific ones, not the broad categories.

    >>> from metarl.fewshot.data import open_data
    >>> data = open_data("tieredimagenet", {"root": "data/tieredimagenet"})
    >>> len(data.pools["test"].classes)
    160
    """

    name = "tieredimagenet"
    pickles = ("{}_images_png.pkl", "{}_labels.pkl")

    def _unpickle(self, *paths: Path) -> Listing:
        """Reads a list of PNG files, and `label_specific` `[n]` with the class index of each."""
        images = read_plain_pickle(paths[0])
        labels = _array(_entries(paths[1], "label_specific")["label_specific"], paths[1]).ravel()
        if isinstance(images, PlainArray):
            images = list(_array(images, paths[0]))
        if not isinstance(images, list) or labels.dtype.kind not in "iu":
            raise UsageError(f"{paths[0]} and {paths[1]} are not as published: want a list of PNGs and integers")
        if len(labels) != len(images):
            raise UsageError(f"{paths[0]} has {len(images)} images but {paths[1]} {len(labels)} labels")
        width = len(str(labels.max(initial=0)))  # so that the names sort as the numbers do
        classes = [f"{label:0{width}}" for label in labels.tolist()]
        return Listing(range(len(images)), classes, lambda row: _decode_png(images[row], f"{paths[0]}, image {row}"))


def _write_images(path: Path, listing: Listing, order: list[int]) -> None:
    """Writes the images of `listing` in `order` as an array `[n, 3, 84, 84]` to `path`: completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(order), 3, SIZE, SIZE)}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file, ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as threads:
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, len(order), _CHUNK):
                items = [listing.items[i] for i in order[start : start + _CHUNK]]
                for image in threads.map(listing.decode, items):
                    file.write(image.transpose(2, 0, 1).tobytes())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _decode_png(data: Any, what: str) -> UInt8[np.ndarray, "84 84 3"]:
    """Decodes a PNG, given as bytes or as an array of bytes."""
    if isinstance(data, PlainArray):
        data = data.numpy()
    if isinstance(data, np.ndarray):
        data = data.tobytes()
    if not isinstance(data, (bytes, bytearray)):
        raise UsageError(f"{what} is no image")
    thumbnail = Thumbnail.of(read_picture(bytes(data), what), SIZE)
    reading = Reading(SIZE, channels=3)
    misfit = reading.misfit(thumbnail)
    if misfit is not None:
        raise UsageError(f"{what} is {misfit}; want 8 bits")
    return reading(thumbnail).transpose(1, 2, 0)


def _fit(image: Image.Image) -> UInt8[np.ndarray, "84 84 3"]:
    """Resizes an RGB image to 84 × 84."""
    return np.asarray(image if image.size == (SIZE, SIZE) else image.resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def _in_folders(root: Path, name: str, folders: list[str]) -> tuple[PictureListing, list[tuple[str, str]]]:
    """The picture files in `folders` of `root` and in val/, and the folder and the class of each."""
    files = list_pictures(root, only=("train", "val", "test"))
    inside = [row for row, file in enumerate(files.names) if file.count("/") > 1]
    if len(inside) < len(files.names):
        files.skipped["pictures outside of class folders"] += len(files.names) - len(inside)
    files = files.keep(inside)
    classes = [(parts[0], parts[1]) for parts in (file.split("/", 2) for file in files.names)]
    for folder in folders:
        if all(found != folder for found, _ in classes):
            raise UsageError(f"{name}: {root / folder} holds no images: want {folder}/CLASS/*.jpg")
    return files, classes


def _in_tables(root: Path, name: str, folders: list[str]) -> tuple[PictureListing, list[tuple[str, str]]]:
    """The picture files in the tables of `folders` and of val/, and the folder and the class of each."""
    files, classes = PictureListing(root), []
    for folder in dict.fromkeys((*folders, "val")):
        table = root / f"{folder}.csv"
        if not table.is_file():
            if folder in folders:
                raise UsageError(f"{name}: {table} is missing")
            continue
        for file, label in zip(*_read_table(table), strict=True):
            try:
                stat = (root / "images" / file).stat()
            except (OSError, ValueError):
                raise UsageError(f"{name}: {root / 'images' / file} is missing") from None
            files.names.append(f"images/{file}")
            files.stamps.append((stat.st_size, stat.st_mtime_ns))
            classes.append((folder, label))
    return files, classes


def _read_table(path: Path) -> tuple[list[str], list[str]]:
    """Reads the columns filename and label."""
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is no table: {error}") from None
    if not rows or not {"filename", "label"} <= rows[0].keys():
        raise UsageError(f"{path}: want a table with the columns filename and label")
    short = next((number for number, row in enumerate(rows, 2) if not row["filename"] or not row["label"]), None)
    if short is not None:
        raise UsageError(f"{path}, line {short}: want a filename and a label")
    return [row["filename"] for row in rows], [row["label"] for row in rows]


def _entries(path: Path, *names: str) -> dict[str, Any]:
    """The entries `names` of the dict in a pickle, whose keys may be bytes if Python 2 wrote it."""
    content = read_plain_pickle(path)
    entries = {_text(key): value for key, value in content.items()} if isinstance(content, dict) else {}
    missing = next((name for name in names if name not in entries), None)
    if missing is not None:
        raise UsageError(f"{path} is not as published: want a dict with {' and '.join(names)}, there is no {missing}")
    return entries


def _array(value: Any, path: Path) -> np.ndarray:
    try:
        return value.numpy() if isinstance(value, PlainArray) else np.asarray(value)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} is damaged: {error}") from None


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
