"""Wide vectors that are constant in most columns, such as one-hot codes, and linear layers that read them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.spaces import Observations, map_tensors

MANY_COLUMNS = 256
"""Width from which on it pays to look for constant columns."""
CHUNK = 2**20
"""Numbers to look at at a time: few enough to stay in the cache between two passes."""


@dataclass(frozen=True)
class WideVectors:
    """A batch of vectors `[..., D]`: the columns that vary, and the constant values, mostly 0, of all others.

    >>> from metarl.nn.wide import without_constant_columns
    >>> codes = torch.nn.functional.one_hot(torch.tensor([[3, 700, 3]]), 1000).float()
    >>> wide = without_constant_columns(codes)
    >>> wide.values.shape, wide.varying
    (torch.Size([1, 3, 2]), tensor([  3, 700]))
    """

    values: Float[Tensor, "... k"]
    varying: Int[Tensor, "k"]
    """The columns of `values`, in ascending order."""
    constants: Float[Tensor, "D"]
    """The value of each other column; 0 for those that vary."""

    @property
    def shape(self) -> torch.Size:
        """That of the vectors, `[..., D]`."""
        return torch.Size([*self.values.shape[:-1], len(self.constants)])

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    def map(self, function: Callable[..., Any]) -> "WideVectors":
        """The vectors with `function` of their batch dimensions, such as a permutation or a slice of them."""
        return replace(self, values=function(self.values))

    def __truediv__(self, divisor: Float[Tensor, "D"]) -> "WideVectors":
        """Each column divided by its own number."""
        return WideVectors(self.values / divisor[self.varying], self.varying, self.constants / divisor)

    def mean_square(self) -> Float[Tensor, "D"]:
        """Of each column."""
        means = self.values.flatten(0, -2).square().mean(0)
        return self.constants.square().index_copy(0, self.varying, means)

    def basis(self) -> "Basis":
        """The smallest `Basis` that holds the vectors."""
        return Basis(self.varying, self.constants)

    def within(self, basis: "Basis") -> Float[Tensor, "... K"]:
        """The vectors' coordinates in a basis, which must hold them."""
        rows, places = self.values.shape[:-1], torch.searchsorted(basis.varying, self.varying)
        coordinates = self.constants[basis.varying].repeat(*rows, 1).index_copy_(-1, places, self.values)
        if not basis.length:
            return coordinates
        return torch.cat([coordinates, coordinates.new_full((*rows, 1), basis.length)], -1)


Vectors = TypeVar("Vectors", Tensor, WideVectors)
"""A batch of vectors `[..., D]`, all columns or those that vary."""


class Basis:
    """An orthonormal basis of the vectors that have `constants` in all columns except the `varying` ones.

    A linear layer W that reads such vectors x needs W in this basis alone: W x = `take(W)` · `x.within(basis)`, the
    gradient with respect to W is `spread` of that with respect to `take(W)`, and no loss changes in other directions.

    >>> from metarl.nn.wide import Basis
    >>> basis = Basis(varying=torch.tensor([1]), constants=torch.tensor([3.0, 0.0, 0.0, 4.0]))
    >>> basis.take(torch.tensor([1.0, 2.0, 5.0, 1.0]))  # 2, and (3 · 1 + 4 · 1) / 5
    tensor([2.0000, 1.4000])
    """

    def __init__(self, varying: Int[Tensor, "k"], constants: Float[Tensor, "D"]):
        self.varying, self.constants = varying, constants
        self._places = constants.nonzero()[:, 0]
        values = constants[self._places].double()
        self.length = float(values.norm())
        """The norm of the constants; if it is 0, they are no direction of the basis."""
        self._direction = (values / self.length).to(constants.dtype)

    def take(self, weight: Float[Tensor, "... D"]) -> Float[Tensor, "... K"]:
        """The coordinates of each row of a weight matrix in the basis."""
        varying = weight.index_select(-1, self.varying)
        if not self.length:
            return varying
        constant = weight.index_select(-1, self._places) @ self._direction.to(weight.dtype)
        return torch.cat([varying, constant[..., None]], -1)

    def spread(self, coordinates: Float[Tensor, "... K"]) -> Float[Tensor, "... D"]:
        """The transpose of `take`: rows from their coordinates."""
        rows = coordinates.new_zeros(*coordinates.shape[:-1], len(self.constants))
        rows.index_copy_(-1, self.varying, coordinates[..., : len(self.varying)])
        if self.length:
            rows.index_copy_(-1, self._places, coordinates[..., -1:] * self._direction.to(coordinates.dtype))
        return rows

    def joined(self, other: "Basis") -> "Basis":
        """A basis that holds what either holds: columns with two constants vary."""
        varies = self.constants != other.constants
        varies[self.varying] = varies[other.varying] = True
        return Basis(varies.nonzero()[:, 0], self.constants.masked_fill(varies, 0))


def map_values(function: Callable[..., Any], observations: Observations | WideVectors) -> Any:
    """`metarl.spaces.map_tensors` for observations that may be `WideVectors`."""
    if isinstance(observations, WideVectors):
        return observations.map(function)
    return map_tensors(function, observations)


def without_constant_columns(observations: Any) -> Any:
    """Vectors `[..., D]` as `WideVectors`, if they are wide and at most half of the columns vary.

    All other observations are returned as they are: those on a GPU, which would have to be waited for, those that
    autograd differentiates by, dictionaries, pictures, and `WideVectors`. Columns with numbers that are not finite
    count as varying.
    """
    if not isinstance(observations, Tensor) or not observations.is_floating_point() or observations.requires_grad:
        return observations
    width = observations.shape[-1]
    if observations.device.type != "cpu" or width < MANY_COLUMNS or not observations.numel():
        return observations
    rows = observations.flatten(0, -2)
    low, high = rows[0], rows[0]
    for chunk in (rows[:16], *rows.split(max(CHUNK // width, 1))):  # a few rows tell dense vectors
        low, high = torch.minimum(low, chunk.amin(0)), torch.maximum(high, chunk.amax(0))
        varies = (low != high) | ~low.isfinite()
        if 2 * int(varies.sum()) > width:
            return observations
    varying = varies.nonzero()[:, 0]
    return WideVectors(observations.index_select(-1, varying), varying, low.masked_fill(varies, 0))
