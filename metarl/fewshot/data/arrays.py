"""Data that are arrays: a .npz file of embeddings or signals with labels, and a user's PyTorch data sets.

Any foundation model's features, of pictures or texts, become a few-shot data set by `numpy.savez("features.npz",
x=features, y=labels)`.
"""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from metarl.errors import UsageError
from metarl.experiment.options import build
from metarl.fewshot.data import DataConfig
from metarl.fewshot.data.columns import MISSING
from metarl.fewshot.data.labels import check_case, plain_names
from metarl.fewshot.data.npz_file import read_npz
from metarl.fewshot.data.number_checks import LARGEST, MOST_ROUNDED, check_integers, check_precision, whole_numbers
from metarl.fewshot.data.tables import Table, held_out_classes, held_out_rows, split_pools, standardisation
from metarl.fewshot.preprocessing import Preprocessing, as_tensor, first_not_finite

NAMES = {"x": ("x", "embeddings", "features"), "y": ("y", "labels"), "groups": ("groups",), "split": ("split",)}
"""What an array is called in a file."""
MANY_CLASSES = 10
"""With this many classes, or more, whole classes are held out unless the user says otherwise."""


@dataclass(frozen=True)
class NpzConfig(DataConfig):
    """Options of a .npz file.

    >>> from metarl.fewshot.data.arrays import NpzConfig
    >>> NpzConfig(file="features.npz").signal
    False
    """

    file: str | None = None
    """The .npz file, in the folder --root if that is given. It has the arrays x (or embeddings, features), y (or
    labels), and may have groups, and split of the words train and test."""
    split_by: Literal["rows", "classes"] | None = None
    """Split train and test by rows or by classes; if not given, and there is no array split, by classes if there are
    ten or more."""
    signal: bool = False
    """Rows are signals over time, and the network is convolutional. Arrays [n, C, L] are signals in any case."""
    favourable: str | None = None
    """The favourable label, which is label 1 of every episode; needs the array groups."""


class NpzData(Table):
    """Embeddings `[n, D]` or signals `[n, C, L]` with labels, from a .npz file.

    >>> import numpy as np
    >>> from metarl.fewshot.data import open_data
    >>> np.savez("features.npz", x=np.random.default_rng(0).normal(size=(240, 16)), y=np.arange(240) % 12)
    >>> data = open_data("npz", {"file": "features.npz"})
    >>> data.summary()
    ['x: 240 vectors of 16', 'y: 12 labels', 'split by classes: 160 train, 80 test rows']
    """

    config_class = NpzConfig
    config: NpzConfig

    def __init__(self, config: NpzConfig):
        super().__init__(config)
        if config.file is None:
            raise UsageError("data npz needs a file with the arrays x and y: --file F.npz")
        self.path = Path(config.file) if config.root is None else config.root / config.file
        arrays = _named_arrays(self.path)
        inputs, found = _inputs(arrays["x"], f"{self.path}, x", config.signal), arrays["y"]
        _check_precision(arrays["x"], f"{self.path}, x", config.signal)
        labels, self.classes = class_codes(found, f"{self.path}, y")
        """What the values 0, 1, … of the label stand for."""
        for name in ("y", "groups", "split"):
            if name in arrays and len(arrays[name]) != len(inputs):
                raise UsageError(f"{self.path}: x has {len(inputs)} rows, but {name} has {len(arrays[name])}")
        groups = self._groups(arrays)
        held_out, by = self._held_out(arrays, labels)
        self.preprocessing = _preprocessing(inputs, held_out)
        units = labels if by == "classes" else None
        favourable = None if config.favourable is None else self.classes.index(config.favourable)
        self.pools = split_pools(inputs, labels, held_out, self.path.name, groups, favourable, units, by)
        for split, pool in self.pools.items():
            if int(pool.counts.min()) < 2 or len(pool.classes) < 2:
                raise UsageError(f"{self.path}: {split} needs two classes and two rows of each")
        what = f"vectors of {inputs.shape[1]}" if inputs.ndim == 2 else f"signals of {list(inputs.shape[1:])}"
        sizes = ", ".join(f"{len(pool)} {split}" for split, pool in self.pools.items())
        ignored = [] if groups is not None or "groups" not in arrays else ["groups: ignored, --favourable uses them"]
        self._summary = [f"x: {len(inputs)} {what}", f"y: {len(self.classes)} labels", *ignored]
        self._summary.append(f"split by {'the array split' if 'split' in arrays else by}: {sizes} rows")

    def summary(self) -> list[str]:
        return [*self._summary, *self.copies]

    def facts(self) -> dict[str, Any]:
        favourable = self.config.favourable
        return {} if favourable is None else {"group": "groups", "groups": self.groups, "favourable": favourable}

    def group_names(self) -> list[str]:
        return self.groups

    def encoder(self) -> dict[str, Any]:
        config = self.config
        return ArrayEncoder(tuple(self.classes), config.signal, config.favourable, tuple(self.groups)).entries()

    def _groups(self, arrays: Mapping[str, np.ndarray]) -> Int[Tensor, "n"] | None:
        favourable = self.config.favourable
        self.groups: list[str] = []
        if favourable is None:
            return None
        if "groups" not in arrays:
            raise UsageError(f"--favourable {favourable} goes with groups, of which {self.path} has no array")
        if favourable not in self.classes:
            raise UsageError(f"--favourable {favourable}: y of {self.path} has {', '.join(self.classes[:8])}")
        codes, self.groups = class_codes(arrays["groups"], f"{self.path}, groups")
        if len(self.groups) == 1:
            raise UsageError(
                f"{self.path}: groups is {self.groups[0]!r} in every row, and fairness is between two or more groups: "
                f"leave --favourable out"
            )
        return codes

    def _held_out(self, arrays: Mapping[str, np.ndarray], labels: Int[Tensor, "n"]) -> tuple[Bool[Tensor, "n"], str]:
        """The mask of the test rows, and what they are split by; units of intervals are the classes or the rows."""
        by = self.config.split_by
        if "split" not in arrays:
            by = by or ("classes" if len(self.classes) >= MANY_CLASSES else "rows")
            if by == "classes":
                return held_out_classes(labels, str(self.path)), by
            return held_out_rows(labels, "npz"), by
        if by is not None:
            raise UsageError(f"{self.path} says by its array split what the test is: leave --split-by out")
        split = arrays["split"]
        words = set(np.unique(split).tolist()) if split.dtype.kind == "U" else {"numbers"}
        if words != {"train", "test"}:
            raise UsageError(f"{self.path}: split holds {sorted(words)[:4]}; want the words train and test")
        held_out = torch.from_numpy(split == "test")
        return held_out, split_units(labels[~held_out], labels[held_out], str(self.path))


