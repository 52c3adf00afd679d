"""How many launches a step sends to a GPU: each costs the host some microseconds, whatever the size of the batch."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
_NO_LAUNCH = {
    aten.empty,
    aten.empty_like,
    aten.empty_strided,
    aten.new_empty,
    aten.new_empty_strided,
    aten.lift_fresh,
    aten._unsafe_view,
    aten._reshape_alias,
}
"""Operations that reserve memory or look at it in another way."""


@dataclass(frozen=True)
class Launches:
    """What a call launched outside any graph, and how many graphs.

    >>> from metarl.envs.launches import Launches
    >>> Launches(tensor=2, warp=0, graphs=1).total
    3
    """

    tensor: int
    """Operations of torch that compute or copy."""
    warp: int
    """Kernels, copies and fills of Warp."""
    graphs: int
    """Replays of a captured graph, each one launch."""

    @property
    def total(self) -> int:
        return self.tensor + self.warp + self.graphs


def count_launches(call: Callable[[], object]) -> Launches:
    """Counts the launches of a call. On a CPU device these are the operations that would be launches on a GPU.

    An operation of torch counts as one, although a few are two or three kernels.

    >>> from metarl.envs.launches import count_launches
    >>> numbers = torch.zeros(3)
    >>> count_launches(lambda: (numbers + 1).view(1, 3).exp_())
    Launches(tensor=2, warp=0, graphs=0)
    """
    import warp as wp

    counter = _Counter()
    warp: list[str] = []
    graphs: list[str] = []
    with contextlib.ExitStack() as stack:
        for name in ("launch", "launch_tiled", "copy"):
            stack.enter_context(_noted(wp, name, warp))
        for name in ("zero_", "fill_"):
            stack.enter_context(_noted(wp.array, name, warp))
        stack.enter_context(_noted(wp.Launch, "launch", warp))
        stack.enter_context(_noted(wp, "capture_launch", graphs))
        stack.enter_context(_noted(torch.cuda.CUDAGraph, "replay", graphs))
        stack.enter_context(counter)
        call()
    return Launches(counter.count, len(warp), len(graphs))


class _Counter(TorchDispatchMode):
    """Counts operations whose results are new numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        returned = function._schema.returns
        views = bool(returned) and all(one.alias_info is not None and not one.alias_info.is_write for one in returned)
        made = any(isinstance(part, Tensor) and part.numel() for part in _flat(result))
        if made and not views and function.overloadpacket not in _NO_LAUNCH:
            self.count += 1
        return result


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        yield from value
    else:
        yield value


@contextlib.contextmanager
def _noted(owner: Any, name: str, calls: list[str]) -> Iterator[None]:
    """Adds to `calls` whenever `owner.name` is called."""
    function = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return function(*args, **kwargs)

    setattr(owner, name, call)
    try:
        yield
    finally:
        setattr(owner, name, function)
