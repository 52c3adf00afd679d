"""A torch optimizer's moments as named tensors, for checkpoints."""

from collections.abc import Mapping

import torch
from torch import Tensor

from metarl.errors import UsageError

_PREFIX = "optimizer."


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Copies of the optimizer's state on the CPU, named `optimizer.<parameter>.<moment>`."""
    state = optimizer.state_dict()["state"]
    return {
        f"{_PREFIX}{index}.{name}": value.cpu().clone()
        for index, moments in state.items()
        for name, value in moments.items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restores what `optimizer_tensors` returned; ignores other names in `tensors`.

    Raises `UsageError` if they are not moments of this optimizer's parameters: a number, or of a parameter's shape.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(_PREFIX):
            index, _, name = key.removeprefix(_PREFIX).partition(".")
            place = int(index) if index.isdecimal() and len(index) < 10 else len(parameters)
            fits = place < len(parameters) and value.is_floating_point()
            if not fits or value.shape not in (torch.Size(), parameters[place].shape):
                raise UsageError(f"the saved optimizer is not of this agent: {key} fits no parameter")
            state.setdefault(place, {})[name] = value.clone()
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