@dataclass(frozen=True)
class ArrayEncoder:
    """Further .npz files: the array x, and y if they are to be learned from.

    >>> import numpy as np
    >>> from metarl.fewshot.data.arrays import ArrayEncoder
    >>> np.savez("few.npz", x=np.zeros((3, 4)), y=np.array(["cat", "dog", "cat"]))
    >>> encoder = ArrayEncoder(("cat", "dog"))
    >>> encoder.labels("few.npz"), encoder.inputs("few.npz").shape
    (['cat', 'dog', 'cat'], torch.Size([3, 4]))
    """

    classes: tuple[str, ...]
    signal: bool = False
    favourable: str | None = None
    group_names: tuple[str, ...] = ()
    fixed_classes: tuple[str, ...] = ()

    def inputs(self, path: Path | str) -> Tensor:
        return _inputs(_named_arrays(Path(path), ("x",))["x"], f"{path}, x", self.signal)

    def labels(self, path: Path | str) -> list[str]:
        codes, names = class_codes(_named_arrays(Path(path), ("y",))["y"], f"{path}, y")
        return [names[code] for code in codes.tolist()]

    def groups(self, path: Path | str) -> Int[Tensor, "n"] | None:
        """Raises `UsageError` for a group that the training does not know."""
        found = _named_arrays(Path(path), ()).get("groups") if self.group_names else None
        if found is None:
            return None
        codes, names = class_codes(found, f"{path}, groups")
        new = [name for name in names if name not in self.group_names]
        if new:
            raise UsageError(f"{path}: a group is {new[0]!r}; the run knows {', '.join(self.group_names)}")
        return torch.tensor([self.group_names.index(name) for name in names])[codes]

    def targets(self, path: Path | str) -> Tensor:
        raise UsageError(".npz files have classes, no values to learn")

    def features(self) -> None:
        return None

    def names(self, path: Path | str) -> None:
        return None

    def remarks(self, path: Path | str) -> list[str]:
        return []

    def entries(self) -> dict[str, Any]:
        """As plain values, of which `open_encoder` makes it again."""
        return {"kind": "arrays"} | dataclasses.asdict(self)

    @classmethod
    def from_entries(cls, entries: Mapping[str, Any], owner: str) -> "ArrayEncoder":
        return build(cls, entries, owner)


