"""Omniglot (Lake, Salakhutdinov, Tenenbaum, Science 2015): 1,623 hand-written characters, 20 drawings each.

The split is the one of the few-shot literature (Vinyals et al. 2016): 1,200 characters for training and 423 for the
test, each in four orientations, which are separate classes. The published lists consist of whole alphabets, except that
Gurmukhi is divided: characters 1 to 41 are for training, 42 to 45 for the test. The names of the test alphabets
therefore define the split. `validation` makes the last five training alphabets (172 characters) the test classes, as in
the published lists.
"""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from metarl.errors import UsageError
from metarl.experiment.files import write_atomically
from metarl.fewshot.data import DataConfig, LabelledData
from metarl.fewshot.data.cache_folder import cache_folder
from metarl.fewshot.episodes import Pool
from metarl.fewshot.preprocessing import Preprocessing, resize_images

PARTS = ("images_background", "images_evaluation")
TEST_ALPHABETS = (
    "Kannada",
    "Keble",
    "Malayalam",
    "Manipuri",
    "Mongolian",
    "Old_Church_Slavonic_(Cyrillic)",
    "Oriya",
    "Syriac_(Serto)",
    "Sylheti",
    "Tengwar",
    "Tibetan",
    "ULOG",
)
VALIDATION_ALPHABETS = ("Hebrew", "Mkhedruli_(Georgian)", "Armenian", "Early_Aramaic", "Bengali")
GURMUKHI_TRAIN = 41
DRAWINGS, RAW_SIZE = 20, 105
SIZE = 28


@dataclass(frozen=True)
class OmniglotConfig(DataConfig):
    """Options of Omniglot; `root` is the folder with images_background and images_evaluation, or their .zip files.

    >>> from metarl.fewshot.data.omniglot import OmniglotConfig
    >>> OmniglotConfig(rotations=False).validation
    False
    """

    rotations: bool = True
    """Add each character rotated by 90, 180 and 270 degrees as three more classes."""
    validation: bool = False
    """Test on the validation characters and train without them."""


class Omniglot(LabelledData):
    """Omniglot, black on white, uint8 `[n, 1, 28, 28]`, downsized from 105 × 105. Network inputs have ink 1, paper 0.

    >>> from metarl.fewshot.data import open_data
    >>> data = open_data("omniglot", {"root": "data/omniglot"})
    >>> data.episodes("test", 4, data.default_shape(), seed=0).support.x.shape
    torch.Size([4, 5, 1, 28, 28])
    """

    config_class = OmniglotConfig

    def __init__(self, config: OmniglotConfig):
        super().__init__(config)
        self.preprocessing = Preprocessing((1, SIZE, SIZE), scale=(-1.0,), shift=(1.0,))
        images, names = read_omniglot(config.root)
        splits = [split_of(name) for name in names]
        chosen = {"train": ("train", "validation"), "test": ("test",)}
        if config.validation:
            chosen = {"train": ("train",), "test": ("validation",)}
        self.pools = {}
        for split, members in chosen.items():
            characters = images[torch.tensor([s in members for s in splits])]
            if len(characters) == 0:
                raise UsageError(f"{config.root}: none of its alphabets are of Omniglot's {split} split")
            turned = [characters.rot90(turn, (-2, -1)) for turn in range(4 if config.rotations else 1)]
            flat = torch.cat(turned).flatten(0, 1)[:, None].contiguous()
            labels = torch.arange(len(flat)) // characters.shape[1]
            units = labels % len(characters)
            self.pools[split] = Pool(flat, labels, name=f"omniglot ({split})", units=units, unit_name="characters")


def split_of(character: str) -> str:
    """The split, "train", "validation" or "test", of a character named "Alphabet/characterNN"."""
    alphabet, _, number = character.partition("/")
    if alphabet == "Gurmukhi":
        return "train" if int(number.removeprefix("character")) <= GURMUKHI_TRAIN else "test"
    if alphabet in TEST_ALPHABETS:
        return "test"
    return "validation" if alphabet in VALIDATION_ALPHABETS else "train"


def read_omniglot(root: Path | None) -> tuple[UInt8[Tensor, "C 20 28 28"], list[str]]:
    """Reads all characters under `root`, in the order of their names "Alphabet/characterNN".

    Decoding takes about ten seconds; the result is cached in the user's cache folder (`XDG_CACHE_HOME`).
    """
    expected = f"{PARTS[0]} and {PARTS[1]} (the published folders, or the .zip files of these names)"
    if root is None:
        raise UsageError(f"omniglot: name with --root the folder that holds {expected}")
    sources = [_source(Path(root), part) for part in PARTS]
    if any(source is None for source in sources):
        raise UsageError(f"omniglot: {root} does not hold {expected}")
    found = [source for source in sources if source is not None]
    cache = _cache_file(found)
    if cache.is_file():
        with safetensors.safe_open(cache, "pt") as file:
            return file.get_tensor("images"), file.metadata()["names"].split("\n")
    drawings: dict[str, list[UInt8[np.ndarray, "105 105"]]] = {}
    for source in found:
        for character, image in _drawings(source):
            drawings.setdefault(character, []).append(image)
    names = sorted(drawings)
    wrong = next((name for name in names if len(drawings[name]) != DRAWINGS), None)
    if not names or wrong is not None:
        what = f"{wrong} has {len(drawings[wrong])} of {DRAWINGS} drawings" if wrong else "there are no images"
        raise UsageError(f"omniglot: {root} is not complete: {what}")
    raw = torch.from_numpy(np.stack([image for name in names for image in drawings[name]]))
    images = resize_images(raw[:, None], (SIZE, SIZE)).reshape(len(names), DRAWINGS, SIZE, SIZE)
    write_atomically(cache, safetensors.torch.save({"images": images}, {"names": "\n".join(names)}))
    return images, names


def _source(root: Path, part: str) -> Path | None:
    """The folder or the archive of one part."""
    return next((path for path in (root / part, root / f"{part}.zip") if path.exists()), None)


def _drawings(source: Path) -> Iterator[tuple[str, UInt8[np.ndarray, "105 105"]]]:
    """Yields ("Alphabet/characterNN", image) for every drawing of a part, in the order of the file names."""
    if source.is_dir():
        for path in sorted(source.glob("*/character*/*.png")):
            yield "/".join(path.parts[-3:-1]), _decode(path.read_bytes(), str(path))
        return
    try:
        with zipfile.ZipFile(source) as archive:
            for name in sorted(name for name in archive.namelist() if name.endswith(".png")):
                yield "/".join(Path(name).parts[-3:-1]), _decode(archive.read(name), f"{source}, {name}")
    except (zipfile.BadZipFile, EOFError) as error:
        raise UsageError(f"omniglot: {source} is damaged: {error}") from None


def _decode(data: bytes, what: str) -> UInt8[np.ndarray, "105 105"]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image.convert("L"))
    except (OSError, ValueError, SyntaxError):
        raise UsageError(f"omniglot: {what} is no image") from None
    if pixels.shape != (RAW_SIZE, RAW_SIZE):
        raise UsageError(f"omniglot: {what} is {pixels.shape[1]} × {pixels.shape[0]}, want {RAW_SIZE} × {RAW_SIZE}")
    return pixels


def _cache_file(sources: list[Path]) -> Path:
    """The cache file of the decoded images, named by the paths, sizes and modification times of the sources."""
    files = [file for source in sources for file in ([source] if source.is_file() else sorted(source.rglob("*.png")))]
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(repr(stats).encode()).hexdigest()[:16]
    return cache_folder() / f"omniglot-{SIZE}-{key}.safetensors"
