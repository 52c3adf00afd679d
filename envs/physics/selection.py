"""Rows of a batch that are chosen by a mask, without waiting for a GPU to say which."""

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor


class Selection:
    """`R` of `B` rows. On the CPU they are the chosen ones; on a GPU they are all, and only the chosen are written.

    >>> chosen = Selection(torch.tensor([False, True, True]))
    >>> values = torch.zeros(3)
    >>> chosen.put(values, 1 + chosen.take(values))
    >>> values
    tensor([0., 1., 1.])
    """

    def __init__(self, mask: Bool[Tensor, "B"]):
        self.mask = mask
        self._numbers = mask.nonzero()[:, 0] if mask.device.type == "cpu" else None

    @property
    def is_empty(self) -> bool:
        """Whether no row is chosen. Always False on a GPU: to find out, the host would have to wait."""
        return self._numbers is not None and not len(self._numbers)

    def take(self, values: Shaped[Tensor, "B ..."]) -> Shaped[Tensor, "R ..."]:
        return values if self._numbers is None else values.index_select(0, self._numbers)

    def put(self, target: Shaped[Tensor, "B ..."], values: Shaped[Tensor, "R ..."]) -> None:
        """Writes `values` into the chosen rows of `target`, in its type."""
        if self._numbers is not None:
            target.index_copy_(0, self._numbers, values.to(target.dtype))
        else:
            mask = self.mask.view(-1, *[1] * (target.ndim - 1))
            target.copy_(torch.where(mask, values.to(target.dtype), target))
