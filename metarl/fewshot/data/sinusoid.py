"""Sine waves (Finn et al. 2017, section 5.1).

y = A sin(x − φ) with amplitude A in [0.1, 5], phase φ in [0, π] and x in [−5, 5], all uniform.
"""

import math

import torch

from metarl.fewshot.data import DataConfig, DataSet
from metarl.fewshot.episodes import Episodes, EpisodeShape, Samples, episode_generator
from metarl.fewshot.preprocessing import Preprocessing

AMPLITUDE = (0.1, 5.0)
PHASE = (0.0, math.pi)
INPUT = (-5.0, 5.0)


class Sinusoid(DataSet):
    """Regression on sine waves, one wave per task. Train and test draws differ.

    >>> from metarl.fewshot.data import open_data
    >>> data = open_data("sinusoid")
    >>> data.episodes("test", 4, data.default_shape(), seed=0).query.y.shape
    torch.Size([4, 100, 1])
    """

    kind = "regression"

    def __init__(self, config: DataConfig):
        super().__init__(config)
        self.preprocessing = Preprocessing((1,))

    def episodes(self, split: str, count: int, shape: EpisodeShape, *, seed: int) -> Episodes:
        generator = episode_generator("sinusoid", split, seed)
        amplitude, phase = (_uniform(bounds, (count, 1), generator) for bounds in (AMPLITUDE, PHASE))
        x = _uniform(INPUT, (count, shape.shots + shape.queries), generator)
        y = amplitude * torch.sin(x - phase)
        x, y = x[..., None], y[..., None]
        cut = shape.shots
        return Episodes(Samples(x[:, :cut], y[:, :cut]), Samples(x[:, cut:], y[:, cut:]))

    def outputs(self, shape: EpisodeShape) -> int:
        return 1

    def default_shape(self) -> EpisodeShape:
        return EpisodeShape(ways=1, shots=5, queries=100)


def _uniform(bounds: tuple[float, float], size: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(size, generator=generator)
