"""One trial of a sweep, in a process of its own: trained, or resumed if it has been begun, and evaluated.

python -m metarl.scripts.sweep_trial FILE     # FILE holds the `TrialRequest` as JSON
"""

import dataclasses
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarl.errors import EnvironmentFault, NumericalFault, UsageError
from metarl.experiment import TrainConfig, resume, train
from metarl.experiment.files import write_atomically
from metarl.experiment.options import read_config
from metarl.scripts import evaluate


@dataclass(frozen=True)
class TrialRequest:
    """What a trial's process has to know.

    >>> from metarl.scripts.sweep_trial import TrialRequest
    >>> TrialRequest("sweeps/first", "random-Bandit-v0-seed0", {}, {}).run.name
    'random-Bandit-v0-seed0'
    """

    output: str
    """Folder of the sweep."""
    name: str
    config: Mapping[str, Any]
    evaluate: Mapping[str, int]

    @property
    def run(self) -> Path:
        """The run folder."""
        return Path(self.output) / "runs" / self.name

    @property
    def status_file(self) -> Path:
        return Path(self.output) / "status" / f"{self.name}.json"

    @property
    def status(self) -> dict[str, Any]:
        """`state` (waiting, running, done or failed), `attempts`, the `message` of a trial that has failed, and how one
        that is done was `evaluated`."""
        try:
            found = json.loads(self.status_file.read_bytes())
        except (OSError, ValueError):
            found = {}
        return {"state": "waiting", "attempts": 0, "message": ""} | (found if isinstance(found, dict) else {})

    def is_settled(self, retry_failed: bool) -> bool:
        """Whether nothing is left to do, which includes an evaluation that the sweep file has changed since."""
        status = self.status
        if status["state"] == "done":
            return status.get("evaluated", self.evaluate) == self.evaluate  # earlier versions did not keep it
        return status["state"] == "failed" and not retry_failed

    def set_status(self, **changes: Any) -> None:
        write_atomically(self.status_file, json.dumps(self.status | changes) + "\n")


def run_trial(request: TrialRequest) -> None:
    """Runs the trial from its last checkpoint to the end and writes its status.

    A trial that gives no numbers, or is refused, has failed: it would fail again. Any other exception is raised. If
    another process runs the trial, this one waits, and leaves it at that if the other one has come to an end.
    """
    request.status_file.parent.mkdir(parents=True, exist_ok=True)
    with request.status_file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed, or the process has ended
        if request.status["state"] not in ("done", "failed"):
            _run(request)


def _run(request: TrialRequest) -> None:
    request.set_status(state="running", attempts=request.status["attempts"] + 1, process=os.getpid(), message="")
    try:
        if any((request.run / "checkpoints").glob("*.json")):
            resume(request.run, progress=False)
        else:
            shutil.rmtree(request.run, ignore_errors=True)  # ended before its first checkpoint
            config = read_config(TrainConfig, request.run, request.config)
            train(dataclasses.replace(config, output=request.run), progress=False)
        if request.evaluate:
            flags = [part for name, value in request.evaluate.items() for part in (f"--{name}", str(value))]
            evaluate.main([str(request.run), *flags])
    except (UsageError, EnvironmentFault, NumericalFault) as error:
        request.set_status(state="failed", message=" ".join(str(error).split()))
    else:
        request.set_status(state="done", evaluated=dict(request.evaluate))


if __name__ == "__main__":
    run_trial(TrialRequest(**json.loads(Path(sys.argv[1]).read_bytes())))
