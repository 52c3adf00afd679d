"""The processes that train one agent together, which torchrun starts: what they share out and what they add up.

Every rank draws the tasks and the random numbers of all tasks and keeps its own, steps its own environments, and adds
up what an update needs with `torch.distributed`. So R ranks make the update that one process makes, but for the order
of sums. Processes on CPUs talk by gloo, those with a GPU each by NCCL.
"""

import atexit
import contextlib
import functools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Int
from torch import Tensor

from metarl.errors import RankLost, UsageError
from metarl.randomness import derive_seed, make_generator

Value = TypeVar("Value")


@dataclass(frozen=True)
class Ranks:
    """`world_size` processes, each of which trains on its share of the tasks; this process is number `rank`.

    An agent that computes its sums and means over tasks with these methods, and draws random numbers with `generator`,
    makes the same update on R ranks with M/R tasks each as on one rank with M tasks. On one rank all of them return
    their argument. Every rank has to call them in the same order. `metarl.train` gets its ranks from `join_ranks`.

    Raises `RankLost` if another rank has ended.

    >>> metarl.Ranks().mean(torch.tensor(3.0))
    tensor(3.)
    """

    world_size: int = 1
    rank: int = 0
    local_rank: int = 0
    """The number of this process among those of its machine, and of its GPU."""

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes files."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over all ranks, on every rank; without gradient."""
        if self.world_size == 1:
            return tensor
        total = tensor.detach().clone(memory_format=torch.contiguous_format)
        with self._together():
            dist.all_reduce(total)
        return total

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of `tensor` over all ranks, on every rank."""
        return self.sum(tensor) / self.world_size if self.world_size > 1 else tensor

    def means(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The mean of each of `tensors`, which are of one dtype, by one sum."""
        if self.world_size == 1:
            return list(tensors)
        sizes = [tensor.numel() for tensor in tensors]
        flat = self.mean(torch.cat([tensor.flatten() for tensor in tensors]))
        return [part.view(tensor.shape) for part, tensor in zip(flat.split(sizes), tensors, strict=True)]

    def average_gradients(self, parameters: Iterable[Tensor], *more: Tensor) -> list[Tensor]:
        """Replaces the gradient of each parameter that has one by its mean over all ranks; returns the means of `more`.

        One sum does for all of them.
        """
        known = [parameter for parameter in parameters if parameter.grad is not None]
        gradients = [parameter.grad for parameter in known if parameter.grad is not None]
        means = self.means([*gradients, *more])
        for parameter, mean in zip(known, means, strict=False):
            parameter.grad = mean
        return means[len(known) :]

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on some rank."""
        return flag if self.world_size == 1 else bool(self.sum(torch.tensor(int(flag))))

    def gather(self, tensor: Tensor, dim: int) -> Tensor:
        """The tensors of all ranks, which have one shape, one after another along `dim`."""
        if self.world_size == 1:
            return tensor
        own = tensor.detach().contiguous()
        own = own.view(torch.uint8) if own.dtype == torch.bool else own
        every = [torch.empty_like(own) for _ in range(self.world_size)]
        with self._together():
            dist.all_gather(every, own)
        return torch.cat([one.view(tensor.dtype) for one in every], dim)

    def gather_values(self, value: Any) -> list[Any]:
        """The values of all ranks, each of which JSON can express, in the order of ranks."""
        if self.world_size == 1:
            return [value]
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = self.gather(torch.tensor([len(text)]), 0).tolist()
        padded = torch.nn.functional.pad(text, (0, max(lengths) - len(text)))
        rows = self.gather(padded[None], 0)
        return [json.loads(bytes(row[:length].tolist())) for row, length in zip(rows, lengths, strict=True)]

    def from_first(self, make: Callable[[], Value]) -> Value:
        """What `make` returns on the first rank, which alone calls it; JSON must be able to express it."""
        return self.gather_values(make() if self.is_first else None)[0]

    def share(self, name: str, count: int) -> int:
        """How many of `count` rows each rank has; raises `UsageError`, which calls them `name`, if that is not whole.

        An uneven split would leave most ranks waiting for those with one more.
        """
        share, rest = divmod(count, self.world_size)
        if rest or not share:
            less = "" if not share else f"{count - rest} or "
            raise UsageError(
                f"{name} {count} cannot be shared out evenly among {self.world_size} ranks: "
                f"choose {less}{(share + 1) * self.world_size}, or another number of ranks"
            )
        return share

    def part(self, name: str, count: int) -> slice:
        """The rows of this rank among `count`, as even as possible; raises `UsageError` if there are not enough."""
        if count < self.world_size:
            raise UsageError(f"{name} {count} does not go round {self.world_size} ranks: choose at least as many")
        return slice(count * self.rank // self.world_size, count * (self.rank + 1) // self.world_size)

    def own(self, numbers: Int[Tensor, "n"], width: int) -> Int[Tensor, "k"]:
        """Those of the rows with `numbers` that are of this rank, as this rank numbers them.

        `numbers` count the rows of all ranks: `width` rows of each rank, one rank after another, again and again.
        """
        if self.world_size == 1:
            return numbers
        block, place = numbers // (self.world_size * width), numbers % (self.world_size * width)
        return (block * width + place % width)[place // width == self.rank]

    def generator(self, *parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
        """`make_generator(*parts)`, the same on every rank, from which `draw_rows` takes the numbers of this one."""
        if self.world_size == 1:
            return make_generator(*parts, device=device)
        generator = RankGenerator(device)
        generator.ranks = self
        generator.manual_seed(derive_seed(*parts))
        return generator

    @contextlib.contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise RankLost(
                f"rank {self.rank} of {self.world_size} has lost another one, whose own message says why: {reason}"
            ) from None


class RankGenerator(torch.Generator):
    """A generator that is the same on all `ranks`: what is drawn from it directly is drawn alike on every rank.

    >>> from metarl.parallel import RankGenerator
    >>> issubclass(RankGenerator, torch.Generator)
    True
    """

    ranks: Ranks

    def __deepcopy__(self, memo: dict) -> "RankGenerator":
        copied = RankGenerator(self.device)
        copied.ranks = self.ranks
        copied.set_state(self.get_state())
        return copied


def draw_rows(shape: Sequence[int], generator: torch.Generator, draw: Callable[[Sequence[int]], Tensor]) -> Tensor:
    """`draw(shape)`, where `draw` draws from `generator`; on one of several ranks the part of what one process draws.

    The tasks of a rank are the slowest in the `shape` of its numbers, so that they are neighbours among those of all.

    >>> from metarl.parallel import draw_rows
    >>> generator = torch.Generator().manual_seed(0)
    >>> draw_rows((2, 3), generator, lambda shape: torch.rand(*shape, generator=generator)).shape
    torch.Size([2, 3])
    """
    if not isinstance(generator, RankGenerator):
        return draw(shape)
    numbers, ranks = math.prod(shape), generator.ranks
    return draw((ranks.world_size * numbers,))[ranks.rank * numbers :][:numbers].reshape(tuple(shape))


def normal_like(values: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers in the shape of `values`, by `draw_rows`."""
    return _fill_like(values, generator, torch.Tensor.normal_)


