"""A GPU that is not there: tensors in the host's memory that say they are on "cuda", and what would make a GPU wait.

Code that asks a tensor for its device takes the branches written for a GPU, with real numbers. Factories with
`device="cuda"` make such tensors; an operation on them and on a tensor in the host's memory fails, as it does on a GPU.
While `waiting_refused` is entered, everything raises that would make the host wait: reading a value, shapes that depend
on values, copies between the host and the device.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

CUDA = torch.device("cuda", 0)
aten = torch.ops.aten


class Waits(AssertionError):
    """The host would have waited for the GPU here."""


class OnGPU(torch.Tensor):
    """A tensor that says it is on a GPU."""

    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]


class _AnyGenerator(type(torch.Generator)):  # type: ignore[misc]
    """Run-time type checks look `torch.Generator` up late, and find what stands in for it."""

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, torch._C.Generator)


class GPUGenerator(torch.Generator, metaclass=_AnyGenerator):
    """A generator of the CPU that says it is the GPU's."""

    def __new__(cls, device: Any = "cpu") -> torch.Generator:
        chosen = cls if torch.device(device).type == "cuda" else torch._C.Generator
        return torch._C.Generator.__new__(chosen)

    def __deepcopy__(self, memo: Any) -> "GPUGenerator":
        copied = GPUGenerator(CUDA)
        copied.set_state(self.get_state())
        return copied

    device = property(lambda self: CUDA)  # type: ignore[assignment]


