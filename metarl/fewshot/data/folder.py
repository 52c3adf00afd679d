"""A user's pictures: a folder for each class, in it the pictures, directly or in folders at any depth.

    CLASS/1.png  CLASS/patient7/scan.tif              classes, or pictures, are held out for the test
    train/CLASS/…  test/CLASS/…  [val/CLASS/…]        the split is that of the folders

Files are listed when the data set is opened, and decoded when they are drawn.
"""

import dataclasses
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from metarl.errors import UsageError
from metarl.experiment.options import build
from metarl.fewshot.data import SPLITS, LabelledData
from metarl.fewshot.data.labels import listed
from metarl.fewshot.data.picture_cache import PictureCache, PictureConfig, PicturePool, PictureReader
from metarl.fewshot.data.picture_files import shown
from metarl.fewshot.data.picture_listing import PictureListing, list_pictures
from metarl.fewshot.data.tables import TEST_SHARE, fitting_shape, held_out_rows, held_out_values
from metarl.fewshot.episodes import EpisodeShape
from metarl.fewshot.preprocessing import Preprocessing
from metarl.randomness import make_generator
from metarl.tasks import check_count

SplitBy = Literal["classes", "pictures", "folders"]
SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}
"""Names of folders, in any case, that hold a split."""
MANY_CLASSES = 10
"""Classes from which on whole classes are held out."""
MEASURED = 500
"""Most training pictures from which the mean and the deviation of each channel are taken."""


@dataclass(frozen=True)
class FolderConfig(PictureConfig):
    """Options of a folder of pictures; `root` holds a folder for each class, or train/ and test/.

    >>> from pathlib import Path
    >>> from metarl.fewshot.data.folder import FolderConfig
    >>> FolderConfig(root=Path("scans"), split_by="folders").size
    84
    """

    size: int = 84
    """Height and width in pixels to which pictures are resized."""
    split_by: SplitBy | None = None
    """Split train and test by classes, by pictures, or by the folders inside of class folders, so that all pictures of
    one, such as a patient, are on one side; by classes if there are 10 or more, else by pictures, if not given. With
    train/ and test/, only "folders" can be given."""
    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for colour; colour if any picture is, if not given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("size", self.size)
        if self.size > 1024:
            raise UsageError(f"size must be at most 1024, got {self.size}")


@dataclass(frozen=True)
class Places:
    """Where the pictures of a listing lie, in its order."""

    listing: PictureListing
    splits: list[str]
    """train, test or validation; empty if the folders say nothing."""
    classes: list[str]
    owners: list[str]
    """The folder inside of the class folder; empty if a picture lies in the class folder itself."""


