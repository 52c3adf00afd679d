"""Numbers that are not finite, found where they enter: in what environments return, and before optimizer steps."""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.errors import NumericalFault
from metarl.spaces import Observations

USUAL_CAUSES = "Usual causes are rewards or observations of a very large scale and too large a step size"


def bad_rows(rewards: Float[Tensor, "B"], observations: Observations) -> Bool[Tensor, "B"]:
    """The rows whose reward or observation `[B, ...]` has a number that is not finite.

    On the CPU, the usual case that there is none costs one pass over the numbers. On a GPU nothing waits.

    >>> from metarl.faults import bad_rows
    >>> bad_rows(torch.tensor([0.0, 1.0]), torch.tensor([[0.0], [torch.inf]]))
    tensor([False,  True])
    """
    if rewards.device.type == "cpu" and all_finite(rewards, observations):
        return torch.zeros_like(rewards, dtype=torch.bool)
    bad = ~rewards.isfinite()
    for values in _float_tensors([observations]):
        bad = bad | ~values.isfinite().flatten(1).all(1)
    return bad


def all_finite(*values: Observations) -> bool:
    """Whether no number in `values` is NaN or infinite. On a GPU, this waits."""
    tensors = list(_float_tensors(values))
    # A sum is finite only if all its terms are, but terms of 1e38 may overflow.
    if not tensors or bool(torch.stack([tensor.sum().float() for tensor in tensors]).isfinite().all()):
        return True
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def check_finite(what: str, *values: Observations) -> None:
    """Raises `NumericalFault` if a number in `values` is NaN or infinite; `what` names them in the message."""
    if not all_finite(*values):
        raise NumericalFault(f"{what}: not finite. {USUAL_CAUSES}")


def _float_tensors(values: Iterable[Observations]) -> Iterable[Tensor]:
    for value in values:
        for tensor in value.values() if isinstance(value, dict) else (value,):
            if tensor.is_floating_point():
                yield tensor.detach()
