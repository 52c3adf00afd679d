"""Real processes, really stopped: Ctrl-C, SIGTERM and SIGKILL in the middle of training."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_helpers import assert_same_run, config, timeless

import metarl
from metarl.experiment.metrics import read_metrics

PROGRAM = """
import sys, metarl.scripts.cli
metarl.register_agent("hill-climber", "hill_climber:HillClimber")
metarl.register_agent("hoarder", "hill_climber:Hoarder")
sys.exit(metarl.scripts.cli.main())
"""
HALT = 11
HALTING = f"""
import time, hill_climber
improve, seeds = hill_climber.HillClimber.improve, []
def halting(self, env, *, seed):
    seeds.append(seed)
    if len(seeds) == {HALT}:
        time.sleep(3600)
    return improve(self, env, seed=seed)
hill_climber.HillClimber.improve = halting
"""
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
OPTIONS = [
    *("--env", "PointNavigation-v0", "--env-options", "horizon=10"),
    *("--iterations", "30", "--seed", "3", "--checkpoint-every", "4"),
]
ARGUMENTS = ["train", "hill-climber", *OPTIONS]


def start(*arguments: str, halting: bool = False, **streams) -> subprocess.Popen:
    """Runs the command; `halting` makes iteration `HALT` last until the process is stopped."""
    program = (HALTING if halting else "") + PROGRAM
    return subprocess.Popen([sys.executable, "-c", program, *arguments], env=ENVIRONMENT, text=True, **streams)


def wait_for_rows(process: subprocess.Popen, run: Path, count: int) -> None:
    while not (run / "metrics.jsonl").exists() or (run / "metrics.jsonl").read_text().count("\n") < count:
        assert process.poll() is None, "training has ended"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_stopped_run_resumes_exactly(tmp_path: Path, number: signal.Signals):
    run = tmp_path / "run"
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = start(*ARGUMENTS, "--output", str(run), halting=True, **output)
    wait_for_rows(process, run, 8)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=900)
    reached = metarl.load_run(run).checkpoint.iteration
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
        assert reached in (4, 8), "what the last checkpoint has"
    else:
        assert process.returncode == 130
        assert 8 <= reached < HALT, "every complete iteration is saved"
        assert f"metarl resume {run}" in stderr
        assert "Traceback" not in stderr
    assert stdout == ""
    assert "\x1b" not in stderr, "no escape codes where there is no terminal"
    metarl.resume(run, progress=False)
    assert len(read_metrics(run)) == 30
    whole = metarl.train(config(tmp_path / "whole", iterations=30), progress=False)
    assert_same_run(whole, run)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_a_stopped_run_with_a_buffer_resumes_exactly(tmp_path: Path, number: signal.Signals):
    """The ring of 20 rows has wrapped around by iteration 3; rows of iterations beyond the checkpoint are ignored."""
    run = tmp_path / "run"
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = start("train", "hoarder", *OPTIONS, "--output", str(run), halting=True, **output)
    wait_for_rows(process, run, 8)
    process.send_signal(number)
    process.communicate(timeout=900)
    assert 4 <= metarl.load_run(run).checkpoint.iteration < HALT
    metarl.resume(run, progress=False)
    whole = metarl.train(config(tmp_path / "whole", agent="hoarder", iterations=30), progress=False)
    assert_same_run(whole, run)
    assert timeless(run)[-1]["rows"] == 240


LONG = """
import threading, torch, hill_climber, metarl.experiment.interrupts
metarl.experiment.interrupts.GRACE = 0.5
improve, seeds = hill_climber.HillClimber.improve, []
def solving(self, env, *, seed):
    seeds.append(seed)
    if len(seeds) == 11:
        matrix = torch.randn(3000, 3000, dtype=torch.float64)
        threading.Timer(2.0, lambda: print("solving", flush=True)).start()  # by then it is
        torch.linalg.eigvals(matrix)  # minutes in one call
    return improve(self, env, seed=seed)
hill_climber.HillClimber.improve = solving
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_is_heard_in_the_middle_of_a_long_solve(tmp_path: Path, number: signal.Signals):
    run = tmp_path / "run"
    command = [sys.executable, "-c", LONG + PROGRAM, *ARGUMENTS, "--output", str(run)]
    process = subprocess.Popen(command, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "solving\n"
    process.send_signal(number)
    _, stderr = process.communicate(timeout=900)
    assert process.returncode == 130
    assert "after iteration 10, which is saved, in the middle of a long operation" in stderr
    assert f"metarl resume {run}" in stderr
    assert metarl.load_run(run).checkpoint.iteration == 10
    metarl.resume(run, progress=False)
    whole = metarl.train(config(tmp_path / "whole", iterations=30), progress=False)
    assert_same_run(whole, run)


def test_a_terminal_gets_a_live_display(tmp_path: Path):
    ours, theirs = pty.openpty()
    process = start(*ARGUMENTS, "--output", str(tmp_path / "run"), stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    stdout, _ = process.communicate(timeout=900)
    os.close(ours)
    assert process.returncode == 0
    assert stdout == f"{tmp_path / 'run'}\n"
    assert b"\x1b[" in shown
    for word in (b"iteration 30/30", b"return", b"steps/s", b"left"):
        assert word in shown


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # what Linux says when the other side is closed
        return b""
