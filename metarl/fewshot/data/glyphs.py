"""Synthetic characters: the letters of many scripts from the fonts that matplotlib ships, each distorted 20 times.

They work offline and need no download, but they are not handwritten: results on them do not carry over to Omniglot.
Train and test share no script. Letters that look alike (о in Latin, Greek and Cyrillic) are one class: the first one is
kept.
"""

import functools
import math
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from metarl.fewshot.data import DataConfig, LabelledData
from metarl.fewshot.episodes import Pool
from metarl.fewshot.preprocessing import Preprocessing
from metarl.randomness import make_generator
from metarl.tasks import check_count

SCRIPTS = {
    "train": ("LATIN", "CYRILLIC", "CANADIAN", "LAO", "NKO", "OLD", "OGHAM", "TIFINAGH"),
    "test": ("GREEK", "ARMENIAN", "HEBREW", "ARABIC", "GEORGIAN"),
}
"""The scripts of each split, by the first word of their letters' Unicode names."""
FACES = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Italic", "DejaVuSansMono")
SIZE = 28
ALIKE = 0.045
"""Two letters look alike if their 28 × 28 images differ by less than this, in the mean over pixels."""
_CANVAS = 2 * SIZE


@dataclass(frozen=True)
class GlyphsConfig(DataConfig):
    """Options of the synthetic characters.

    >>> from metarl.fewshot.data.glyphs import GlyphsConfig
    >>> GlyphsConfig(drawings=5).drawings
    5
    """

    drawings: int = 20
    """Distorted images of each letter."""

    def __post_init__(self) -> None:
        check_count("drawings", self.drawings)


class Glyphs(LabelledData):
    """Synthetic characters, black on white, uint8 `[n, 1, 28, 28]`. Network inputs have ink 1 and paper 0.

    >>> from metarl.fewshot.data import open_data
    >>> data = open_data("glyphs", {"drawings": 2})
    >>> shape = metarl.fewshot.EpisodeShape(ways=5, shots=1, queries=1)
    >>> data.episodes("train", 4, shape, seed=0).support.x.shape
    torch.Size([4, 5, 1, 28, 28])
    """

    config_class = GlyphsConfig

    def __init__(self, config: GlyphsConfig):
        super().__init__(config)
        self.preprocessing = Preprocessing((1, SIZE, SIZE), scale=(-1.0,), shift=(1.0,))
        self.pools = {}
        for split in SCRIPTS:
            images = draw(split, config.drawings)
            labels = torch.arange(len(images)).repeat_interleave(config.drawings)
            self.pools[split] = Pool(images.flatten(0, 1), labels, name=f"glyphs ({split})")


@functools.cache
def draw(split: str, count: int) -> UInt8[Tensor, "C count 1 28 28"]:
    """`count` drawings of each letter of a split, black on white."""
    letters = [letter for letter in _distinct_letters() if _script(letter) in SCRIPTS[split]]
    return 255 - torch.stack([distort(render(letter), letter, count) for letter in letters])


@functools.cache
def _distinct_letters() -> tuple[str, ...]:
    """All letters of the scripts, except those that look like an earlier one."""
    wanted = [script for scripts in SCRIPTS.values() for script in scripts]
    letters = sorted(
        (chr(code) for code in _characters(FACES[0]) if _is_letter(chr(code)) and _script(chr(code)) in wanted),
        key=lambda letter: (wanted.index(_script(letter)), letter),
    )
    pictures = torch.stack([render(letter)[0] for letter in letters]).float().div(255)
    small = F.avg_pool2d(pictures[:, None], 2).flatten(1)
    alike = torch.cdist(small, small, p=1) / small.shape[1] < ALIKE
    kept: list[int] = []
    for index in range(len(letters)):
        if not alike[index, kept].any():
            kept.append(index)
    return tuple(letters[index] for index in kept)


@functools.cache
def render(letter: str) -> UInt8[Tensor, "F 56 56"]:
    """`letter` in every face that has it, with regular and heavy strokes, white on black, centred and of one size."""
    pictures = []
    for face in FACES:
        if ord(letter) not in _characters(face):
            continue
        for stroke in (0, 2):
            canvas = Image.new("L", (200, 200))
            ImageDraw.Draw(canvas).text((60, 40), letter, fill=255, font=_font(face), stroke_width=stroke)
            inked = canvas.crop(canvas.getbbox())
            scale = 0.72 * _CANVAS / max(inked.size)
            width, height = (max(2, round(side * scale)) for side in inked.size)
            picture = Image.new("L", (_CANVAS, _CANVAS))
            corner = ((_CANVAS - width) // 2, (_CANVAS - height) // 2)
            picture.paste(inked.resize((width, height), Image.Resampling.LANCZOS), corner)
            pictures.append(torch.from_numpy(np.array(picture)))
    return torch.stack(pictures)


def distort(pictures: UInt8[Tensor, "F 56 56"], letter: str, count: int) -> UInt8[Tensor, "n 1 28 28"]:
    """`count` drawings of `letter`: random pictures of it, rotated, scaled, sheared, shifted and bent."""
    generator = make_generator("glyphs", ord(letter))
    chosen = pictures[torch.randint(len(pictures), (count,), generator=generator), None].float()

    def uniform(low: float, high: float, *shape: int) -> Float[Tensor, "..."]:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    angle, shear = uniform(-1.0, 1.0) * math.radians(20), uniform(-0.25, 0.25)
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cos, shear * cos - sin], 1), torch.stack([sin, shear * sin + cos], 1)], 1)
    matrix = turn / uniform(0.8, 1.2, 1, 2)
    grid = F.affine_grid(torch.cat([matrix, uniform(-0.1, 0.1, 2, 1)], 2), [count, 1, _CANVAS, _CANVAS], False)
    bend = F.interpolate(uniform(-0.12, 0.12, 2, 4, 4), size=_CANVAS, mode="bicubic", align_corners=True)
    warped = F.grid_sample(chosen, grid + bend.permute(0, 2, 3, 1), align_corners=False)
    return F.avg_pool2d(warped, 2).round().clamp(0, 255).to(torch.uint8)


def _is_letter(character: str) -> bool:
    """Whether it is a plain letter, without accents and not a ligature."""
    letter = unicodedata.category(character).startswith("L") and not unicodedata.decomposition(character)
    return letter and " WITH " not in unicodedata.name(character, " WITH ")


def _script(character: str) -> str:
    return unicodedata.name(character).split()[0]


def _font_path(face: str) -> str:
    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf")


@functools.cache
def _characters(face: str) -> frozenset[int]:
    return frozenset(FT2Font(_font_path(face)).get_charmap())


@functools.cache
def _font(face: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_font_path(face), 72, layout_engine=ImageFont.Layout.BASIC)
