"""A torch optimizer's moments as named tensors, for checkpoints."""

from collections.abc import Mapping

import torch
from torch import Tensor

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
    """Restores what `optimizer_tensors` returned; ignores other names in `tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(_PREFIX):
            index, name = key.removeprefix(_PREFIX).split(".")
            state.setdefault(int(index), {})[name] = value.clone()
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
