"""Running statistics that bring inputs of networks to order one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import gymnasium as gym
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from metarl.nn.wide import Vectors, WideVectors
from metarl.parallel import Ranks
from metarl.spaces import Observations, is_picture, named

CHUNK_BYTES = 2**25
"""Pictures are turned into floating-point numbers in chunks of about this size."""


class RunningScale:
    """Divides each feature by its running root mean square if that exceeds 1.

    Joint velocities of ten radians per second saturate tanh units. Positions of a few centimetres do no harm and stay
    as they are.

    >>> from metarl.nn.normalization import RunningScale
    >>> scale = RunningScale(2)
    >>> scale.update(torch.tensor([[10.0, 0.1]]))
    >>> scale(torch.tensor([[10.0, 0.1]]))
    tensor([[1.0000, 0.1000]])
    """

    def __init__(self, size: int, device: torch.device | str = "cpu"):
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self._set(torch.zeros(size, device=device))

    def __call__(self, values: Vectors) -> Vectors:
        return values if self._divisor is None else values / self._divisor.to(values.dtype)

    def _set(self, mean_square: Float[Tensor, "D"]) -> None:
        self.mean_square = mean_square
        self._divisor: Tensor | None = mean_square.clamp(min=1).sqrt()
        if mean_square.device.type == "cpu" and not (mean_square > 1).any():
            self._divisor = None  # no copy of the values; a GPU would have to be waited for

    def update(self, values: Float[Tensor, "... D"] | WideVectors, ranks: Ranks | None = None) -> None:
        """Adds all rows of `values`, from all `ranks`, which have the same number of rows each."""
        ranks = ranks or Ranks()
        new = values.mean_square() if isinstance(values, WideVectors) else values.flatten(0, -2).square().mean(0)
        number = values.shape[:-1].numel() * ranks.world_size
        self.count = self.count + number
        share = (number / self.count).to(new.dtype)
        self._set(self.mean_square + share * (ranks.mean(new) - self.mean_square))

    def state_dict(self) -> dict[str, Tensor]:
        """All that `update` changes."""
        return {"mean_square": self.mean_square, "count": self.count}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores what `state_dict` returned."""
        self._set(tensors["mean_square"].to(self.mean_square.device))
        self.count = tensors["count"].to(self.count.device)


