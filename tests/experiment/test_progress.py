"""What the display of progress leaves on a terminal."""

import contextlib
import os
import pty
import re
import sys
import termios
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from metarl.experiment.progress import Progress


@contextlib.contextmanager
def terminal() -> Iterator[int]:
    """A terminal of 80 columns as stdout and stderr; its other end."""
    far, near = pty.openpty()
    tty.setraw(near, termios.TCSANOW)
    os.set_blocking(far, False)
    with os.fdopen(near, "w", buffering=1, encoding="utf-8") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "80")
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", stream)
        yield far
    os.close(far)


def screen(far: int) -> list[str]:
    """The lines that a terminal shows after all that was written to it."""
    written, rows, row, column = b"", [""], 0, 0
    with contextlib.suppress(BlockingIOError):
        while True:
            written += os.read(far, 4096)
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x1b]", written.decode()):
        if token == "\x1b[1A":
            row -= 1
        elif token == "\x1b[2K":
            rows[row] = ""
        elif token == "\n":
            row, column = row + 1, 0
            rows += [""] * (row == len(rows))
        elif token == "\r":
            column = 0
        elif len(token) == 1:
            rows[row] = rows[row][:column].ljust(column) + token + rows[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in rows if line.strip()]


def test_what_others_write_stays_above_the_display():
    """The display moved up over it: a warning in training was never seen."""
    with terminal() as far:
        out, errors = sys.stdout, sys.stderr
        with Progress("title") as bar:
            bar.update(0.2, "iteration 1", "details")
            print("metarl: the disk [/is] full", file=sys.stderr)
            bar.update(0.4, "iteration 2", "details")
            print("printed", "by an", "\x1b[31menvironment\x1b[0m")
            sys.stdout.write("without an end")
        print("after it")
        restored, shown = (sys.stdout, sys.stderr) == (out, errors), screen(far)
    assert restored
    assert shown[:3] == ["metarl: the disk [/is] full", "printed by an environment", "without an end"]
    assert shown[3].startswith("title ━")
    assert shown[4:] == ["iteration 2", "details", "after it"]


def test_long_lines_are_not_broken_and_bars_of_others_need_no_memory():
    with terminal() as far:
        with Progress("title") as bar:
            bar.update(0.2, "iteration 1")
            print("x" * 100, file=sys.stderr)
            for i in range(1000):
                sys.stderr.write(f"\r{i:20d}")
            kept = len(sys.stderr._rest)  # type: ignore[attr-defined]
        shown = screen(far)
    assert shown[0] == "x" * 100
    assert kept <= 10_000


def test_output_that_goes_elsewhere_is_left_alone(tmp_path: Path):
    with terminal() as far, (tmp_path / "out").open("w") as file, contextlib.redirect_stdout(file):
        with Progress("title") as bar:
            bar.update(0.2, "iteration 1")
            print("printed")
            same = sys.stdout is file
        shown = screen(far)
    assert same
    assert (tmp_path / "out").read_text() == "printed\n"
    assert [line.split()[0] for line in shown] == ["title", "iteration"]
