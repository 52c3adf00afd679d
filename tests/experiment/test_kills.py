"""Runs that are killed fifty times, or whose disk fills up, end as if nothing had happened."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from kill_rig import make_config

import metarl
from metarl.errors import StorageFault
from metarl.experiment.checkpoints import load_checkpoint

KINDS = ["maml", "rl2", "pearl", "fewshot"]
TIMES = {"wall_seconds", "steps_per_second", "drawing_ms", "step_ms"}
RIG = [sys.executable, str(Path(__file__).with_name("kill_rig.py"))]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def torment(*arguments: object) -> int:
    """How often the rig has stopped the run."""
    done = subprocess.run([*RIG, *map(str, arguments)], env=ENVIRONMENT, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def timeless(run: Path) -> list[dict]:
    """The rows of metrics without times, each line of which is whole."""
    text = (run / "metrics.jsonl").read_text()
    assert text.endswith("\n")
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["iteration"] for row in rows] == list(range(1, len(rows) + 1)), "no gap, nothing double"
    return [{name: value for name, value in row.items() if name not in TIMES | {"write_failures"}} for row in rows]


def assert_same(left: Path, right: Path) -> None:
    assert timeless(left) == timeless(right)
    a, b = load_checkpoint(left), load_checkpoint(right)
    assert (a.iteration, a.env_steps, a.values, a.buffers) == (b.iteration, b.env_steps, b.values, b.buffers)
    assert a.tensors.keys() == b.tensors.keys()
    assert all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)
    assert not list(right.rglob("*.tmp")), "nothing half is left"
    assert not list(right.rglob("*.damaged")), "no checkpoint was ever broken"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return {kind: metarl.train(make_config(kind, folder / kind), progress=False) for kind in KINDS}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_fifty_kills_change_nothing(tmp_path: Path, undisturbed: dict[str, Path], kind: str):
    assert torment(kind, tmp_path / "run", 50, KINDS.index(kind)) == 50
    assert_same(undisturbed[kind], tmp_path / "run")


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 8 MB at `folder`; skips the test where none may be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run(command, capture_output=True).returncode == 0:
            try:
                yield folder
            finally:
                subprocess.run(["umount", "-l", str(folder)], check=True)
            return
    pytest.skip("a small disk takes the right to mount one")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_five_full_disks_change_nothing(tmp_path: Path, undisturbed: dict[str, Path], kind: str):
    with small_disk(tmp_path / "disk") as disk:
        assert torment(kind, disk / "run", 5, KINDS.index(kind), "full") == 5
        assert_same(undisturbed[kind], disk / "run")


@pytest.mark.slow
def test_a_folder_that_is_read_only_is_named_and_left_alone(tmp_path: Path):
    with small_disk(tmp_path / "disk") as disk:
        run = metarl.train(make_config("maml", disk / "run"), progress=False)
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(StorageFault, match="Read-only file system: make room or make it writable"):
            metarl.resume(run, iterations=400, progress=False)
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
        metarl.load_agent(run)