def on_gpu(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory as a tensor on the GPU."""
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.as_subclass(OnGPU)


def in_host(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory as a tensor of the host."""
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.as_subclass(torch.Tensor)


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def move_module(module: torch.nn.Module) -> None:
    """Puts a module's parameters and buffers on the GPU."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = torch.nn.Parameter(on_gpu(value.detach()), requires_grad=value.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = on_gpu(buffer)


def _one_hot(index: torch.Tensor, num_classes: int = -1) -> torch.Tensor:
    """As on a GPU, where the values are not looked at if their number is given."""
    assert num_classes > 0, "one_hot without num_classes waits"
    return index.new_zeros(*index.shape, num_classes).scatter_(-1, index[..., None], 1)


def _is_gpu(device: Any) -> bool:
    return isinstance(device, str | torch.device) and torch.device(device).type == "cuda"


_READS = {"item", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__", "__array__", "cpu"}


class PhantomGPU(TorchFunctionMode):
    """Serves calls that name the device "cuda". `strict`: refuses what would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.strict = False

    def __torch_function__(self, function: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(function, "__name__", "")
        first = args[0] if args else None
        if isinstance(first, OnGPU) and name in _READS:
            self._wait(f"Tensor.{name} reads the GPU")
            if name == "cpu":
                return in_host(first).clone()
        if name == "one_hot" and isinstance(first, OnGPU):
            return _one_hot(*args, **kwargs)
        if name in ("to", "as_tensor", "tensor"):
            return self._move(function, name, args, kwargs)
        if _is_gpu(kwargs.get("device")):
            kwargs["device"] = "cpu"
            result = function(*args, **kwargs)
            return on_gpu(result) if isinstance(result, torch.Tensor) else result
        return function(*args, **kwargs)

    def _move(self, function: Callable, name: str, args: Any, kwargs: Any) -> Any:
        given = args[0]
        wanted = next((part for part in (*args[1:], *kwargs.values()) if isinstance(part, str | torch.device)), None)
        like = next((part for part in args[1:] if isinstance(part, torch.Tensor)), None)
        was = isinstance(given, OnGPU)
        now = was if like is None else isinstance(like, OnGPU)
        if wanted is not None:
            now = _is_gpu(wanted)
        if was != now and not (now and isinstance(given, torch.Tensor) and not given.ndim):
            self._wait(f"{name}: copies from {'the GPU to the host' if was else 'the host to the GPU'}")
        cpu = [torch.device("cpu") if part is wanted and part is not None else part for part in args]
        kwargs = {
            key: torch.device("cpu") if key == "device" and value is not None else value
            for key, value in kwargs.items()
        }
        if was:
            cpu[0] = in_host(given)
        cpu[1:] = [in_host(part) if isinstance(part, OnGPU) else part for part in cpu[1:]]
        result = function(*cpu, **kwargs)
        if was and now and result is cpu[0]:
            return given
        if was != now and result is cpu[0]:
            result = result.clone()
        return on_gpu(result) if now else result

    def _wait(self, what: str) -> None:
        if self.strict:
            raise Waits(what)


class _Operations(TorchDispatchMode):
    """Looks at every operation: on one device, and without a wait where `gpu.strict`."""

    def __init__(self, gpu: PhantomGPU):
        super().__init__()
        self.gpu = gpu

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = list(tensors_in([*args, kwargs]))
        served = any(isinstance(tensor, OnGPU) for tensor in given)
        if served:
            strangers = [tensor for tensor in given if not isinstance(tensor, OnGPU) and tensor.ndim]
            if strangers:
                raise RuntimeError(
                    f"{function}: tensors on two devices, one of shape {list(strangers[0].shape)} in the host's memory"
                )
            if self.gpu.strict and _waits(function, args):
                raise Waits(str(function))
        result = function(*args, **kwargs)
        if not served:
            return result
        if isinstance(result, list | tuple):
            return type(result)(on_gpu(part) if isinstance(part, torch.Tensor) else part for part in result)
        return on_gpu(result) if isinstance(result, torch.Tensor) and not isinstance(result, OnGPU) else result


def _waits(function: Any, args: Sequence[Any]) -> bool:
    """Whether a GPU's host waits for the result of the operation."""
    if function.overloadpacket in (
        aten.index,
        aten.index_put,
        aten.index_put_,
        aten._unsafe_index,
        aten._index_put_impl_,
    ):
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    tags = function.tags
    return torch.Tag.data_dependent_output in tags or torch.Tag.dynamic_output_shape in tags


class Tape(TorchDispatchMode):
    """Stands in for the capture of a graph: notes every operation, and does all of it again, at the same addresses.

    Python's part of a step is not repeated, as with a graph. The first run, which a real capture only notes, happens.
    """

    def __init__(self, gpu: PhantomGPU):
        super().__init__()
        self.gpu = gpu
        self.works: list[Callable[[], None]] = []
        self.replays = 0
        self.running: Tape | None = None

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def capture(self, work: Callable[[], None], device: torch.device) -> Callable[[], None]:
        """As `metarl.envs.capture.Capture` wants it. What waits is refused, as in a real capture."""
        tape = Tape(self.gpu)
        was, self.gpu.strict = self.gpu.strict, True
        self.running = tape
        try:
            with tape:
                work()
        finally:
            self.gpu.strict, self.running = was, None

        def replay() -> None:
            self.replays += 1
            with _disable_current_modes():
                for again in tape.works:
                    again()

        return replay

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.works.append(lambda: _again(function, args, kwargs or {}, result))
        return result


class _Stream:
    """A stream of the phantom: there is nothing to wait for."""

    def __init__(self, device: Any = None):
        pass

    def wait_stream(self, other: Any) -> None:
        pass


@contextlib.contextmanager
def phantom_warp(monkeypatch: Any, tape: Tape) -> Iterator[None]:
    """Warp's CPU device under the name of the phantom; what it launches belongs to the tape, if one is running."""
    import warp as wp

    from metarl.envs.physics import warp_engine

    def find_device(device: torch.device) -> Any:
        warp_engine.start_warp()
        return wp.get_device("cpu")

    def launch(self: Any, name: str, work: Callable[[], None]) -> None:
        def scoped() -> None:
            with wp.ScopedDevice("cpu"):
                work()

        if tape.running is not None:
            tape.running.works.append(scoped)
        scoped()

    to_torch = wp.to_torch
    monkeypatch.setattr(warp_engine, "_warp_device", find_device)
    monkeypatch.setattr(warp_engine.WarpPhysics, "_launch", launch)
    monkeypatch.setattr(wp, "to_torch", lambda array: on_gpu(to_torch(array)))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: tape.running is not None)
    monkeypatch.setattr(torch.cuda, "current_stream", _Stream)
    monkeypatch.setattr(torch.cuda, "Stream", _Stream)
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
    yield


def _again(function: Any, args: Any, kwargs: Any, result: Any) -> None:
    for old, new in zip(tensors_in(result), tensors_in(function(*args, **kwargs)), strict=True):
        if old.data_ptr() != new.data_ptr():
            old.copy_(new)


@contextlib.contextmanager
def phantom_gpu(monkeypatch: Any) -> Iterator[PhantomGPU]:
    """A GPU for the body of the `with`; the host's part of `torch.cuda` and of metarl is told of it."""
    gpu = PhantomGPU()
    monkeypatch.setattr(torch, "Generator", GPUGenerator)
    monkeypatch.setattr("metarl.distribution.resolve_device", torch.device)
    monkeypatch.setattr("metarl.agent.resolve_device", torch.device, raising=False)
    with gpu, _Operations(gpu):
        yield gpu


@contextlib.contextmanager
def waiting_refused(gpu: PhantomGPU) -> Iterator[None]:
    """Raises `Waits` for whatever would make the host wait."""
    gpu.strict = True
    try:
        yield
    finally:
        gpu.strict = False
