"""Conversion of a user's data (raw images, tables, lists) to network inputs, in training and afterwards."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from metarl.errors import UsageError

_CHUNK = 2048
"""Images resized at a time, so that the float copies stay small."""


@dataclass(frozen=True)
class Preprocessing:
    """Converts raw inputs to network inputs of shape `shape`: `raw * scale + shift`.

    Images have a `shape` (C, H, W). They are uint8 from 0 to 255, which are divided by 255, or floats from 0 to 1. They
    are resized if their size differs. Vectors have a `shape` (D,), and one-dimensional signals (C, L): C channels of
    length L.

    >>> from metarl.fewshot.preprocessing import Preprocessing
    >>> Preprocessing((2,), scale=(0.5,), shift=(-1.0,)).from_user([[2.0, 4.0]], "support_x")
    tensor([[0., 1.]])
    """

    shape: tuple[int, ...]
    scale: tuple[float, ...] = (1.0,)
    """One factor for all, or one for each channel or feature."""
    shift: tuple[float, ...] = (0.0,)
    """One number for all, or one for each channel or feature."""
    numeric: tuple[bool, ...] = field(default=(), compare=False)
    """Whether each input of a vector is a number, which can change a little, and no 0/1 of a word; all if empty."""

    @property
    def is_image(self) -> bool:
        return len(self.shape) == 3

    def __call__(self, raw: Shaped[Tensor, "... "]) -> Float[Tensor, "..."]:
        """Converts `raw` `[..., *shape]`, which already has the layout and size of training, to network inputs."""
        values = raw.float().div_(255) if raw.dtype == torch.uint8 else raw.float()
        if self.scale == (1.0,) and self.shift == (0.0,):
            return values
        tail = [1] * (len(self.shape) - 1)
        scale, shift = (torch.tensor(v, device=raw.device).reshape(-1, *tail) for v in (self.scale, self.shift))
        return torch.addcmul(shift, values, scale)

    def invert(self, values: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        """The raw values of vectors."""
        scale, shift = (torch.tensor(v, device=values.device) for v in (self.scale, self.shift))
        return (values - shift) / scale

    def from_user(self, values: Any, what: str) -> Float[Tensor, "n ..."]:
        """Checks a user's batch and converts it to network inputs. Error lines call the batch `what`.

        Images may be `[n, H, W]`, `[n, C, H, W]` or `[n, H, W, C]`, vectors `[n, D]` or, for D = 1, `[n]`, signals
        `[n, C, L]` or, for C = 1, `[n, L]`. Raises `UsageError` for any other shape, an empty batch, NaN, infinity and
        pixels out of range.
        """
        raw = as_tensor(values, what)
        layouts = {1: self._vector_layout, 2: self._signal_layout, 3: self._image_layout}
        raw = layouts[len(self.shape)](raw, what)
        if len(raw) == 0:
            raise UsageError(f"{what} is empty")
        if raw.dtype != torch.uint8:
            raw = raw.float()
            check_finite_examples(raw, what)
        if self.is_image:
            if raw.dtype != torch.uint8 and (float(raw.min()) < 0 or float(raw.max()) > 1):
                raise UsageError(f"{what}: images are uint8 from 0 to 255 or floats from 0 to 1; got other numbers")
            raw = resize_images(raw, self.shape[1:])
        return self(raw)

    def _image_layout(self, raw: Tensor, what: str) -> Tensor:
        channels = self.shape[0]
        if raw.ndim == 3 and channels == 1:
            return raw[:, None]
        if raw.ndim == 4 and raw.shape[1] == channels:
            return raw
        if raw.ndim == 4 and raw.shape[3] == channels:
            return raw.permute(0, 3, 1, 2).contiguous()
        raise UsageError(f"{what}: want images with {channels} channel(s), [n, C, H, W], got shape {list(raw.shape)}")

    def _vector_layout(self, raw: Tensor, what: str) -> Tensor:
        size = self.shape[0]
        raw = raw[:, None] if raw.ndim == 1 and size == 1 else raw
        if raw.ndim != 2 or raw.shape[1] != size:
            raise UsageError(f"{what}: want rows of {size} number(s), [n, {size}], got shape {list(raw.shape)}")
        return raw.float()

    def _signal_layout(self, raw: Tensor, what: str) -> Tensor:
        channels, length = self.shape
        raw = raw[:, None] if raw.ndim == 2 and channels == 1 else raw
        if raw.ndim != 3 or tuple(raw.shape[1:]) != self.shape:
            raise UsageError(
                f"{what}: want signals of {channels} channel(s) and length {length}, got shape {list(raw.shape)}"
            )
        return raw.float()


def resize_images(images: Shaped[Tensor, "n C H W"], size: tuple[int, ...]) -> Shaped[Tensor, "n C H2 W2"]:
    """Resizes `images` to `size` (height, width) by a triangle filter, which averages if they shrink; same dtype."""
    if tuple(images.shape[2:]) == tuple(size):
        return images
    parts = []
    for part in images.split(_CHUNK):
        small = torch.nn.functional.interpolate(
            part.float(), size=tuple(size), mode="bilinear", antialias=True, align_corners=False
        )
        parts.append(small.round().clamp(0, 255).to(torch.uint8) if images.dtype == torch.uint8 else small)
    return torch.cat(parts)


def as_tensor(values: Any, what: str) -> Tensor:
    """A tensor from an array, a tensor or a list of either; raises `UsageError` if it is ragged or not numeric."""
    if isinstance(values, Tensor):
        return values
    if isinstance(values, (list, tuple)) and values and isinstance(values[0], (Tensor, np.ndarray)):
        shapes = {tuple(value.shape) for value in values}
        if len(shapes) > 1:
            first, second = sorted(shapes)[:2]
            raise UsageError(f"{what}: all must have one size, got {first} and {second}")
        return torch.stack([torch.tensor(value) if isinstance(value, np.ndarray) else value for value in values])
    try:
        return torch.tensor(np.asarray(values))  # a copy: torch warns about read-only arrays
    except (ValueError, TypeError):
        raise UsageError(f"{what} is no array of numbers with one size") from None


def check_finite_examples(inputs: Float[Tensor, "n ..."], what: str) -> None:
    """Raises `UsageError`, which names the first example, if a number is not finite."""
    place = first_not_finite(inputs)
    if place is not None:
        raise UsageError(
            f"{what} holds NaN, infinity or a number too large for float32, first in example {place[0] + 1}, its "
            f"number {place[1] + 1}"
        )


def first_not_finite(inputs: Float[Tensor, "n ..."]) -> tuple[int, int] | None:
    """The first example with NaN or infinity and the number's place in it, both counted from 0; None if there is none.

    >>> from metarl.fewshot.preprocessing import first_not_finite
    >>> first_not_finite(torch.tensor([[0.0, 1.0], [2.0, torch.inf]]))
    (1, 1)
    """
    finite = inputs.isfinite()
    if finite.all():
        return None
    example, place = (~finite.reshape(len(inputs), -1)).nonzero()[0].tolist()
    return example, place


def as_labels(values: Any, what: str) -> Int[Tensor, "n"]:
    """Labels as int64; raises `UsageError` if they are not whole numbers."""
    labels = as_tensor(values, what)
    if labels.ndim != 1:
        raise UsageError(f"{what}: want one label for each example, [n], got shape {list(labels.shape)}")
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise UsageError(f"{what}: labels must be integers, got {str(labels.dtype).removeprefix('torch.')}")
    return labels.to(torch.int64)