class DatasetPair(Table):
    """Two data sets of pairs (input, label) as they are in memory; `from_dataset` makes it.

    >>> pairs = [(torch.full((3,), float(i % 4)), i % 4) for i in range(40)]
    >>> data = metarl.fewshot.from_dataset(pairs[:24], pairs[24:])
    >>> data.default_shape()
    EpisodeShape(ways=4, shots=2, queries=2)
    """

    def __init__(self, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: list[str]):
        super().__init__(DataConfig())
        self.classes = classes
        (x_train, y_train), (x_test, y_test) = train, test
        inputs, labels = torch.cat([x_train, x_test]), torch.cat([y_train, y_test])
        held_out = torch.arange(len(inputs)) >= len(x_train)
        by = split_units(y_train, y_test, "the data sets")
        is_image = inputs.ndim == 4
        self.preprocessing = Preprocessing(tuple(inputs.shape[1:])) if is_image else _preprocessing(inputs, held_out)
        self.has_baselines = not is_image
        self.pools = split_pools(
            inputs, labels, held_out, "the data set", None, None, labels if by == "classes" else None, by
        )

    def summary(self) -> list[str]:
        return self.copies


def from_dataset(train: Any, test: Any, *, signal: bool = False) -> DatasetPair:
    """A data set of `train` and `test`: each a `torch.utils.data.Dataset`, or any sequence, of pairs (x, y).

    All x have one shape: `[D]` vectors, `[C, L]` signals if `signal` is set, else `[H, W]`, `[1, H, W]`, `[3, H, W]` or
    `[H, W, 3]` images, uint8 or floats from 0 to 1. y are whole numbers or words. Both sides have the same classes, or
    none in common; then these are the units of intervals. Raises `UsageError` for anything else.

    >>> pairs = [(torch.randn(8), i % 5) for i in range(100)]
    >>> data = metarl.fewshot.from_dataset(pairs[:60], pairs[60:])
    >>> config = metarl.fewshot.FewShotConfig("protonet", data)
    """
    sides = [_pairs(side, name, signal) for side, name in ((train, "train"), (test, "test"))]
    if sides[0][0].shape[1:] != sides[1][0].shape[1:] or sides[0][0].dtype != sides[1][0].dtype:
        shapes = [f"{list(x.shape[1:])} {str(x.dtype).removeprefix('torch.')}" for x, _ in sides]
        raise UsageError(f"the inputs of train are {shapes[0]}, those of test {shapes[1]}")
    codes, classes = class_codes(np.array([y for _, side in sides for y in side]), "the labels")
    cut = len(sides[0][0])
    return DatasetPair((sides[0][0], codes[:cut]), (sides[1][0], codes[cut:]), classes)


def class_codes(values: np.ndarray, what: str) -> tuple[Int[Tensor, "n"], list[str]]:
    """The index of each label among the sorted ones, and their names; raises `UsageError` if they are no labels."""
    if values.ndim != 1 or not len(values):
        raise UsageError(f"{what}: want one label for each row, [n], got shape {list(values.shape)}")
    if values.dtype.kind == "f":
        values = whole_numbers(values, what)
    if values.dtype.kind not in "iuUb":
        hint = f": {what.rpartition(' ')[2]}.astype(str) makes words of bytes" if values.dtype.kind == "S" else ""
        raise UsageError(f"{what}: labels must be whole numbers or words, got {values.dtype}{hint}")
    if values.dtype.kind == "U":
        values = _checked_words(values, what)
    names, codes = np.unique(values, return_inverse=True)
    return torch.from_numpy(codes.astype(np.int64)), [str(name) for name in names.tolist()]


def _checked_words(values: np.ndarray, what: str) -> np.ndarray:
    """The words of labels as those of a table: without spaces around them, numbers in one notation.

    Raises `UsageError` for words that mean a missing label, and for two that differ in case alone.
    """
    different, place = np.unique(values, return_inverse=True)
    words = [word.strip() for word in different.tolist()]
    missing = [number for number, word in enumerate(words) if word in MISSING]
    if missing:
        row = int((place == missing[0]).argmax()) + 1
        raise UsageError(f"{what}: the label of row {row} is missing ({words[missing[0]]!r}): drop the row or name it")
    check_case(words, what)
    return np.array(plain_names(words))[place]


def split_units(train: Int[Tensor, "n"], test: Int[Tensor, "m"], name: str) -> Literal["rows", "classes"]:
    """What varies over intervals: rows if both sides have the same classes, classes if they have none in common."""
    seen, new = set(train.tolist()), set(test.tolist())
    if seen == new:
        return "rows"
    if not seen & new:
        return "classes"
    raise UsageError(
        f"{name}: {len(seen & new)} of the {len(new)} test classes are training classes too; want all of them, or none"
    )


def _named_arrays(path: Path, needed: Collection[str] = ("x", "y")) -> dict[str, np.ndarray]:
    """The arrays by their first name; raises `UsageError` if one of `needed` is missing or there are two."""
    found = read_npz(path, [name for names in NAMES.values() for name in names])
    arrays = {}
    for first, names in NAMES.items():
        have = [name for name in names if name in found]
        if len(have) > 1:
            raise UsageError(f"{path} has the arrays {have[0]} and {have[1]}, of which one is enough")
        if not have and first in needed:
            raise UsageError(f"{path} has no array {' or '.join(names)}")
        if have:
            arrays[first] = found[have[0]]
    return arrays


