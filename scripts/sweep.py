"""`metarl sweep`."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from metarl.errors import UsageError
from metarl.experiment.files import write_atomically
from metarl.experiment.metrics import read_any_metrics
from metarl.experiment.options import plain
from metarl.experiment.report_tables import Table
from metarl.experiment.sweep import Sweep
from metarl.scripts import report
from metarl.scripts.arguments import parse
from metarl.scripts.evaluate import print_table
from metarl.scripts.sweep_trial import TrialRequest

RECORD = "trials.json"


@dataclass
class Arguments:
    """Trains every combination of the agents, families, seeds and options in a YAML file, and reports on all of them.

    Trials that die are resumed from their last checkpoint; a sweep started again goes on where it stopped. Its file may
    have more trials by then, or another evaluation, and nothing else. Prints a table and the report. The exit code is 1
    if a trial has failed.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The sweep file."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of the sweep: runs, status, report; sweeps/NAME-OF-FILE if not given."""
    runner: Literal["auto", "ray", "sequence"] = "auto"
    """Run trials side by side on Ray Tune, or one after another; auto takes Ray if it is installed."""
    address: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT")] = None
    """A running Ray cluster; this machine if not given."""
    cpus_per_trial: float = 1.0
    """Processors that Ray reserves for a trial."""
    gpus_per_trial: float = 0.0
    """GPUs that Ray reserves for a trial."""
    retry_failed: bool = False
    """Also start trials again that have failed."""


def main(arguments: Sequence[str]) -> int:
    parsed = parse(Arguments, arguments, "metarl sweep")
    on_ray = _on_ray(parsed)
    sweep = Sweep.read(parsed.file, elsewhere=parsed.address is not None)
    output = parsed.output or Path("sweeps") / parsed.file.stem
    sweep.check_continues(output / RECORD)
    try:
        write_atomically(output / RECORD, json.dumps(sweep.record(), indent=2) + "\n")
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror}") from None
    folder = str(output.absolute())
    requests = [TrialRequest(folder, t.name, plain(t.config), dict(sweep.evaluate)) for t in sweep.trials]
    left = [request for request in requests if not request.is_settled(parsed.retry_failed)]
    print(f"{len(requests)} trials, {len(left)} to run", file=sys.stderr)
    for request in left:
        request.set_status(state="waiting", attempts=0)
    if left and on_ray:
        from metarl.scripts.sweep_ray import run_on_ray  # Ray is an extra, and slow to import

        run_on_ray(
            left,
            retries=sweep.retries,
            address=parsed.address,
            cpus=parsed.cpus_per_trial,
            gpus=parsed.gpus_per_trial,
            output=output,
        )
    else:
        for number, request in enumerate(left, 1):
            print(f"trial {number}/{len(left)}  {request.name}", file=sys.stderr, flush=True)
            _run_alone(request, sweep.retries)
    return _conclude(output, requests)


def _on_ray(parsed: Arguments) -> bool:
    installed = importlib.util.find_spec("ray") is not None
    if not installed and (parsed.runner == "ray" or parsed.address is not None):
        raise UsageError("Ray is not installed: pip install 'metarl-kit[ray]', or leave --runner and --address out")
    if parsed.runner == "sequence" and parsed.address is not None:
        raise UsageError("--address names a Ray cluster, --runner sequence uses none: leave one of them out")
    return installed and parsed.runner != "sequence"


def _run_alone(request: TrialRequest, retries: int) -> None:
    """Runs a trial in a process of its own, which appends what it says to a log."""
    log, file = (Path(request.output) / "logs" / f"{request.name}.{end}" for end in ("log", "json"))
    write_atomically(file, json.dumps(dataclasses.asdict(request)))
    command = [sys.executable, "-m", "metarl.scripts.sweep_trial", str(file)]
    for _ in range(1 + retries):
        with log.open("a") as said:
            if subprocess.run(command, stdout=said, stderr=said).returncode == 0:
                return


def _conclude(output: Path, requests: Sequence[TrialRequest]) -> int:
    """Writes summary.json and the report; returns the exit code."""
    rows = [_row(request) for request in requests]
    write_atomically(output / "summary.json", json.dumps(rows, indent=2) + "\n")
    reported = [str(request.run) for request, row in zip(requests, rows, strict=True) if row["iteration"]]
    if reported:
        report.main([*reported, "--output", str(output / "report")])
    cells = [[_cell(value) for value in row.values()] for row in rows]
    table = Table(list(rows[0]), cells)
    print_table(f"trials in {output}", report.shown(table))
    page = output / "report" / "report.md"
    before = page.read_text() if reported else "# Report\n"
    write_atomically(page, f"{before}\n## trials\n\n{table.markdown()}")
    unfinished = [row for row in rows if row["state"] != "done"]
    for row in unfinished:
        print(f"trial {row['trial']} {row['state']}: {row['message']}", file=sys.stderr)
    return 1 if unfinished else 0


def _cell(value: Any) -> str:
    """As text that breaks no table."""
    text = "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "/")


def _row(request: TrialRequest) -> Mapping[str, Any]:
    """What the summary says of a trial."""
    status = request.status
    try:
        rows = read_any_metrics(request.run)
    except UsageError:
        rows = []
    last = rows[-1] if rows else {}
    died = status["state"] in ("running", "waiting")
    return {
        "trial": request.name,
        "state": "died" if died else status["state"],
        "attempts": status["attempts"],
        "iteration": last.get("iteration", 0),
        "return_mean": last.get("return_mean"),
        "message": f"its process ended {status['attempts']} times" if died else status["message"],
    }
