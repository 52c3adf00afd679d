"""Synthetic decisions with a built-in group bias: a family of two-class tables with a different merit direction each.

Label y ∈ {0, 1}, where 1 is favourable; group a ∈ {0, 1}. In every task

    P(a = 1 | y = 1) = P(a = 0 | y = 0) = ½ + bias / 2                  group 1 has more favourable labels
    x[:merit]        = signal · (2y − 1) · w + noise                    merit: depends on y only
    x[merit:]        = leak · (2a − 1) · v + noise                      proxies: depend on a only

with unit vectors w and v drawn anew for each task, and standard normal noise. The groups' shares of favourable labels
differ by `bias`. A decision by merit only, the sign of w·x, is right with probability Φ(signal) and has a parity gap of
bias · (2 Φ(signal) − 1). Proxies raise accuracy a little and the gap a lot: this is the bias to unlearn.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.errors import UsageError
from metarl.fewshot.data import DataConfig, DataSet
from metarl.fewshot.episodes import Episodes, EpisodeShape, Samples, episode_generator
from metarl.fewshot.preprocessing import Preprocessing
from metarl.tasks import check_count


@dataclass(frozen=True)
class BiasedConfig(DataConfig):
    """Options of the biased tables.

    >>> from metarl.fewshot.data.biased import BiasedConfig
    >>> BiasedConfig(bias=0.5).leak
    2.0
    """

    bias: float = 0.35
    """How much larger group 1's share of favourable labels is, from 0 to 1."""
    signal: float = 0.7
    """Distance of the class means from the middle along the direction of merit, in standard deviations of the noise."""
    leak: float = 2.0
    """Distance of the group means from the middle along the direction of the proxies, in the same units."""
    merit: int = 4
    """Features that depend on the label."""
    proxies: int = 2
    """Features that depend on the group."""

    def __post_init__(self) -> None:
        check_count("merit", self.merit)
        check_count("proxies", self.proxies)
        if not 0 <= self.bias <= 1:
            raise UsageError(f"bias must lie in [0, 1], got {self.bias}")
        for name in ("signal", "leak"):
            if not (getattr(self, name) >= 0 and math.isfinite(getattr(self, name))):
                raise UsageError(f"{name} must be at least 0, got {getattr(self, name)}")


class BiasedTables(DataSet):
    """Tables of two classes and two groups. Label 1 is favourable in every episode. Train and test draws differ.

    >>> from metarl.fewshot.data import open_data
    >>> data = open_data("biased", {"bias": 0.5})
    >>> data.episodes("train", 4, data.default_shape(), seed=0).support.groups.shape
    torch.Size([4, 20])
    """

    config_class = BiasedConfig
    config: BiasedConfig

    def __init__(self, config: BiasedConfig):
        super().__init__(config)
        self.preprocessing = Preprocessing((config.merit + config.proxies,))

    def episodes(self, split: str, count: int, shape: EpisodeShape, *, seed: int) -> Episodes:
        if shape.ways != 2:
            raise UsageError(f"the biased tables have 2 classes: {shape.ways} ways cannot be drawn")
        generator = episode_generator("biased", split, seed)
        merit = _directions(count, self.config.merit, generator)
        proxy = _directions(count, self.config.proxies, generator)
        support, query = (self._samples(merit, proxy, size, generator) for size in (2 * shape.shots, 2 * shape.queries))
        return Episodes(support, query)

    def default_shape(self) -> EpisodeShape:
        return EpisodeShape(ways=2, shots=10, queries=100)

    def facts(self) -> dict[str, Any]:
        return {"favourable": "label 1"}

    def _samples(
        self, merit: Float[Tensor, "E 1 M"], proxy: Float[Tensor, "E 1 P"], size: int, generator: torch.Generator
    ) -> Samples:
        """`size` examples of each task, half of each class, in random order."""
        config, count = self.config, len(merit)
        y = torch.rand(count, size, generator=generator, dtype=torch.float64).argsort(1) % 2
        same = torch.rand(count, size, generator=generator) < 0.5 + config.bias / 2
        groups = torch.where(same, y, 1 - y)
        means = torch.cat([config.signal * _sign(y) * merit, config.leak * _sign(groups) * proxy], -1)
        return Samples(means + torch.randn(means.shape, generator=generator), y, groups)


def _directions(count: int, size: int, generator: torch.Generator) -> Float[Tensor, "E 1 D"]:
    """Unit vectors, uniform on the sphere."""
    normal = torch.randn(count, 1, size, generator=generator)
    return normal / normal.norm(dim=-1, keepdim=True)


def _sign(bits: Int[Tensor, "E n"]) -> Float[Tensor, "E n 1"]:
    """−1 for 0, 1 for 1."""
    return (2.0 * bits - 1.0)[..., None]
