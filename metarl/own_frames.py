"""The part of a traceback that is of the user's own code, for whoever looks for a mistake in it."""

import importlib.util
import os
import sys
import sysconfig
import traceback
from functools import cache

_OURS = ("metarl", "metarl.envs", "metarl.agents", "metarl.scripts")


class RemoteTraceback(Exception):
    """The cause of an exception that came from a worker process: its traceback over there, which cannot travel.

    >>> from metarl.own_frames import RemoteTraceback
    >>> print(RemoteTraceback("Traceback (most recent call last): ...", ""))
    Traceback (most recent call last): ...
    """

    def __init__(self, whole: str, own: str):
        super().__init__(whole, own)
        self.whole, self.own = whole, own

    @classmethod
    def of(cls, error: BaseException) -> "RemoteTraceback":
        return cls("".join(traceback.format_exception(error)), own_traceback(error))

    def __str__(self) -> str:
        return self.whole


def own_traceback(error: BaseException) -> str:
    """The traceback of an exception and its causes without frames of metarl; "" if none of them is a user's.

    What the user's code calls in turn, of whatever package, stays. Notes are left out.
    """
    for remote in (error, error.__cause__):
        if isinstance(remote, RemoteTraceback):
            return remote.own
    shown: traceback.TracebackException = traceback.TracebackException.from_exception(error)
    return "".join(shown.format()) if _cut(shown) else ""


def _cut(shown: traceback.TracebackException) -> bool:
    """Leaves the user's frames of an exception and of those before it; False if there are none."""
    own = _own(shown.stack)
    found = bool(own) or _is_users(getattr(shown, "filename", None) or "")  # of a SyntaxError, which has no frame there
    shown.stack = traceback.StackSummary.from_list(own)
    shown.__notes__ = None
    for name in ("__cause__", "__context__"):
        before = getattr(shown, name)
        if before is not None and _cut(before):
            found = True
        else:
            setattr(shown, name, None)
    return found


def _own(stack: traceback.StackSummary) -> list[traceback.FrameSummary]:
    """From the first frame of the user's on, all that are not ours."""
    first = next((i for i, frame in enumerate(stack) if _is_users(frame.filename)), len(stack))
    return [frame for frame in stack[first:] if not _is_in(frame.filename, _our_folders())]


def _is_users(file: str) -> bool:
    """Whether a file is of neither metarl, Python nor an installed package."""
    return os.path.isfile(file) and not _is_in(file, (*_our_folders(), *_installed_folders()))


def _is_in(file: str, folders: tuple[str, ...]) -> bool:
    return os.path.realpath(file).startswith(folders)


@cache
def _our_folders() -> tuple[str, ...]:
    specs = (importlib.util.find_spec(name) for name in _OURS)
    return tuple(
        os.path.join(os.path.realpath(folder), "")
        for spec in specs
        if spec is not None
        for folder in spec.submodule_search_locations or ()
    )


@cache
def _installed_folders() -> tuple[str, ...]:
    folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders |= {folder for folder in sys.path if os.path.basename(folder) in ("site-packages", "dist-packages")}
    return tuple(os.path.join(os.path.realpath(folder), "") for folder in folders if folder)
