"""Writing files completely or not at all."""

import hashlib
import os
import tempfile
from pathlib import Path

from metarl.errors import UsageError

_TEMPORARY = ".tmp"


def write_atomically(path: Path, data: bytes | str) -> None:
    """Writes a temporary file, waits for the disk and renames it to `path`: a crash leaves the old file or the new.

    After it returns, the new file outlasts a power cut: the folder, which has its name, is on the disk too.
    """
    make_folder(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Makes the folder `path` and those above it that are missing, and waits for the disk."""
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Waits until the names in the folder `path` are on the disk. Windows writes them by itself."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_temporary(path: Path) -> bool:
    """Whether `path` is what a killed process left of a file that it was writing."""
    return path.name.startswith(".") and path.suffix == _TEMPORARY


def remove_temporaries(folder: Path, prefix: str = "") -> None:
    """Deletes what a killed process left in `folder` of files that it was writing, whose names began with `prefix`."""
    for path in folder.glob(f".{prefix}*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raises `UsageError` if a result could not be written to `path`. Call it before computing the result."""
    folder = path.absolute().parent
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file")
    if not folder.is_dir():
        raise UsageError(f"cannot write {path}: there is no folder {folder}")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise UsageError(f"cannot write {path}: permission denied")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _umask() -> int:
    """The file mode mask of the process, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