class PictureFolder(LabelledData):
    """A folder of pictures as a data set. `encode` converts further files to the inputs that `Learner.predict` takes.

    Pictures are grey `[1, size, size]` if all are, else colour. uint8 from 0 to 255; those with more than 8 bits are
    float32 from 0 to 1. Network inputs have zero mean and unit variance over training pictures.

    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from metarl.fewshot.data import open_data
    >>> for turn, name in ((0, "cats"), (90, "dogs")):
    ...     for i in range(8):
    ...         Path("mine", name).mkdir(parents=True, exist_ok=True)
    ...         Image.linear_gradient("L").rotate(turn + i).save(f"mine/{name}/{i}.png")
    >>> data = open_data("folder", {"root": "mine", "size": 28})
    >>> data.classes, data.encode(["mine/cats/1.png"]).shape
    (['cats', 'dogs'], torch.Size([1, 1, 28, 28]))
    """

    config_class = FolderConfig
    config: FolderConfig

    def __init__(self, config: FolderConfig):
        super().__init__(config)
        if config.root is None:
            raise UsageError("data folder needs the folder of the pictures: --root DIR")
        root = Path(config.root)
        self._name = shown(root)
        places = read_places(root)
        self._places = places
        names = sorted(set(places.classes))
        self.classes = [shown(name) for name in names]
        """What the labels 0, 1, … stand for."""
        self._check_names(names)
        place = {name: index for index, name in enumerate(names)}
        labels = torch.tensor([place[name] for name in places.classes])
        sides, self.unit_name = self._split(labels)
        self._check_sizes(labels, sides)
        listing = places.listing
        options = config.options(config.size, config.channels)
        self.pictures = PictureCache("folder", root, listing.names, listing.stamps, options)
        units = {
            "classes": labels,
            "pictures": torch.arange(len(labels)),
            "folders": torch.from_numpy(np.unique(places.owners, return_inverse=True)[1].astype(np.int64)),
        }[self.unit_name]
        self.pools = {}
        for split, chosen in sides.items():
            rows = chosen.nonzero()[:, 0]
            how: dict[str, Any] = {"name": f"{self._name} ({split})", "unit_name": self.unit_name}
            self.pools[split] = PicturePool(self.pictures, rows, labels[rows], units=units[rows], **how)
        self.preprocessing = standardisation(self.pictures, sides["train"].nonzero()[:, 0])

    def default_shape(self) -> EpisodeShape:
        return fitting_shape(self.pools.values())

    def encode(self, files: list[Path] | list[str]) -> Shaped[Tensor, "n C size size"]:
        """Reads further files as those of the data set are read; raises `UsageError` for one that does not fit."""
        if not files:
            raise UsageError("there are no files to encode")
        return torch.from_numpy(np.stack([self.pictures.read(file) for file in files]))

    def summary(self) -> list[str]:
        """What was found, how it is read, what was skipped, and what the split is by."""
        counts = Counter(self._places.classes)
        smallest = min(counts, key=lambda name: (counts[name], name))
        lines = [
            f"classes: {listed(self.classes)}; the smallest is {shown(smallest)} with {counts[smallest]}",
            *self.pictures.summary(),
        ]
        skipped = self._places.listing.skipped_line()
        lines += [] if skipped is None else [skipped]
        sizes = ", ".join(f"{len(pool)} {split}" for split, pool in self.pools.items())
        ways = ", ".join(f"{len(pool.classes)} {split}" for split, pool in self.pools.items())
        by = "train/ and test/" if self._places.splits[0] else self.unit_name
        lines.append(f"split by {by}: {ways} classes; {sizes} pictures")
        if self.unit_name == "pictures" and any(self._places.owners):
            lines.append(
                "classes have folders inside, whose pictures are on both sides of the split: if a folder is a patient "
                "or the like, say --split-by folders"
            )
        return lines

    def encoder(self) -> dict[str, Any]:
        return PictureEncoder(self.pictures.reader, tuple(self.classes)).entries()

    def facts(self) -> dict[str, Any]:
        return {"split_by": "train/ and test/" if self._places.splits[0] else self.unit_name}

    def _split(self, labels: Int[Tensor, "n"]) -> tuple[dict[str, Bool[Tensor, "n"]], str]:
        """The mask of each split, and what the units of intervals are."""
        places, by = self._places, self.config.split_by
        if places.splits[0]:
            return self._given_split(labels)
        if self.config.validation:
            raise UsageError(f"--validation needs folders train/ and val/, which {self._name} does not have")
        number = len(self.classes)
        by = by or ("classes" if number >= MANY_CLASSES else "pictures")
        if by == "classes":
            if number < 4:
                raise UsageError(f"{self._name} has {number} classes, too few to split by: say --split-by pictures")
            test_count = max(2, round(TEST_SHARE * number))
            test = torch.randperm(number, generator=make_generator("picture classes"))[:test_count]
            held_out = torch.isin(labels, test)
        elif by == "pictures":
            held_out = held_out_rows(labels, "pictures")
        else:
            self._check_owners()
            owners = torch.from_numpy(np.unique(places.owners, return_inverse=True)[1].astype(np.int64))
            held_out = held_out_values(labels, owners, f"{self._name}, the folders inside of classes")
        return {"train": ~held_out, "test": held_out}, by

    def _given_split(self, labels: Int[Tensor, "n"]) -> tuple[dict[str, Bool[Tensor, "n"]], str]:
        """The split by train/ and test/, or train/ and val/."""
        places, by = self._places, self.config.split_by
        if by in ("classes", "pictures"):
            raise UsageError(f"{self._name} is split by its folders train/ and test/: leave --split-by {by} out")
        tested = "validation" if self.config.validation else "test"
        sides = {}
        for split, folder in zip(SPLITS, ("train", tested), strict=True):
            sides[split] = torch.tensor([found == folder for found in places.splits])
            if not sides[split].any():
                other = " (--validation tests on val/)" if folder == "test" and "validation" in places.splits else ""
                raise UsageError(f"{self._name} is split by folders but holds no pictures in {folder}/{other}")
        if by == "folders":
            self._check_owners()
            owners = [{o for o, side in zip(places.owners, sides[s].tolist(), strict=True) if side} for s in SPLITS]
            both = sorted(owners[0] & owners[1])
            if both:
                raise UsageError(
                    f"{self._name}: {listed([shown(name) for name in both])} lie in train/ and in {tested}/: "
                    "move each to one side"
                )
            return sides, "folders"
        seen, new = (set(labels[sides[split]].tolist()) for split in SPLITS)
        return sides, "pictures" if seen & new else "classes"

    def _check_names(self, names: list[str]) -> None:
        if len(names) < 2:
            raise UsageError(
                f"{self._name} has pictures of one class only, {self.classes[0]!r}: want a folder for each class"
            )
        lower: dict[str, str] = {}
        for name in self.classes:
            other = lower.setdefault(name.casefold(), name)
            if other != name:
                raise UsageError(f"{self._name} has the classes {other!r} and {name!r}: write them alike")

    def _check_owners(self) -> None:
        """Raises `UsageError` if a picture lies in no folder inside of its class folder."""
        places = self._places
        if "" in places.owners:
            name = places.listing.names[places.owners.index("")]
            raise UsageError(f"--split-by folders: {shown(name)} lies in no folder inside of its class folder")

    def _check_sizes(self, labels: Int[Tensor, "n"], sides: dict[str, Bool[Tensor, "n"]]) -> None:
        """Raises `UsageError` if a side has one class, or a class with less than a support and a query picture."""
        for split, chosen in sides.items():
            counts = labels[chosen].bincount(minlength=len(self.classes))
            if int((counts > 0).sum()) < 2:
                raise UsageError(f"{self._name}: {split} has pictures of one class only; want two or more")
            everywhere = self.unit_name == "pictures" and not self._places.splits[0]
            small = (counts < 2) if everywhere else (counts == 1)
            if bool(small.any()):
                name = self.classes[int(small.nonzero()[0, 0])]
                total = int((labels == self.classes.index(name)).sum())
                raise UsageError(
                    f"{self._name}: class {name!r} has {total} picture(s), too few for a support and a query picture "
                    f"in {split}"
                )


