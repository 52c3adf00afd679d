"""Numbers that are not finite, found where they enter: in what environments return, and before optimizer steps."""

import math
from collections.abc import Iterable

from jaxtyping import Bool, Float
from torch import Tensor

from metarl.errors import NumericalFault
from metarl.spaces import Observations

USUAL_CAUSES = "Usual causes are inputs or rewards of a very large scale and too large a step size"


def find_faults(rewards: Float[Tensor, "B"], observations: Observations) -> Bool[Tensor, "B"] | None:
    """`bad_rows`, or None on the CPU if there is none: then one pass over the numbers has to do, and no mask.

    >>> from metarl.faults import find_faults
    >>> find_faults(torch.zeros(2), torch.zeros(2, 3)) is None
    True
    """
    if rewards.device.type == "cpu" and all_finite(rewards, observations):
        return None
    return bad_rows(rewards, observations)


def bad_rows(rewards: Float[Tensor, "B"], observations: Observations) -> Bool[Tensor, "B"]:
    """The rows whose reward or observation `[B, ...]` has a number that is not finite. On a GPU nothing waits.

    >>> from metarl.faults import bad_rows
    >>> bad_rows(torch.tensor([0.0, 1.0]), torch.tensor([[0.0], [torch.inf]]))
    tensor([False,  True])
    """
    bad = ~rewards.isfinite()
    for values in _float_tensors([observations]):
        bad = bad | ~values.isfinite().flatten(1).all(1)
    return bad


def all_finite(*values: Observations) -> bool:
    """Whether no number in `values` is NaN or infinite. On a GPU, this waits."""
    # A sum is finite only if all its terms are, but terms of 1e38 may overflow.
    if math.isfinite(sum(map(_total, values))):
        return True
    return all(bool(tensor.isfinite().all()) for tensor in _float_tensors(values))


def check_finite(what: str, *values: Observations) -> None:
    """Raises `NumericalFault` if a number in `values` is NaN or infinite; `what` names them in the message."""
    if not all_finite(*values):
        raise NumericalFault(f"{what}: not finite. {USUAL_CAUSES}")


def _total(value: Observations) -> float:
    if isinstance(value, dict):
        return sum(map(_total, value.values()))
    return float(value.detach().sum()) if value.is_floating_point() else 0.0


def _float_tensors(values: Iterable[Observations]) -> Iterable[Tensor]:
    for value in values:
        for tensor in value.values() if isinstance(value, dict) else (value,):
            if tensor.is_floating_point():
                yield tensor.detach()