class RunningNorm(nn.Module):
    """Normalises each feature by the mean and variance of all values so far; the identity before the first update.

    Batches are merged exactly (Chan, Golub and LeVeque 1983).

    >>> from metarl.nn.normalization import RunningNorm
    >>> norm = RunningNorm(1)
    >>> norm.update(torch.tensor([[1.0], [3.0]]), torch.tensor([True, True]))
    >>> norm(torch.tensor([[4.0]]))
    tensor([[2.]])
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, size: int, clip: float = 10.0):
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("count", torch.zeros(()))

    @property
    def std(self) -> Float[Tensor, "D"]:
        """The standard deviation, 1 for features that have not varied."""
        std = self.variance.sqrt()
        return torch.where(std > 1e-6, std, 1.0)

    @torch.no_grad()
    def update(self, values: Float[Tensor, "... D"], valid: Bool[Tensor, "..."], ranks: Ranks | None = None) -> None:
        """Adds the `valid` rows of `values`, from all `ranks`."""
        rows, ranks = values[valid], ranks or Ranks()
        number = torch.tensor(float(len(rows)), device=rows.device)
        total = ranks.sum(number)
        if not values.shape[-1] or not bool(total):
            return
        variance, mean = torch.var_mean(rows, dim=0, correction=0) if len(rows) else (self.mean, self.variance)
        if ranks.world_size > 1:
            share, own = number / total, mean
            mean = ranks.sum(share * own)
            variance = ranks.sum(share * (variance + (own - mean).square()))
        self._merge(total, mean, variance)

    def _merge(self, count: Float[Tensor, ""], mean: Float[Tensor, "D"], variance: Float[Tensor, "D"]) -> None:
        """Adds `count` rows with this mean and variance."""
        total = self.count + count
        shift = mean - self.mean
        old = self.variance * self.count
        self.variance.copy_((old + variance * count + shift.square() * self.count * count / total) / total)
        self.mean.add_(shift * count / total)
        self.count.copy_(total)

    def forward(self, values: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        return ((values - self.mean) / self.std).clamp(-self.clip, self.clip)


class PictureNorm(RunningNorm):
    """Normalises each channel of pictures `[..., H, W, C]` (uint8), in units of 255, by all its pixels so far.

    It subtracts the mean, and divides by the standard deviation or by a tenth of the range of levels, whichever is
    larger. So rare levels stay apart, where clipping would make one of them: a door that is locked, and one that is
    closed, in a picture of symbols. As floating-point numbers, pictures take four times the memory: the encoders
    normalise them chunk by chunk.

    >>> from metarl.nn.normalization import PictureNorm
    >>> norm, pictures = PictureNorm(3), torch.zeros(5, 8, 8, 3, dtype=torch.uint8)
    >>> norm.update(pictures, torch.ones(5, dtype=torch.bool))
    >>> norm(pictures).shape, norm(pictures).dtype
    (torch.Size([5, 8, 8, 3]), torch.float32)
    """

    lowest: Tensor
    highest: Tensor

    def __init__(self, size: int):
        super().__init__(size)
        self.register_buffer("lowest", torch.ones(size))
        self.register_buffer("highest", torch.zeros(size))

    @property
    def std(self) -> Float[Tensor, "D"]:
        """What to divide by; 1 for channels that have not varied."""
        spread = torch.maximum(self.variance.sqrt(), (self.highest - self.lowest) / self.clip)
        return torch.where(spread > 1e-6, spread, 1.0)

    @torch.no_grad()
    def update(
        self,
        values: UInt8[Tensor, "... H W C"],
        valid: Bool[Tensor, "..."] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        """Adds the `valid` pictures (default: all) of all `ranks`."""
        ranks, pictures, channels = ranks or Ranks(), values.flatten(0, -4), range(values.shape[-1])
        chosen = torch.arange(len(pictures), device=values.device)
        if valid is not None:
            chosen = chosen[valid.flatten()]
        pixels = torch.zeros(len(channels), 256, dtype=torch.float64, device=values.device)  # of each level
        for part in chosen.split(max(1, CHUNK_BYTES // math.prod(values.shape[-3:]))):
            rows = pictures[part].flatten(0, 2)
            pixels += torch.stack([torch.bincount(rows[:, channel], minlength=256) for channel in channels])
        pixels = ranks.sum(pixels)
        count = pixels[0].sum()
        if not bool(count):
            return
        levels = torch.linspace(0, 1, 256, dtype=torch.float64, device=values.device)
        mean = pixels @ levels / count
        variance = (pixels * (levels - mean[:, None]).square()).sum(1) / count
        self._merge(count.float(), mean.float(), variance.float())
        seen = pixels > 0
        self.lowest.copy_(torch.minimum(self.lowest, levels.where(seen, 1.0).amin(1)))
        self.highest.copy_(torch.maximum(self.highest, levels.where(seen, 0.0).amax(1)))

    def forward(self, values: UInt8[Tensor, "... H W C"]) -> Float[Tensor, "... H W C"]:
        return values.float().mul_(1 / (255 * self.std)).sub_(self.mean / self.std)


@dataclass(frozen=True)
class PictureInputs:
    """Pictures that are still to be normalised by `norm`, which must not be updated meanwhile.

    >>> from metarl.nn.normalization import PictureInputs, PictureNorm
    >>> inputs = PictureInputs(torch.zeros(3, 5, 8, 8, 3, dtype=torch.uint8), PictureNorm(3))
    >>> inputs.part(slice(0, 2), torch.float32).shape
    torch.Size([3, 2, 8, 8, 3])
    """

    pictures: UInt8[Tensor, "M n H W C"]
    norm: PictureNorm

    def part(self, samples: slice, dtype: torch.dtype) -> Float[Tensor, "M c H W C"]:
        """The normalised pictures of some samples of each task."""
        return self.norm(self.pictures[:, samples]).to(dtype)


class EntryScales:
    """A `RunningScale` for each vector in the observations and a `PictureNorm` for each picture.

    `spaces` are those of the entries. A picture alone is the entry "observation".

    >>> from gymnasium.spaces import Box
    >>> from metarl.nn.normalization import EntryScales
    >>> scales = EntryScales({"speed": Box(-1, 1, (2,)), "camera": Box(0, 255, (8, 8, 3), "uint8")})
    >>> scales.update({"speed": torch.full((5, 2), 30.0), "camera": torch.zeros(5, 8, 8, 3, dtype=torch.uint8)})
    >>> pictures = torch.zeros(1, 1, 8, 8, 3, dtype=torch.uint8)
    >>> scales({"speed": torch.tensor([[[30.0, 3.0]]]), "camera": pictures})["speed"]
    tensor([[[1.0000, 0.1000]]])
    """

    def __init__(self, spaces: Mapping[str, gym.spaces.Box], device: torch.device | str = "cpu"):
        self.entries = {
            name: PictureNorm(space.shape[-1]).to(device) if is_picture(space) else RunningScale(space.shape[0], device)
            for name, space in spaces.items()
        }

    def __call__(self, observations: Observations) -> dict[str, Tensor | PictureInputs]:
        """Vectors scaled, and pictures with what normalises them."""
        values = named(observations)
        return {
            name: PictureInputs(values[name], entry) if isinstance(entry, PictureNorm) else entry(values[name])
            for name, entry in self.entries.items()
        }

    def update(self, observations: Observations, ranks: Ranks | None = None) -> None:
        """Adds all rows of each entry, from all `ranks`, which have the same number of rows each."""
        values = named(observations)
        for name, entry in self.entries.items():
            entry.update(values[name], ranks=ranks)

    def state_dict(self) -> dict[str, Tensor]:
        """All that `update` changes."""
        return {f"{name}.{key}": v for name, entry in self.entries.items() for key, v in entry.state_dict().items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores what `state_dict` returned."""
        for name, entry in self.entries.items():
            entry.load_state_dict({key: tensors[f"{name}.{key}"] for key in entry.state_dict()})