@dataclass(frozen=True)
class PictureEncoder:
    """Folders of further pictures: with a folder for each class, if they are to be learned from.

    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from metarl.fewshot.data.folder import PictureEncoder
    >>> from metarl.fewshot.data.labels import listed
    >>> from metarl.fewshot.data.picture_cache import PictureOptions, PictureReader
    >>> from metarl.fewshot.data.picture_files import Reading
    >>> Path("few/cats").mkdir(parents=True)
    >>> Image.linear_gradient("L").save("few/cats/1.png")
    >>> encoder = PictureEncoder(PictureReader(PictureOptions(28), Reading(28, 1)), ("cats", "dogs"))
    >>> encoder.labels("few"), encoder.inputs("few").shape
    (['cats'], torch.Size([1, 1, 28, 28]))
    """

    reader: PictureReader
    classes: tuple[str, ...]
    favourable: str | None = None
    fixed_classes: tuple[str, ...] = ()

    def inputs(self, path: Path | str) -> Shaped[Tensor, "n C size size"]:
        """Raises `UsageError` for a file that cannot be read or does not fit, and if there are none."""
        return torch.from_numpy(np.stack([self.reader.read(Path(path) / name) for name in self.names(path)]))

    def labels(self, path: Path | str) -> list[str]:
        """The folder, in `path`, of each picture; raises `UsageError` for a picture that lies in none."""
        names = self.names(path)
        outside = [name for name in names if "/" not in name]
        if outside:
            raise UsageError(
                f"{shown(Path(path) / outside[0])} lies in no class folder: want {shown(path)}/CLASS/*.png"
            )
        return [shown(name.partition("/")[0]) for name in names]

    def names(self, path: Path | str) -> list[str]:
        """The pictures below `path`, sorted."""
        names = list_pictures(Path(path)).names
        if not names:
            raise UsageError(f"{shown(path)} holds no pictures")
        return names

    def groups(self, path: Path | str) -> None:
        return None

    def targets(self, path: Path | str) -> Tensor:
        raise UsageError("folders of pictures have classes, no values to learn")

    def features(self) -> None:
        return None

    def remarks(self, path: Path | str) -> list[str]:
        skipped = list_pictures(Path(path)).skipped_line()
        return [] if skipped is None else [f"{shown(path)}: {skipped}"]

    def entries(self) -> dict[str, Any]:
        """As plain values, of which `open_encoder` makes it again."""
        return {"kind": "pictures", "reader": dataclasses.asdict(self.reader), "classes": list(self.classes)}

    @classmethod
    def from_entries(cls, entries: Mapping[str, Any], owner: str) -> "PictureEncoder":
        return build(cls, entries, owner)


