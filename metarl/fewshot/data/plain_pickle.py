"""Reads pickles of plain data without calling anything that they name.

A pickle is a program: unpickling calls the functions it names. Here only names for arrays, numbers, bytes and
containers are allowed; all others are refused. NumPy's own code is not allowed either, because it trusts the types that
a pickle declares: `PlainArray` rebuilds arrays from their bytes.

A pickle takes no more memory than in proportion to its file: Python's own interpreter of pickles runs it, whose memo is
a dict and not an array as long as the largest number in the file; no bytes are asked for that the file does not have;
and what containers copy is limited by the size of the file.
"""

import collections
import functools
import pickle
import struct
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from metarl.errors import UsageError
from metarl.parsing import printable

_NUMBERS = "biuf"
"""Kinds of NumPy types whose bytes are their value: booleans, integers, floats."""


def read_plain_pickle(path: Path) -> Any:
    """Reads numbers, strings, bytes and containers from `path`, and a `PlainArray` for each array.

    It also reads pickles of Python 2, whose strings become bytes. Raises `UsageError` if the file names anything else
    or is damaged.
    """
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(path, _Bounded(file, path.stat().st_size)).load()
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except Exception as error:  # a damaged pickle is a wrong program, which may fail in any way
        raise UsageError(f"{path} is damaged: {str(error) or type(error).__name__}".replace("\n", " ")) from None


class PlainArray:
    """An array as described by a pickle; `numpy()` converts it.

    >>> import pickle
    >>> import struct
    >>> from pathlib import Path
    >>> from metarl.fewshot.data.plain_pickle import read_plain_pickle
    >>> _ = Path("array.pkl").write_bytes(pickle.dumps(torch.arange(3).numpy()))
    >>> read_plain_pickle(Path("array.pkl")).numpy().tolist()
    [0, 1, 2]
    """

    def __init__(self, raw: Any = b"", dtype: "_PlainType | None" = None, shape: Any = (0,), order: Any = "C"):
        self.raw = raw
        self.dtype = dtype
        self.shape = shape
        self.order = _text(order)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, fortran, self.raw = state
        self.order = "F" if fortran else "C"

    def __len__(self) -> int:
        return int(self.shape[0])

    def numpy(self) -> np.ndarray:
        """The array, read-only and backed by the bytes of the pickle; Python objects become an array of objects."""
        if isinstance(self.raw, list):
            values = np.empty(len(self.raw), dtype=object)
            values[:] = self.raw
        elif self.dtype is None:
            raise ValueError("an array without a type")
        else:
            values = np.frombuffer(self.raw, self.dtype.numbers())
        return values.reshape(self.shape, order="F" if self.order == "F" else "C")


class _PlainType:
    """A NumPy type as described by a pickle: name and byte order only."""

    def __init__(self, name: Any, *_: Any):
        self.name = _text(name)
        self.byte_order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.byte_order = _text(state[1])

    def numbers(self) -> np.dtype:
        dtype = np.dtype(self.byte_order + self.name)
        if dtype.kind not in _NUMBERS:
            raise ValueError(f"an array of type {self.name!r}, not of numbers")
        return dtype


def _reconstruct(*_: Any) -> PlainArray:
    return PlainArray()


def _scalar(dtype: _PlainType, raw: bytes) -> Any:
    return np.frombuffer(raw, dtype.numbers())[0].item()


def _encode(text: str, encoding: Any = "latin1") -> bytes:
    """How Python 3 writes bytes for Python 2."""
    if encoding != "latin1":
        raise ValueError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


_CONTAINERS = (bytes, bytearray, list, tuple, dict, set, frozenset)
_NUMPY_CORE = ("numpy.core", "numpy._core")
_KNOWN = {
    ("numpy", "ndarray"): PlainArray,
    ("numpy", "dtype"): _PlainType,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): collections.OrderedDict,
    **{(f"{core}.multiarray", "_reconstruct"): _reconstruct for core in _NUMPY_CORE},
    **{(f"{core}.multiarray", "scalar"): _scalar for core in _NUMPY_CORE},
    **{(f"{core}.numeric", "_frombuffer"): PlainArray for core in _NUMPY_CORE},
    **{(module, kind.__name__): kind for module in ("builtins", "__builtin__") for kind in _CONTAINERS},
}


class _Bounded:
    """A file of `size` bytes that is not asked for more than it has."""

    def __init__(self, file: BinaryIO, size: int):
        self.file, self.left, self.size = file, size, size

    def read(self, count: int) -> bytes:
        if count > self.left:
            raise EOFError("it ends too early")
        self.left -= count
        return self.file.read(count)

    def readline(self) -> bytes:
        line = self.file.readline()
        self.left -= len(line)
        return line


class _PlainUnpickler(pickle._Unpickler):
    """An unpickler that allows only the names in `_KNOWN`."""

    read: Any  # made by `load`
    append: Any
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, path: Path, file: _Bounded):
        super().__init__(file, encoding="bytes")
        self.path = path
        self.copies = file.size
        """How many elements containers may still copy."""

    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN.get((module, name))
        if known is None:
            asked_for = printable(f"{module}.{name}")
            raise UsageError(f"{self.path} is refused: it asks for {asked_for}, which is no plain data")
        return functools.partial(self._container, known) if known in _CONTAINERS else known

    def load_bytearray8(self) -> None:
        """Reads before it makes the array, unlike the original."""
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def _container(self, kind: type, *content: Any) -> Any:
        """`kind` of at most one collection; not of a number, of which `bytes` makes as many zeros."""
        if len(content) > 1 or any(isinstance(part, (int, str)) for part in content):
            raise ValueError(f"{kind.__name__} of {content!r:.40}")
        self.copies -= sum(map(len, content))
        if self.copies < 0:
            raise ValueError("its containers copy more than the file holds")
        return kind(*content)
