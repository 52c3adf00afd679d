"""The Gittins index of a Bernoulli arm (Gittins 1979), by the retirement formulation (Whittle 1980).

The index of an arm is the sure reward per pull λ for which one is indifferent between pulling it, for as long as one
likes, and retiring to λ for ever. With a Beta(a, b) posterior and the discount β, the value in units of 1 / (1 − β) is

    V(a, b; λ) = max(λ, (1 − β) m + β [m V(a + 1, b; λ) + (1 − m) V(a, b + 1; λ)]),    m = a / (a + b)

and the index is the λ at which both sides of the maximum are equal. This is the calibration method of Gittins,
Glazebrook and Weber (2011, section 8.4), which Chakravorty and Mahajan (2014, section 4) describe: V is computed
backwards over the number of pulls for a grid of λ.
"""

import functools
import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

NEGLIGIBLE = 0.05
"""Weight of what lies beyond the last pull that the recursion looks at. There, the arm counts as known."""
GRID = 512
"""Values of λ. The difference of the two sides is interpolated linearly between them."""


@functools.lru_cache(maxsize=8)
def gittins_indices(pulls: int, discount: float) -> Float[Tensor, "P P"]:
    """The index after a successes and b failures, at [a, b], for fewer than `pulls` pulls of an arm; 0 elsewhere.

    The prior is Beta(1, 1), which is uniform. Errors are below 1e-3, and below 1e-4 for a discount of 0.9.

    >>> from metarl.agents.gittins_index import gittins_indices
    >>> [round(float(index), 2) for index in gittins_indices(2, 0.9).flatten()]
    [0.7, 0.5, 0.8, 0.0]
    """
    depth = pulls + math.ceil(math.log(NEGLIGIBLE) / math.log(discount))
    rate = (1 - np.cos(np.linspace(0.0, math.pi, GRID))) / 2  # denser near 0 and 1, where many indices lie
    indices = np.zeros((pulls, pulls))
    values = np.maximum(rate, _mean(depth))  # [a, λ], with a + b = depth
    for count in reversed(range(depth)):
        mean = _mean(count)
        going_on = (1 - discount) * mean + discount * (mean * values[1:] + (1 - mean) * values[:-1])
        if count < pulls:
            successes = np.arange(count + 1)
            indices[successes, count - successes] = _crossing(rate, going_on - rate)
        values = np.maximum(rate, going_on)
    return torch.as_tensor(indices)


def _mean(count: int) -> Float[np.ndarray, "S 1"]:
    """The posterior mean after 0 … `count` successes in as many pulls."""
    return (np.arange(count + 1)[:, None] + 1) / (count + 2)


def _crossing(rate: Float[np.ndarray, "L"], gain: Float[np.ndarray, "S L"]) -> Float[np.ndarray, "S"]:
    """Where `gain` falls from above 0, as it is at λ = 0, to below, as it is at λ = 1."""
    rows = np.arange(len(gain))
    last = (gain > 0).sum(1) - 1
    high, low = gain[rows, last], gain[rows, last + 1]
    return rate[last] + (rate[last + 1] - rate[last]) * high / (high - low)
