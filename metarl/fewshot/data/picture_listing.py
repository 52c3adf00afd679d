"""Finding the picture files below a folder, and counting what is passed over."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from metarl.errors import UsageError
from metarl.fewshot.data.picture_files import SUFFIXES, shown

JUNK_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")
"""Folders in which operating systems keep what looks like pictures."""
MOST_NESTED = 32
"""Depth of folders that are looked into."""
_SHOWN = 8


@dataclass
class PictureListing:
    """The picture files below `root`, sorted by name, and what else lies there.

    >>> from pathlib import Path
    >>> from metarl.fewshot.data.picture_listing import list_pictures
    >>> Path("photos/cats").mkdir(parents=True)
    >>> for name in ("1.PNG", "2.jpg", "notes.txt"):
    ...     Path("photos/cats", name).touch()
    >>> listing = list_pictures(Path("photos"))
    >>> listing.names, listing.skipped_line()
    (['cats/1.PNG', 'cats/2.jpg'], 'skipped: 1 .txt')
    """

    root: Path
    names: list[str] = field(default_factory=list)
    """Paths below `root`, with / between the parts."""
    stamps: list[tuple[int, int]] = field(default_factory=list)
    """Bytes and time of modification (ns) of each file."""
    skipped: Counter[str] = field(default_factory=Counter)
    """How many files were passed over: by suffix, by name, or by what they are."""

    def skipped_line(self) -> str | None:
        """A line for people; None if nothing was passed over."""
        if not self.skipped:
            return None
        common = self.skipped.most_common()
        parts = [f"{count} {name}" for name, count in common[:_SHOWN]]
        rest = sum(count for _, count in common[_SHOWN:])
        return "skipped: " + ", ".join([*parts, *([f"{rest} others"] if rest else [])])

    def keep(self, rows: list[int]) -> "PictureListing":
        """The listing of `rows` alone."""
        names, stamps = [self.names[row] for row in rows], [self.stamps[row] for row in rows]
        return PictureListing(self.root, names, stamps, self.skipped)


def list_pictures(root: Path, only: Sequence[str] | None = None) -> PictureListing:
    """Lists the pictures below `root`, or below those folders of it that are in `only`, without opening them.

    Links are followed.

    Files with other suffixes, and what operating systems leave behind, are counted. Raises `UsageError` if a folder
    cannot be read or is nested too deeply.
    """
    listing = PictureListing(root)
    found: list[tuple[str, int, int]] = []
    try:
        if not root.is_dir():
            raise UsageError(f"{shown(root)} is no folder")
        folders = [(root, ())] if only is None else [(root / name, (name,)) for name in only if (root / name).is_dir()]
        for folder, parts in folders:
            _list(folder, parts, found, listing.skipped, in_junk=False)
    except OSError as error:
        raise UsageError(f"{shown(error.filename or root)} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(str(error) if isinstance(error, UsageError) else f"{shown(root)} is no folder") from None
    found.sort()
    listing.names = [name for name, _, _ in found]
    listing.stamps = [(size, time) for _, size, time in found]
    return listing


def _list(
    folder: Path,
    parts: tuple[str, ...],
    found: list[tuple[str, int, int]],
    skipped: Counter[str],
    *,
    in_junk: bool,
) -> None:
    if len(parts) > MOST_NESTED:
        raise UsageError(f"{shown(folder)}: folders more than {MOST_NESTED} deep; does a link lead back?")
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if entry.is_dir():
                is_junk = in_junk or name.startswith(".") or name in JUNK_FOLDERS
                _list(Path(entry.path), (*parts, name), found, skipped, in_junk=is_junk)
            elif in_junk or (kind := _reason_to_skip(entry)):
                skipped[f"in {_junk_of(parts)}" if in_junk else kind] += 1
            else:
                stat = entry.stat()
                found.append(("/".join((*parts, name)), stat.st_size, stat.st_mtime_ns))


def _junk_of(parts: tuple[str, ...]) -> str:
    return shown(next(name for name in parts if name.startswith(".") or name in JUNK_FOLDERS))


def _reason_to_skip(entry: os.DirEntry[str]) -> str:
    """What a file is counted as if it is passed over; empty if it is a picture."""
    name, suffix = entry.name, os.path.splitext(entry.name)[1]
    if name.startswith("._"):
        return "._* (AppleDouble)"
    if name.startswith(".") or not suffix:
        return shown(name) if name.startswith(".") else "without suffix"
    if name.lower() in ("thumbs.db", "desktop.ini"):
        return name
    if suffix.lower() not in SUFFIXES:
        return shown(suffix.lower())
    if entry.is_file():
        return ""
    return "links to nothing" if entry.is_symlink() else "that are no files"