def _inputs(values: np.ndarray, what: str, signal: bool) -> Tensor:
    """Float32 inputs `[n, D]` or `[n, C, L]`; raises `UsageError` for other shapes, words, NaN and infinity."""
    if values.dtype.kind not in "fiub":
        raise UsageError(f"{what} holds {values.dtype}, want numbers")
    if signal and values.ndim == 2:
        values = values[:, None]
    if values.ndim not in (2, 3) or 0 in values.shape:
        hint = "; pictures are for --data folder" if values.ndim == 4 else ""
        raise UsageError(f"{what}: want vectors [n, D] or signals [n, C, L], got shape {list(values.shape)}{hint}")
    with np.errstate(over="ignore"):
        inputs = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    found = first_not_finite(inputs)
    if found is not None:
        row, place = found
        shown = values.reshape(len(values), -1)[row, place]
        raise UsageError(
            f"{what} holds NaN, infinity or a number too large for float32, first {shown} in row {row + 1}, column "
            f"{place + 1}: drop the row or put a number there"
        )
    return inputs


def _check_precision(values: np.ndarray, what: str, signal: bool) -> None:
    """Raises `UsageError` for a feature, or a channel of signals, whose numbers float32 mixes up."""
    if values.dtype.kind in "f" and values.dtype.itemsize <= 4:
        return
    if signal and values.ndim == 2:
        values = values[:, None]
    columns = values if values.ndim == 2 else values.swapaxes(1, 2).reshape(-1, values.shape[1])
    if values.dtype.kind in "iu":
        check_integers(columns, what)
    columns = columns.astype(np.float64)
    if not len(columns) or not np.abs(columns).max() <= LARGEST:
        return  # `_inputs` says so
    wide = columns.std(0)
    lost = np.abs(columns - columns.astype(np.float32)).max(0) > MOST_ROUNDED * wide
    lost |= wide < float(np.finfo(np.float32).tiny)
    for place in lost.nonzero()[0].tolist():
        check_precision(columns[:, place], f"{what}, {'column' if values.ndim == 2 else 'channel'} {place + 1}")


def _preprocessing(inputs: Tensor, held_out: Bool[Tensor, "n"]) -> Preprocessing:
    """Scales each feature, or each channel of signals, to mean 0 and variance 1 over the training rows."""
    training = inputs[~held_out]
    if inputs.ndim == 2:
        return standardisation(training)
    of_channels = standardisation(training.transpose(1, 2).flatten(0, 1))
    return Preprocessing(tuple(inputs.shape[1:]), of_channels.scale, of_channels.shift)


def _pairs(side: Any, name: str, signal: bool) -> tuple[Tensor, list[Any]]:
    """The inputs of one side in one tensor, and its labels as plain values."""
    try:
        pairs = [side[index] for index in range(len(side))]
        inputs, labels = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    except (TypeError, IndexError, KeyError):
        raise UsageError(f"{name}: want a sequence of pairs (input, label) that has a length") from None
    if not pairs:
        raise UsageError(f"{name} is empty")
    x = as_tensor([np.asarray(value) if not isinstance(value, Tensor) else value for value in inputs], name)
    labels = [label.item() if isinstance(label, (Tensor, np.generic)) else label for label in labels]
    if not all(isinstance(label, (int, str)) for label in labels) or len({type(label) for label in labels}) > 1:
        raise UsageError(f"{name}: labels must be whole numbers or words, all of one kind")
    if x.ndim == 2 or (signal and x.ndim == 3):
        _check_precision(x.numpy(), f"{name}, inputs", signal)
        return _inputs(x.numpy(), f"{name}, inputs", False), labels
    if signal or x.ndim not in (3, 4):
        raise UsageError(f"{name}: want inputs [D], images or, with signal=True, [C, L], got {list(x.shape[1:])}")
    return _images(x, name), labels


def _images(x: Tensor, name: str) -> Tensor:
    """Images `[n, C, H, W]`."""
    layout = x[:, None] if x.ndim == 3 else x
    if layout.shape[1] not in (1, 3) and layout.shape[3] in (1, 3):
        layout = layout.permute(0, 3, 1, 2)
    if layout.shape[1] not in (1, 3):
        raise UsageError(f"{name}: want images of 1 or 3 channels, got shape {list(x.shape[1:])}")
    if layout.dtype == torch.uint8:
        return layout.contiguous()
    layout = layout.float().contiguous()
    if not layout.isfinite().all() or float(layout.min()) < 0 or float(layout.max()) > 1:
        raise UsageError(f"{name}: images are uint8 from 0 to 255 or floats from 0 to 1; got other numbers")
    return layout
