"""Reading picture files of the common formats, each bit depth and mode for what it is.

A file says how many bits a value has room for, not how many are used: a scanner's 12-bit values come in files of 16
bits, and the 0 and 1 of a mask in files of 8. What white is can therefore not be told from one picture. `read_picture`
keeps the values of the file, and `Reading` maps them to 0 … 1 by the largest value of the data set.
"""

import io
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped
from PIL import Image, ImageOps, UnidentifiedImageError

from metarl.errors import UsageError

Background = Literal["white", "black"]
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pbm", ".pnm")
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM")
"""What a file may hold, whatever its suffix; Pillow reads others by running programs."""
MAX_PIXELS = 2**26
"""Most pixels of a picture. Decoding takes some 12 bytes for each."""
LARGE = 2**23
"""Pixels above which one picture is decoded at a time, whatever the number of threads."""
DEPTHS = (1, 2, 4, 8, 10, 12, 14, 16, 20, 24, 32)
"""Bits of a grey value that are in use."""
ORIENTATION = 0x0112
"""The EXIF and TIFF tag that says how a picture is to be turned."""
_DARK = 63
"""Largest upper byte of 14-bit values in channels of 16 bits."""
_one_large = threading.Lock()


@dataclass(frozen=True)
class Picture:
    """A picture with the values of its file.

    >>> from PIL import Image
    >>> from metarl.fewshot.data.picture_files import read_picture
    >>> Image.new("I;16", (4, 3), 4095).save("scan.png")
    >>> picture = read_picture("scan.png", "scan.png")
    >>> picture.pixels.shape, picture.is_deep, int(picture.pixels.max())
    ((3, 4), True, 4095)
    """

    pixels: Shaped[np.ndarray, "H W ..."]
    """Grey `[H, W]` or colour `[H, W, 3]`. Colour is uint8; grey is uint8, or numbers if the file has more bits."""
    traits: tuple[str, ...] = ()
    """What people are to be told of the file, in words that follow "have" or "has"."""

    @property
    def is_colour(self) -> bool:
        return self.pixels.ndim == 3

    @property
    def is_deep(self) -> bool:
        """Whether the file has room for more than 8 bits of grey."""
        return self.pixels.dtype != np.uint8


TRANSPARENT = "transparent parts"
FRAMES = "several frames, of which the first is taken"
TURNED = "an orientation in EXIF, by which they are turned"
DEEP_COLOUR = "16 bits a channel, of which the upper 8 are taken"


def read_picture(file: Path | str | bytes, what: str, background: Background = "white") -> Picture:
    """Decodes a file, given by its path or its bytes. Error lines call it `what`.

    Transparent parts show the `background`, a palette its colours; the orientation in EXIF is applied, CMYK and the
    like become RGB, and of several frames the first is taken. Raises `UsageError` for what cannot be read, for more
    than `MAX_PIXELS` and for values that are not finite.
    """
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=FORMATS) as image:
            pixels = image.width * image.height
            if pixels > MAX_PIXELS:
                raise Image.DecompressionBombError
            if pixels > LARGE:
                with _one_large:
                    return _decode(image, what, background)
            return _decode(image, what, background)
    except UsageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UsageError(f"{what} has more than {MAX_PIXELS:,} pixels: shrink it or cut it up") from None
    except UnidentifiedImageError:
        raise UsageError(f"{what} is no image: its content is of no known format") from None
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads them to
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UsageError(f"{what} is no image that can be read: {shown(reason)[:200]}") from None


def _decode(image: Image.Image, what: str, background: Background) -> Picture:
    traits = []
    if getattr(image, "is_animated", False):
        traits.append(FRAMES)
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    deep_colour = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())) and not _is_deep(image.mode)
    if _is_deep(image.mode) and tags.get(262) == 0:  # Pillow inverts 8 bits and does not invert more
        raise UsageError(f"{what} is of more than 8 bits with 0 as white: save it with 0 as black")
    is_unsigned = image.mode == "I" and tags.get(258) == (32,) and tags.get(339, (1,)) in (1, (1,))
    if image.getexif().get(ORIENTATION, 1) != 1:
        traits.append(TURNED)
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        if _is_deep(image.mode):
            raise UsageError(f"{what} has a transparent value of more than 8 bits: save it without")
        image, covered = _composite(image, background)
        traits += [TRANSPARENT] if covered else []
    if deep_colour:
        traits.append(DEEP_COLOUR)
    if not _is_deep(image.mode):
        return Picture(_bytes(image), tuple(traits))
    values = np.asarray(image)
    values = values.view(np.uint32) if is_unsigned else values
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UsageError(f"{what} holds NaN or infinity")
    return Picture(values.astype(values.dtype.newbyteorder("=")), tuple(traits))


