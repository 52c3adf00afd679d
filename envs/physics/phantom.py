"""A GPU that is only described: Warp compiles its kernels for it, and runs none of them.

The compiler (NVRTC) is part of Warp's library and needs neither a driver nor a GPU. Warp decides at each launch what to
compile: it hashes the kernel's module as it is then, and looks for the hash in its cache. So its own launches go to a
device that is nothing but a description, and only the calls of the driver behind them do nothing. No kernel runs, not
even on the CPU. This works because which kernels `mujoco_warp` launches depends on the model, its options and the
capacities alone: it reads no array on the host.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import warp as wp
from warp._src import context

from metarl.envs.physics.warp_engine import WarpPhysics
from metarl.envs.warp_runtime import start_warp
from metarl.errors import UsageError

_MULTIPROCESSORS = 132
"""Those of an H100. They decide how many blocks are launched, not which kernels."""
_SHARED_MEMORY = 227 * 1024
"""Bytes of a block on an H100. Warp names them in messages, no kernel depends on them."""


@dataclass(frozen=True)
class CompiledModule:
    """A module of kernels in the cache."""

    name: str
    """Its name in the cache, with the hash of its kernels."""
    kernels: int
    size: int
    """Bytes of the binary."""
    seconds: float
    """What compiling it took; 0 if it was found."""


class Compilation:
    """What Warp has looked up in its cache since `pretend_gpu`.

    >>> compilation = pretend_gpu(90)
    >>> compilation.modules, compilation.missing
    ({}, set())
    """

    def __init__(self, compiles: bool):
        self.compiles = compiles
        self.modules: dict[str, CompiledModule] = {}
        """The modules that are in the cache now."""
        self.missing: set[str] = set()
        """Names of those that are not, if nothing is compiled."""
        self._compile = context.Module._compile

    def compile(self, module: Any, device: Any, folder: Any, name: str, arch: int | None, *, options: Any) -> bool:
        """Takes the place of `warp.Module._compile`: finds the binary of a module or makes it; True if it made it."""
        block_dim = options["block_dim"]
        binary, identity = Path(folder) / name, Path(folder).name
        found = binary.exists() and (Path(folder) / module._get_meta_name(block_dim=block_dim)).exists()
        if not found and not self.compiles:
            self.missing.add(identity)
            raise _Missing
        start = time.perf_counter()
        made = self._compile(module, device, folder, name, arch, options=options)
        seconds = time.perf_counter() - start if made else 0.0
        kernels = len(module.hashers[block_dim].unique_kernels)
        self.modules.setdefault(identity, CompiledModule(identity, kernels, binary.stat().st_size, seconds))
        return made


def world_bytes(physics: WarpPhysics) -> float:
    """The memory of a world: its state, its readings, and the room for its contacts and constraint rows, in bytes.

    Neither what the solver needs while it works, nor what an environment keeps beside its engine.
    """
    return sum(array.capacity for array in _arrays(physics._worlds)) / physics.num_worlds


def _arrays(owner: Any) -> Iterator[Any]:
    for value in vars(owner).values():
        if isinstance(value, wp.array):
            yield value
        elif dataclasses.is_dataclass(value):
            yield from _arrays(value)


class _Missing(Exception):
    """A module that is not in the cache, and must not be compiled."""


class _WithoutDriver:
    """Warp's native library without the driver: what would act on a GPU does nothing, all else is the library's."""

    def __init__(self, library: Any):
        self._library = library
        self._handles = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def wp_cuda_load_module(self, *_: Any) -> int:
        self._handles += 1
        return self._handles

    def wp_cuda_unload_module(self, *_: Any) -> None: ...

    def wp_cuda_get_kernel(self, *_: Any) -> int:
        return 1

    def wp_cuda_configure_kernel_shared_memory(self, *_: Any) -> bool:
        return True

    def wp_cuda_get_kernel_static_shared_memory(self, *_: Any) -> int:
        return 0

    def wp_cuda_launch_kernel(self, *_: Any) -> int:
        return 0

    def wp_cuda_stream_is_capturing(self, *_: Any) -> bool:
        return False

    def wp_cuda_context_push_current(self, *_: Any) -> None: ...

    def wp_cuda_context_pop_current(self, *_: Any) -> None: ...


def pretend_gpu(arch: int, *, compiles: bool = True) -> Compilation:
    """Makes Warp compile for a GPU of compute capability `arch` (90 is 9.0), and run nothing, from now on.

    Arrays stay in the memory of the CPU: make environments with `device="cpu"`; what they return has no meaning. If not
    `compiles`, the result tells what is missing in the cache. Raises `UsageError` for an architecture that Warp's
    compiler does not know.
    """
    start_warp()
    runtime: Any = context.runtime
    if arch not in runtime.nvrtc_supported_archs:
        known = ", ".join(f"sm_{known}" for known in sorted(runtime.nvrtc_supported_archs)) or "none"
        raise UsageError(f"Warp's compiler does not know the architecture sm_{arch}; it knows {known}")
    runtime.core = _WithoutDriver(runtime.core)
    runtime.driver_version = runtime.toolkit_version  # one that knows all that the compiler does
    compilation = Compilation(compiles)
    context.Module._compile = lambda module, *rest, **named: compilation.compile(module, *rest, **named)  # type: ignore[method-assign]
    _send_launches_to(_described_device(runtime, arch))
    return compilation


def _described_device(runtime: Any, arch: int) -> wp.Device:
    device = object.__new__(wp.Device)
    vars(device).update(
        runtime=runtime,
        alias="cuda:0",
        name=f"phantom sm_{arch}",
        ordinal=0,
        is_primary=True,
        _context=1,
        _stream=SimpleNamespace(cuda_stream=None, is_capturing=False),
        null_stream=None,
        captures={},
        arch=arch,
        sm_count=_MULTIPROCESSORS,
        max_shared_memory_per_block=_SHARED_MEMORY,
        is_cubin_supported=True,
        is_mempool_supported=True,
        is_mempool_enabled=True,
        is_uva=True,
    )
    return device


def _send_launches_to(device: wp.Device) -> None:
    get_device = context.get_device

    def sent(launch: Callable[..., Any]) -> Callable[..., None]:
        def launch_there(*arguments: Any, **named: Any) -> None:
            if len(arguments) > 6:
                raise NotImplementedError("a launch names its device by position: it cannot be sent elsewhere")
            # Noted when a module is missing; what is launched later may be missing too.
            with contextlib.suppress(_Missing):
                launch(*arguments, **(named | {"device": device, "stream": None}))

        return launch_there

    def get_device_of_caller(ident: Any = None) -> Any:
        return device if ident is None else get_device(ident)

    def run_once(condition: Any, while_body: Callable[..., None], stream: Any = None, **named: Any) -> None:
        while_body(**named)  # as a capture does

    def run_both(condition: Any, on_true: Any = None, on_false: Any = None, stream: Any = None, **named: Any) -> None:
        for branch in (on_true, on_false):
            if branch is not None:
                branch(**named)

    # `launch_tiled` asks the device for the size of a block, and then calls the `launch` of its module.
    launches = {"launch": sent(context.launch), "launch_tiled": sent(context.launch_tiled)}
    for name, function in (launches | {"capture_while": run_once, "capture_if": run_both}).items():
        setattr(context, name, function)
        setattr(wp, name, function)
    setattr(wp, "get_device", get_device_of_caller)  # noqa: B010 - `mujoco_warp` asks what it runs on
    # Native on both kinds of devices; they could trip over arrays that no kernel has filled.
    for name in ("array_scan", "radix_sort_pairs", "segmented_sort_pairs", "runlength_encode"):
        setattr(wp.utils, name, lambda *_, **__: None)
