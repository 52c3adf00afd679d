"""`metarl benchmark pearl`: a gradient step of PEARL beside its matrix products alone."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from metarl.agent import EnvSpec
from metarl.agents.pearl import PEARL, PEARLConfig
from metarl.registry import make
from metarl.scripts.benchmark import Output
from metarl.tasks import check_count
from metarl.threads import torch_threads

PRODUCTS = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm)


@dataclass
class Arguments(Output):
    """Measures gradient steps on transitions of the size of HalfCheetahVel-v0: drawing them, losses, Adam, targets."""

    hidden: tuple[int, ...] = (300, 300, 300)
    """Units of the layers of policy and critics."""
    batch_size: int = PEARLConfig.batch_size
    """Transitions of each task."""
    stored: int = 100_000
    """Transitions in the replay buffer."""
    repeats: int = 15
    """Steps to measure. The results are medians."""


class Products(TorchDispatchMode):
    """Records the matrix products that run inside, with operands of the same shapes and strides.

    >>> from metarl.scripts.benchmark_pearl import Products
    >>> with Products() as products:
    ...     _ = torch.ones(2, 3) @ torch.ones(3, 4)
    >>> len(products.calls), products.flops
    (1, 48)
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Tensor], list[Any]]] = []
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in PRODUCTS:
            self.calls.append((func, [_like(value) for value in args]))
            self.flops += 2 * result.numel() * args[-1].shape[-2]
        return result

    def run(self) -> None:
        """Computes all products again."""
        with torch.no_grad():
            for func, operands in self.calls:
                func(*operands)


def run(arguments: Arguments) -> dict[str, Any]:
    """Measures, prints a table and returns the results."""
    for name in ("batch_size", "stored", "repeats"):
        check_count(name, getattr(arguments, name))
    with torch_threads():
        step = _prepare(arguments)
        step()
        with Products() as products:
            step()
        seconds: dict[str, list[float]] = {"a gradient step": [], "its matrix products": []}
        for _ in range(arguments.repeats + 1):
            for name, function in zip(seconds, (step, products.run), strict=True):  # in turns
                start = time.perf_counter()
                function()
                seconds[name].append(time.perf_counter() - start)
        threads = torch.get_num_threads()
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    pairs = zip(*(values[1:] for values in seconds.values()), strict=True)
    ratio = statistics.median(whole / part for whole, part in pairs)
    table = Table(title=f"PEARL, 16 tasks × {arguments.batch_size}, layers {'×'.join(map(str, arguments.hidden))}")
    for column in ("", "milliseconds", "ratio"):
        table.add_column(column, justify="right")
    for name, value in medians.items():
        table.add_row(name, f"{1e3 * value:.1f}", f"{ratio:.2f}" if name == "a gradient step" else "1")
    Console().print(table)
    return {
        "hidden": list(arguments.hidden),
        "batch_size": arguments.batch_size,
        "stored": arguments.stored,
        "repeats": arguments.repeats,
        "seconds": medians,
        "ratio": ratio,
        "products": len(products.calls),
        "gflop": products.flops / 1e9,
        "machine": {"cores": os.cpu_count(), "threads": threads, "processor": platform.processor()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def _prepare(arguments: Arguments) -> Callable[[], object]:
    """A gradient step on a buffer of random transitions."""
    config = PEARLConfig(hidden=arguments.hidden, batch_size=arguments.batch_size)
    spec = EnvSpec.of(make("HalfCheetahVel-v0"))
    agent, generator = PEARL(config, spec), torch.Generator().manual_seed(0)
    count, size = arguments.stored, spec.observation_space.shape or (0,)
    observations = torch.randn(count, *size, generator=generator)
    rows = {
        "observations": observations,
        "actions": 2 * torch.rand(count, agent.network.head.size, generator=generator) - 1,
        "rewards": torch.randn(count, generator=generator),
        "terminated": torch.zeros(count, dtype=torch.bool),
        "next_observations": observations + 0.1,
    }
    agent.replay.append(torch.arange(count) % config.train_tasks, rows)
    return lambda: agent.gradient_step(1000, generator)


def _like(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    length = 1 + sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
    return torch.randn(length).as_strided(value.shape, value.stride())