def _is_deep(mode: str) -> bool:
    return mode == "F" or mode.startswith("I")


def _composite(image: Image.Image, background: Background) -> tuple[Image.Image, bool]:
    """The picture over the background, grey if it was grey, and whether any of the background shows."""
    layer = image.convert("RGBA")
    ground = Image.new("RGBA", layer.size, background)
    ground.alpha_composite(layer)
    flat = ground.convert("RGB")
    is_grey = image.mode in ("1", "L", "LA", "La") or (image.mode in ("P", "PA") and _has_no_colour(np.asarray(flat)))
    return flat.convert("L") if is_grey else flat, layer.getchannel("A").getextrema() != (255, 255)


def _bytes(image: Image.Image) -> Shaped[np.ndarray, "H W ..."]:
    """The 8-bit values of a picture: grey for grey modes and grey palettes."""
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    pixels = np.asarray(image.convert("RGB"))
    is_grey = image.mode == "P" and _has_no_colour(pixels)
    return np.ascontiguousarray(pixels[..., 0]) if is_grey else pixels


def _has_no_colour(pixels: Shaped[np.ndarray, "H W 3"]) -> bool:
    return all(np.array_equal(pixels[..., 0], pixels[..., channel]) for channel in (1, 2))


def resized(picture: Picture, size: int) -> Shaped[np.ndarray, "size size ..."]:
    """The values of `picture` at `size` × `size`, by Lanczos resampling.

    uint8 if the picture is and uses its 8 bits, else float32, so that the steps of 0/1 masks do not become coarse.
    """
    pixels = picture.pixels
    if picture.is_deep or (not picture.is_colour and int(pixels.max()) < 16):
        image = Image.fromarray(pixels.astype(np.float32))
        if image.size == (size, size):
            return np.asarray(image)
        values = np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))
        return values.clip(float(pixels.min()), float(pixels.max()))  # Lanczos overshoots at edges
    image = Image.fromarray(pixels)
    return np.asarray(image if image.size == (size, size) else image.resize((size, size), Image.Resampling.LANCZOS))


@dataclass(frozen=True)
class Thumbnail:
    """A picture at the size of the data set, with the values of its file.

    >>> from metarl.fewshot.data.picture_files import Picture, Thumbnail
    >>> mask = Picture(torch.eye(4, dtype=torch.uint8).numpy())
    >>> Thumbnail.of(mask, 4).high
    1.0
    """

    values: Shaped[np.ndarray, "size size ..."]
    is_deep: bool
    low: float
    """The smallest value of the picture before it was resized."""
    high: float
    """The largest value."""
    is_integer: bool
    traits: tuple[str, ...]

    @classmethod
    def of(cls, picture: Picture, size: int) -> "Thumbnail":
        low, high = float(picture.pixels.min()), float(picture.pixels.max())
        is_integer = picture.pixels.dtype.kind in "iu"
        return cls(resized(picture, size), picture.is_deep, low, high, is_integer, picture.traits)

    @property
    def is_colour(self) -> bool:
        return self.values.ndim == 3

    @property
    def is_constant(self) -> bool:
        return bool((self.values == self.values[0, 0]).all())


@dataclass(frozen=True)
class Reading:
    """How the pictures of a data set become inputs. Every picture is read alike, whatever its own values.

    >>> from metarl.fewshot.data.picture_files import Reading
    >>> Reading(size=84, channels=1, deep=(0.0, 4095.0), precise=True).dtype.name
    'float32'
    """

    size: int
    channels: int
    byte: float = 255.0
    """The value of white in grey files of 8 bits."""
    deep: tuple[float, float] | None = None
    """The values of black and white in files of more than 8 bits; None if there are none."""
    precise: bool = False
    """Keep the inputs as float32, because 8 bits would lose detail."""

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32 if self.precise else np.uint8)

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, self.size, self.size)

    def misfit(self, thumbnail: Thumbnail) -> str | None:
        """In what a picture does not fit, in words; None if it does."""
        if thumbnail.is_colour:
            return "in colour" if self.channels == 1 else None
        if thumbnail.is_deep and self.deep is None:
            return "of more than 8 bits"
        low, white = self.deep if thumbnail.is_deep and self.deep is not None else (0.0, self.byte)
        if low <= thumbnail.low and thumbnail.high <= white:
            return None
        return f"of values from {thumbnail.low:g} to {thumbnail.high:g}"

    def __call__(self, thumbnail: Thumbnail) -> Shaped[np.ndarray, "C size size"]:
        """The input: uint8 from 0 to 255, or float32 from 0 to 1."""
        values = thumbnail.values
        if thumbnail.is_colour:
            planes = values.transpose(2, 0, 1)
            return planes if self.dtype == np.uint8 else planes.astype(np.float32) / np.float32(255)
        low, white = self.deep if thumbnail.is_deep and self.deep is not None else (0.0, self.byte)
        if self.dtype == np.uint8 and values.dtype == np.uint8 and white == 255:
            plane = values
        else:
            plane = ((values.astype(np.float64) - low) / (white - low)).astype(np.float32)
            plane = (plane * 255).round().astype(np.uint8) if self.dtype == np.uint8 else plane.clip(0, 1)
        return np.broadcast_to(plane, self.shape)


