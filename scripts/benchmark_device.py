"""`metarl benchmark device`: all that is worth measuring on a GPU, in few minutes, the worthiest first."""

import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.table import Table

from metarl.devices import resolve_device
from metarl.errors import UsageError
from metarl.experiment.files import write_atomically
from metarl.importing import near_matches
from metarl.scripts.benchmark import known_versions
from metarl.scripts.benchmark_rollout import commit, device_name
from metarl.scripts.device_lines import Line, figures_of, full_lines, rehearsal_lines, told
from metarl.scripts.evaluate import print_table
from metarl.scripts.workers import Process

WORKER = Path(__file__).with_name("device_worker.py")
INDEX = "campaign.json"
PACKAGES = ("metarl-kit", "torch", "mujoco", "mujoco-warp", "warp-lang", "gymnasium", "metaworld", "numpy")
LAST_LINES = 20
"""Lines of a process's output that are kept if it fails."""
DONE, FAILED, OUT_OF_TIME, NOT_AVAILABLE = "done", "failed", "out of time", "not available"


@dataclass
class Arguments:
    """Measures a GPU: tests, speed, agreement with the CPU, learning, and a peer, a line after another.

    Each line runs in a process of its own until its limit, or until the minutes are over. What it has measured by then
    is written to DIR. On the CPU the campaign is a rehearsal at tiny sizes; what it compiles first does not count.
    """

    json: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder for the results, which must not exist yet: a file for each line, and campaign.json."""
    minutes: float = 9.0
    """Minutes that all lines have together."""
    device: Literal["cuda", "cpu"] = "cuda"
    """cuda, or cpu for a rehearsal on Warp's CPU device."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="LINE ...")] = ()
    """Lines to run, by a part of their name, such as family, set or learning; all if none are given."""
    peer_python: Annotated[Path | None, tyro.conf.arg(metavar="PYTHON")] = None
    """Interpreter that has mtcworldmjx, which wants other versions of MuJoCo; this one if not given."""
    commit: str | None = None
    """What to record as the commit; git's answer if not given."""


def run(arguments: Arguments) -> dict[str, Any]:
    """Runs the campaign, prints a table and returns what campaign.json holds.

    A line that fails or runs out of time is recorded with its reason and the last lines of its output, and the campaign
    goes on. Raises `UsageError` for a bad argument.
    """
    lines = _chosen(arguments)
    _check(arguments)
    arguments.json.mkdir(parents=True)
    index: dict[str, Any] = {
        "benchmark": "device",
        "rehearsal": arguments.device == "cpu",
        "device": _device(arguments.device),
        "commit": arguments.commit or commit(),
        "versions": known_versions(PACKAGES),
        "minutes": arguments.minutes,
        "lines": {},
    }
    spent = 0.0
    for line in lines:
        left = 60 * arguments.minutes - spent
        result = _measure(line, arguments.device, min(line.limit, left) if line.counted else line.limit)
        spent += result["seconds"] if line.counted else 0.0
        file = re.sub(r"\W+", "-", line.name).strip("-") + ".json"
        _write(arguments.json / file, {"line": line.name, **result})
        kept = {name: result[name] for name in ("status", "reason", "seconds", "figures")}
        index["lines"][line.name] = kept | {"file": file}
        _write(arguments.json / INDEX, index)
        print(f"{line.name}: {result['status']}, {result['seconds']:.0f} s", file=sys.stderr, flush=True)
    print_table(f"{index['device']['name']}, commit {index['commit']}", _table(index["lines"]))
    return index


def _chosen(arguments: Arguments) -> tuple[Line, ...]:
    python = None if arguments.peer_python is None else str(arguments.peer_python)
    lines = (full_lines if arguments.device == "cuda" else rehearsal_lines)(python)
    for part in arguments.only:
        if not any(part in line.name for line in lines):
            names = [line.name for line in lines]
            hint = f"did you mean {' or '.join(near_matches(part, names) or names)}?"
            raise UsageError(f"--only {part}: there is no such line; {hint}")
    return tuple(line for line in lines if not arguments.only or any(part in line.name for part in arguments.only))


def _check(arguments: Arguments) -> None:
    resolve_device(arguments.device)
    if not 0 < arguments.minutes < float("inf"):
        raise UsageError(f"minutes must be a finite number above 0, got {arguments.minutes}")
    if arguments.json.exists():
        raise UsageError(f"{arguments.json} exists: name a folder that does not, and none of its files is replaced")


def _measure(line: Line, device: str, limit: float) -> dict[str, Any]:
    """The rows of a line and what became of it."""
    result: dict[str, Any] = {"kind": line.kind, "options": {"device": device, **line.options}, "reason": None}
    if limit <= 0:
        return result | {"status": OUT_OF_TIME, "reason": "no time was left", "seconds": 0.0, "rows": [], "figures": {}}
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        rows, code, ended = _rows(line.kind, result["options"], limit, output)
        output.seek(0)
        tail = output.read().splitlines()[-LAST_LINES:]
    missing = next((row["not_available"] for row in rows if "not_available" in row), None)
    errors = [row["error"] for row in rows if "error" in row]
    if ended:
        result |= {"status": OUT_OF_TIME, "reason": f"ended after {limit:.0f} s", "output": tail}
    elif code or errors:
        reason = errors[0] if errors else f"exit code {code}" if code > 0 else f"ended by signal {-code}"
        result |= {"status": FAILED, "reason": reason, "output": tail}
    elif missing is not None:
        result |= {"status": NOT_AVAILABLE, "reason": missing}
    else:
        result |= {"status": DONE}
    seconds = time.perf_counter() - start
    return result | {"seconds": seconds, "rows": rows, "figures": figures_of(line.kind, rows)}


def _rows(kind: str, options: Mapping[str, Any], limit: float, output: Any) -> tuple[list[dict[str, Any]], int, bool]:
    """The rows that the process of a line answers within `limit` seconds, its exit code, and whether it was ended."""
    rows, ended = [], threading.Event()
    with closing(Process([sys.executable, "-P", str(WORKER)], errors=output)) as process:

        def end() -> None:
            ended.set()
            process.kill()

        timer = threading.Timer(limit, end)
        timer.start()
        try:
            process.write_line(json.dumps({"kind": kind, "options": options}))
            while (text := process.wait_for_line()).endswith("\n"):  # what is cut off is no row
                rows.append(json.loads(text))
            code = process.popen.wait()
        finally:
            timer.cancel()
    return rows, code, ended.is_set()


def _device(device: str) -> dict[str, Any]:
    found: dict[str, Any] = {"name": device_name(device)}
    if device == "cuda":
        query = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
        try:
            answer = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
        except (OSError, subprocess.CalledProcessError, IndexError):
            answer = "unknown, unknown"
        found |= dict(zip(("driver", "memory"), answer.split(", "), strict=True))
    return found


def _write(path: Path, values: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(values, indent=2) + "\n")


def _table(lines: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table()
    for column in ("line", "", "seconds", "result"):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for name, line in lines.items():
        words = "; ".join(part for part in (told(line["figures"]), line["reason"]) if part)
        table.add_row(name, line["status"], f"{line['seconds']:.0f}", words)
    return table