def exponential_like(values: Tensor, generator: torch.Generator) -> Tensor:
    """Exponential numbers of rate 1 in the shape of `values`, by `draw_rows`."""
    return _fill_like(values, generator, torch.Tensor.exponential_)


def _fill_like(values: Tensor, generator: torch.Generator, fill: Callable[..., Tensor]) -> Tensor:
    if not isinstance(generator, RankGenerator):
        return fill(torch.empty_like(values), generator=generator)
    return draw_rows(values.shape, generator, lambda shape: fill(values.new_empty(*shape), generator=generator))


def any_rank(flag: bool, generator: torch.Generator) -> bool:
    """Whether `flag` is true on some rank of those that share `generator`: then all of them draw."""
    return generator.ranks.any(flag) if isinstance(generator, RankGenerator) else flag


def launched_size() -> int:
    """The number of processes that torchrun has started; 1 without it.

    Raises `UsageError` for a value of WORLD_SIZE that is no such number.
    """
    return _variable("WORLD_SIZE", 1)


def launched_rank() -> int:
    """The number of this process among those that torchrun has started; 0 without it."""
    return _variable("RANK", 0)


def launched_here() -> int:
    """The number of processes that torchrun has started on this machine; 1 without it."""
    return max(1, _variable("LOCAL_WORLD_SIZE", 1))


def restarts() -> tuple[int, int]:
    """How often torchrun has started the ranks anew, and how often it may."""
    return _variable("TORCHELASTIC_RESTART_COUNT", 0), _variable("TORCHELASTIC_MAX_RESTARTS", 0)


@functools.cache
def join_ranks() -> Ranks:
    """The ranks that torchrun has started, once all of them have called this; one rank without torchrun.

    Raises `UsageError` if torchrun's variables are incomplete or this torch has no `torch.distributed`.
    """
    world_size = launched_size()
    if world_size == 1:
        return Ranks()
    if not dist.is_available():
        raise UsageError(
            f"WORLD_SIZE is {world_size}, but this torch has no torch.distributed: install one that has, or start one "
            "process without torchrun"
        )
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise UsageError(
            f"WORLD_SIZE is {world_size}, but {' and '.join(missing)} not set: start the ranks with torchrun, "
            "or one process without WORLD_SIZE"
        )
    if _variable("GROUP_WORLD_SIZE", 1) > 1 and restarts()[1] and _shares_store():
        raise UsageError(
            "the nodes of a torchrun with --max-restarts would not find each other again: set "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 on each"
        )
    if not dist.is_initialized():
        both = torch.cuda.is_available() and dist.is_nccl_available()
        try:
            store, rank, _ = next(dist.rendezvous("env://"))
            # torchrun keeps its store from one start of the ranks to the next, and what was told of their addresses.
            store = dist.PrefixStore(f"start-{restarts()[0] if _shares_store() else 0}", store)
            backend = "cpu:gloo,cuda:nccl" if both else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
        except (RuntimeError, ValueError) as error:
            raise UsageError(f"the {world_size} ranks do not find each other: {error}") from None
        atexit.register(dist.destroy_process_group)
    return Ranks(world_size, launched_rank(), _variable("LOCAL_RANK", 0))


def _shares_store() -> bool:
    """Whether the ranks find each other by the store of torchrun itself, which outlives them."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)


def _variable(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise UsageError(f"{name} is {text!r}, not a number as torchrun sets it")
    return int(text)