def grey(thumbnail: Thumbnail) -> Thumbnail:
    """The picture without its colours (luma of ITU-R 601)."""
    if not thumbnail.is_colour:
        return thumbnail
    values = np.asarray(Image.fromarray(thumbnail.values).convert("L"))
    return Thumbnail(values, False, 0.0, 255.0, True, thumbnail.traits)  # white is 255 in every colour file


@dataclass
class Survey:
    """What the pictures of a data set have in common, found by looking at many.

    >>> from metarl.fewshot.data.picture_files import Picture, Survey, Thumbnail
    >>> survey = Survey()
    >>> survey.add(Thumbnail.of(Picture(torch.eye(16, dtype=torch.uint8).numpy()), 16), "a mask")
    >>> survey.reading(16).byte
    1.0
    """

    count: int = 0
    has_colour: bool = False
    byte: float = 0.0
    """Largest value of grey files of 8 bits."""
    deep: tuple[float, float] | None = None
    """Smallest and largest value of files of more bits."""
    is_integer: bool = True
    """Whether the files of more bits hold whole numbers."""
    constant: int = 0
    """Pictures whose pixels are all alike."""
    first_constant: str = ""
    traits: dict[str, int] = field(default_factory=dict)
    deep_colour: float = 0.0
    """Largest upper byte of colour files of 16 bits a channel."""

    def add(self, thumbnail: Thumbnail, name: str) -> None:
        self.count += 1
        if thumbnail.is_constant:
            self.first_constant = self.first_constant or name
            self.constant += 1
        for trait in thumbnail.traits:
            self.traits[trait] = self.traits.get(trait, 0) + 1
        if DEEP_COLOUR in thumbnail.traits:
            self.deep_colour = max(self.deep_colour, thumbnail.high)
        if thumbnail.is_colour:
            self.has_colour = True
        elif thumbnail.is_deep:
            low, high = self.deep or (thumbnail.low, thumbnail.high)
            self.deep = min(low, thumbnail.low), max(high, thumbnail.high)
            self.is_integer &= thumbnail.is_integer
        else:
            self.byte = max(self.byte, thumbnail.high)

    def reading(self, size: int, channels: int | None = None) -> Reading:
        """How to read all: grey values by the depth in bits that the largest needs, negative ones symmetrically.

        Numbers that are not whole are read by the power of two that bounds them. Raises `UsageError` for colours of
        which Pillow has lost too much.
        """
        if DEEP_COLOUR in self.traits and self.deep_colour <= _DARK:
            raise UsageError(
                f"{self.traits[DEEP_COLOUR]} pictures have colours of 16 bits a channel, of which 14 or fewer are "
                "used and only the upper 8 can be read: save them with 8 bits a channel"
            )
        deep = None if self.deep is None else _black_and_white(*self.deep, self.is_integer)
        byte = _white(self.byte) if self.byte else 255.0
        precise = self.deep is not None and not (self.is_integer and self.deep[0] >= 0 and self.deep[1] <= 255)
        return Reading(size, channels or (3 if self.has_colour else 1), byte, deep, precise)


def _white(largest: float) -> float:
    """The largest whole number of the depth that `largest` needs."""
    return float(next(2**bits - 1 for bits in DEPTHS if largest <= 2**bits - 1))


def _black_and_white(low: float, high: float, is_integer: bool) -> tuple[float, float]:
    if is_integer and low >= 0:
        return 0.0, _white(high)
    bound = max(abs(low), abs(high))
    power = float(2.0 ** np.ceil(np.log2(bound))) if bound > 0 else 1.0
    return (0.0 if low >= 0 else -power), power


def shown(name: Path | str) -> str:
    """A file's name, or another text from outside, on one line that any terminal can print."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(name))
