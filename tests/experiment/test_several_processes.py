"""Training in several processes: the same updates as in one, one writer, and an end with a name."""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from experiment.launching import start_ranks, torchrun
from experiment.rank_worker import RUNS

import metarl

WORKER = Path(__file__).parent / "rank_worker.py"
TRAIN = ("train", "rl2", "--env", "PointNavigation-v0", "--env-options", "horizon=10")
SMALL = ("--num-tasks", "4", "--hidden", "8", "--checkpoint-every", "1")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Run folders 1-NAME, 2-NAME and 3-NAME: each run on one, two and three ranks."""
    folder = tmp_path_factory.mktemp("runs")
    for world_size in (1, 2, 3):
        ranks = start_ranks(world_size, [sys.executable, str(WORKER), str(folder), str(world_size)], folder)
        codes = [rank.wait(400) for rank in ranks]
        said = [path.read_text() for path in sorted(folder.glob(f"said-by-*-of-{world_size}"))]
        assert codes == [0] * world_size, said
    return folder


def last_state(run: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run / "checkpoints" / "iteration-000005.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("name", RUNS)
def test_ranks_make_the_updates_of_one_process(runs, name, world_size):
    alone, together = last_state(runs / f"1-{name}"), last_state(runs / f"{world_size}-{name}")
    assert alone.keys() == together.keys()
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)  # a message names the tensor that differs


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("name", RUNS)
def test_metrics_are_those_of_all_tasks(runs, name, world_size):
    alone, together = (
        [json.loads(line) for line in (runs / f"{size}-{name}" / "metrics.jsonl").read_text().splitlines()]
        for size in (1, world_size)
    )
    assert len(together) == 5
    for one, other in zip(alone, together, strict=True):
        assert one.keys() == other.keys()
        for metric in one.keys() - {"wall_seconds", "steps_per_second"}:
            assert other[metric] == pytest.approx(one[metric], rel=1e-3, abs=1e-4), metric


@pytest.mark.slow
def test_a_run_of_one_process_goes_on_in_two_and_back(tmp_path):
    def train(iterations, output):
        config = [*TRAIN, *SMALL, "--iterations", str(iterations), "--output", output]
        return [sys.executable, "-m", "metarl.scripts.cli", *config]

    (alone,) = start_ranks(1, train(5, "whole"), tmp_path)
    assert alone.wait(200) == 0
    (begun,) = start_ranks(1, train(5, "halted"), tmp_path)
    assert begun.wait(200) == 0
    for path in (tmp_path / "halted" / "checkpoints").glob("iteration-00000[45].*"):
        path.unlink()
    (tmp_path / "halted" / "plots" / "training.png").unlink()
    both = start_ranks(2, [sys.executable, "-m", "metarl.scripts.cli", "resume", "halted"], tmp_path)
    assert [rank.wait(200) for rank in both] == [0, 0], (tmp_path / "said-by-0-of-2").read_text()
    for name, values in last_state(tmp_path / "whole").items():
        torch.testing.assert_close(last_state(tmp_path / "halted")[name], values, atol=1e-5, rtol=1e-5)


def wait_for_iterations(run: Path, count: int) -> None:
    """Until `count` rows of metrics are there; the deadline is for a run that does not go on at all."""
    deadline = time.monotonic() + 200
    while not (run / "metrics.jsonl").exists() or len((run / "metrics.jsonl").read_text().splitlines()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def rank_processes(launcher: int) -> list[int]:
    """The processes that torchrun has started, in the order of ranks."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    ranks = {}
    for child in map(int, children):
        variables = dict(v.split("=", 1) for v in Path(f"/proc/{child}/environ").read_text().split("\0") if "=" in v)
        if "RANK" in variables:
            ranks[int(variables["RANK"])] = child
    return [ranks[rank] for rank in sorted(ranks)]


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_run_and_is_named(tmp_path):
    launcher = torchrun(2, *TRAIN, *SMALL, "--iterations", "100000", "--output", "run", folder=tmp_path)
    wait_for_iterations(tmp_path / "run", 2)
    os.kill(rank_processes(launcher.pid)[1], signal.SIGKILL)
    said, _ = launcher.communicate(timeout=60)
    assert launcher.returncode != 0
    assert re.search(r"rank\s*: 1 ", said), said
    assert "go on with: metarl resume run" in said, said
    assert metarl.load_run(tmp_path / "run").checkpoint.iteration >= 2


@pytest.mark.slow
def test_torchrun_starts_the_ranks_anew_and_they_resume(tmp_path):
    arguments = (*TRAIN, *SMALL, "--iterations", "40")
    launcher = torchrun(2, *arguments, "--output", "run", folder=tmp_path, options=("--max-restarts", "1"))
    wait_for_iterations(tmp_path / "run", 2)
    os.kill(rank_processes(launcher.pid)[1], signal.SIGKILL)
    said, _ = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, said
    command = [sys.executable, "-m", "metarl.scripts.cli", *arguments, "--output", "undisturbed"]
    assert [rank.wait(200) for rank in start_ranks(2, command, tmp_path)] == [0, 0]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == list(range(1, 41))
    undisturbed = metarl.load_run(tmp_path / "undisturbed").checkpoint.tensors
    for name, values in metarl.load_run(tmp_path / "run").checkpoint.tensors.items():
        assert torch.equal(values, undisturbed[name]), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((*TRAIN, "--num-tasks", "5"), "num_tasks 5 cannot be shared out evenly among 2 ranks: choose 4 or 6"),
        (("train", "random", "--env", "PointNavigation-v0"), "agent 'random' trains in one process"),
        (("train", "pearl", "--env", "PointNavigation-v0", "--num-tasks", "4", "--meta-batch", "3"), "meta_batch 3"),
        (("evaluate", "run"), "evaluate runs in one process: call metarl evaluate without torchrun"),
        (("fewshot", "maml", "--data", "sinusoid"), "fewshot runs in one process"),
    ],
    ids=["tasks that do not divide", "an agent of one process", "a batch that does not divide", "evaluate", "fewshot"],
)
def test_what_ranks_cannot_do_is_refused_in_a_line(arguments, complaint, tmp_path):
    ranks = start_ranks(2, [sys.executable, "-m", "metarl.scripts.cli", *arguments], tmp_path)
    assert [rank.wait(100) for rank in ranks] == [2, 2]
    for rank, who in enumerate(("", "rank 1: ")):
        said = (tmp_path / f"said-by-{rank}-of-2").read_text()
        assert said.startswith(f"metarl: error: {who}"), said
        assert complaint in said
        assert len(said.splitlines()) == 1
    assert not (tmp_path / "runs").exists()
