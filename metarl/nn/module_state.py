"""A module's parameters and buffers as named tensors, for checkpoints."""

from collections.abc import Mapping

from jaxtyping import Shaped
from torch import Tensor, nn

from metarl.errors import UsageError


def module_tensors(name: str, module: nn.Module) -> dict[str, Shaped[Tensor, "..."]]:
    """Copies of the module's parameters and buffers on the CPU, named `<name>.<parameter>`."""
    return {f"{name}.{key}": value.cpu().clone() for key, value in module.state_dict().items()}


def load_module_tensors(name: str, module: nn.Module, tensors: Mapping[str, Shaped[Tensor, "..."]]) -> None:
    """Restores what `module_tensors` returned; ignores other names in `tensors`.

    Raises `UsageError` if they are not the tensors of this module.
    """
    prefix = f"{name}."
    own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        raise UsageError(f"the saved parameters are not of this agent: {' '.join(str(error).split())}") from None
