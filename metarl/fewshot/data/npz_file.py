"""Arrays of numbers in .npz files, read with bounds on what a file may claim. No object is ever unpickled.

The headers of all arrays that are asked for are read first: a file that claims more than it can hold is refused before
any memory is taken for it.
"""

import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from metarl.errors import UsageError

MOST_UNPACKED = 2**26
"""Bytes of arrays that a file may have in any case; beyond them, `MOST_PACKED` times the size of the file."""
MOST_PACKED = 50
"""How many times the size of the file its arrays may have."""
_FAULTS = (
    ValueError,  # also of text in another encoding
    OSError,
    EOFError,
    KeyError,
    IndexError,
    RuntimeError,  # also: encrypted, not implemented, recursion
    SyntaxError,
    TypeError,
    OverflowError,
    MemoryError,
    AttributeError,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
)
"""What numpy and zipfile raise for files that are none."""


def read_npz(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """The arrays of `path` that are called one of `names`; raises `UsageError` for a file that is damaged or no .npz.

    >>> from pathlib import Path
    >>> import numpy as np
    >>> from metarl.fewshot.data.npz_file import read_npz
    >>> np.savez("small.npz", x=np.zeros((3, 2)), notes=np.array(["not", "read"]))
    >>> {name: array.shape for name, array in read_npz(Path("small.npz"), ("x", "y")).items()}
    {'x': (3, 2)}
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    try:
        with warnings.catch_warnings(), zipfile.ZipFile(path) as archive:
            warnings.simplefilter("ignore")  # of headers as Python 2 wrote them
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            wanted = {name: members[name] for name in names if name in members}
            bound = max(MOST_UNPACKED, MOST_PACKED * path.stat().st_size)
            for name, info in wanted.items():
                bound -= _claimed(archive, info, path, name)
                if bound < 0:
                    raise UsageError(
                        f"{path}: its arrays claim more than {MOST_PACKED} times the bytes of the file; if they have "
                        f"them, save with numpy.savez, without compression"
                    )
            return {name: _read(archive, info) for name, info in wanted.items()}
    except UsageError:
        raise
    except _FAULTS as error:
        why = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise UsageError(f"{path} is no .npz file of numbers, or is damaged: {why:.200}") from None


def _claimed(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, name: str) -> int:
    """The bytes that the header of an array claims; raises `UsageError` if it holds objects or not as many."""
    with archive.open(info) as file:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise UsageError(f"{path}: {name} is an array of format {version}: save it with numpy.savez")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
        if dtype.hasobject:
            raise UsageError(
                f"{path}: {name} holds Python objects, which are not read: save an array of numbers or words"
            )
        size = dtype.itemsize
        for side in shape:
            if side < 0:
                raise UsageError(f"{path}: {name} claims a shape of {list(shape)}")
            size *= side
        if size != info.file_size - file.tell():
            raise UsageError(f"{path}: {name} claims a shape of {list(shape)}, of which the file has not the numbers")
    return size


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as file:
        array = npy.read_array(file)
        file.read(1)  # the end of a member: its checksum is compared
    return array