def read_places(root: Path) -> Places:
    """Lists the pictures below `root` and reads their classes off the folders; raises `UsageError` if there are none.

    Pictures outside of class folders, or beside train/ and test/, are counted as skipped.
    """
    listing = list_pictures(root)
    has_splits = any("/" in name and _split_of(name) for name in listing.names)
    rows, places = [], Places(listing, [], [], [])
    for row, name in enumerate(listing.names):
        split = _split_of(name) if has_splits else ""
        parts = (name.partition("/")[2] if has_splits else name).split("/", 2)
        if has_splits and not split:
            listing.skipped["pictures beside train/ and test/"] += 1
        elif len(parts) < 2:
            listing.skipped["pictures outside of class folders"] += 1
        else:
            rows.append(row)
            places.splits.append(split)
            places.classes.append(sys.intern(parts[0]))
            places.owners.append(sys.intern(parts[1]) if len(parts) > 2 else "")
    if has_splits and "train" not in places.splits:
        found = next(name.partition("/")[0] for name in listing.names if _split_of(name))
        raise UsageError(f"{shown(root)} holds {shown(found)}/ but no pictures in train/CLASS/")
    if not rows:
        skipped = listing.skipped_line()
        raise UsageError(
            f"{shown(root)} holds no pictures in class folders: want CLASS/*.png, jpg, tif, …"
            + ("" if skipped is None else f" ({skipped})")
        )
    return dataclasses.replace(places, listing=listing.keep(rows))


def _split_of(name: str) -> str:
    """The split that the first folder of a path stands for; empty if it is none."""
    return SPLIT_FOLDERS.get(name.partition("/")[0].lower(), "")


def standardisation(pictures: PictureCache, rows: Int[Tensor, "n"]) -> Preprocessing:
    """Scales each channel to mean 0 and variance 1 over those of the training pictures `rows` that were looked at."""
    looked = torch.from_numpy(np.intersect1d(rows.numpy(), pictures.looked_at))
    chosen = looked if len(looked) else rows[:1]
    chosen = chosen[:: -(-len(chosen) // MEASURED)]
    shape = pictures.reading.shape
    totals = torch.zeros(2, shape[0], dtype=torch.float64)
    for part in chosen.split(8):
        values = Preprocessing(shape)(pictures[part]).double()
        totals += torch.stack([values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])
    mean, square = totals / (len(chosen) * shape[1] * shape[2])
    deviation = (square - mean.square()).clamp(min=1e-12).sqrt()
    # Four digits, so that another order of summation gives the same numbers, which a resumed run compares.
    scale, shift = ([float(f"{value:.4g}") for value in values] for values in (1 / deviation, -mean / deviation))
    return Preprocessing(shape, tuple(scale), tuple(shift))
