"""Rows of a batch that are chosen by a mask, without waiting for a GPU to say which."""

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor


class Selection:
    """`R` of `B` rows. On the CPU they are the chosen ones; on a GPU they are all, and only the chosen are written."""

    def __init__(self, mask: Bool[Tensor, "B"]):
        self.mask = mask
        self._numbers = mask.nonzero()[:, 0] if mask.device.type == "cpu" else None

    @property
    def known_empty(self) -> bool:
        """Whether there is nothing to do; on a GPU that is never known."""
        return self._numbers is not None and not len(self._numbers)

    def take(self, values: Shaped[Tensor, "B ..."]) -> Shaped[Tensor, "R ..."]:
        return values if self._numbers is None else values.index_select(0, self._numbers)

    def put(self, place: Shaped[Tensor, "B ..."], values: Shaped[Tensor, "R ..."]) -> None:
        """Writes `values` into the chosen rows of `place`."""
        if self._numbers is not None:
            place.index_copy_(0, self._numbers, values.to(place.dtype))
        else:
            mask = self.mask.view(-1, *[1] * (place.ndim - 1))
            place.copy_(torch.where(mask, values.to(place.dtype), place))
