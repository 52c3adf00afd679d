"""What a run may go on with: longer, elsewhere, and nothing else."""

import os
import resource
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import hill_climber
import pytest
import torch
import yaml
from run_helpers import assert_same_run, config

import metarl
import metarl.fewshot
from metarl.errors import NumericalFault, StorageFault
from metarl.experiment.buffers import BufferFiles, restore_buffers
from metarl.experiment.checkpoints import load_checkpoint
from metarl.experiment.lock import locked
from metarl.experiment.metrics import MetricsLog, read_metrics
from metarl.replay import ReplayBuffer
from metarl.scripts.cli import main


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return metarl.train(config(tmp_path_factory.mktemp("runs") / "whole"), progress=False)


def test_an_extended_run_is_what_a_longer_one_would_have_been(tmp_path: Path, whole: Path):
    run = metarl.train(config(tmp_path / "run", iterations=5), progress=False)
    plot = (run / "plots" / "training.png").read_bytes()
    assert main(["resume", str(run), "--iterations", "12"]) == 0
    assert_same_run(whole, run)
    assert (run / "plots" / "training.png").read_bytes() != plot
    assert yaml.safe_load((run / "config.yaml").read_text())["iterations"] == 12
    metarl.resume(run, steps=320 * 13, progress=False)
    assert len(read_metrics(run)) == 13
    entries = yaml.safe_load((run / "config.yaml").read_text())
    assert (entries["iterations"], entries["steps"]) == (None, 320 * 13)


def test_an_extended_few_shot_run_is_what_a_longer_one_would_have_been(tmp_path: Path):
    def train(iterations: int, learner: str = "maml", **options) -> Path:
        learner_options = {"iterations": iterations, "hidden": (4,), "num_tasks": 2}
        few = metarl.fewshot.FewShotConfig(
            learner, "sinusoid", learner_options=learner_options, episodes=3, output=tmp_path / f"{learner}{iterations}"
        )
        return metarl.fewshot.train(few, progress=False, **options)

    short, long = train(6), train(9)
    metarl.resume(short, iterations=9, progress=False)
    expected, found = load_checkpoint(long), load_checkpoint(short)
    assert all(torch.equal(expected.tensors[name], found.tensors[name]) for name in expected.tensors)
    assert [row["iteration"] for row in read_metrics(short)] == list(range(1, 10))
    with pytest.raises(metarl.UsageError, match="no environment steps"):
        metarl.resume(short, steps=100)
    with pytest.raises(metarl.UsageError, match="reptile trains depends on its number of iterations"):
        metarl.resume(train(3, "reptile"), iterations=5)


def test_a_run_does_not_become_shorter(whole: Path):
    with pytest.raises(metarl.UsageError, match="has done 12 iterations already: 11 would be a shorter run"):
        metarl.resume(whole, iterations=11)
    with pytest.raises(metarl.UsageError, match="iterations must be a whole number"):
        metarl.resume(whole, iterations=0)


CHANGES: dict[str, tuple[Callable, str]] = {
    "seed": (lambda entries: entries.update(seed=4), "seed 4 instead of 3"),
    "agent option": (lambda entries: entries["agent_options"].update(lr=0.1), "agent_options lr 0.1 instead of 0.05"),
    "env option": (lambda entries: entries["env_options"].update(horizon=9), "horizon 9 instead of 10"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES.keys())
def test_what_was_edited_in_the_configuration_is_refused(tmp_path: Path, whole: Path, change: Callable, message: str):
    run = shutil.copytree(whole, tmp_path / "run")
    entries = yaml.safe_load((run / "config.yaml").read_text())
    change(entries)
    (run / "config.yaml").write_text(yaml.safe_dump(entries))
    with pytest.raises(metarl.UsageError, match=message):
        metarl.resume(run, iterations=14)
    with pytest.warns(UserWarning, match=message):
        metarl.load_run(run)


def test_a_run_that_was_killed_before_its_first_checkpoint_begins(tmp_path: Path, whole: Path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(whole / "config.yaml", run)
    metarl.resume(run, progress=False)
    assert_same_run(whole, run)


def test_a_run_with_a_buffer_that_was_killed_before_its_first_checkpoint_begins(tmp_path: Path):
    """Rows of a buffer may lie on the disk already; no checkpoint counts them."""
    options = {"num_tasks": 2, "envs_per_task": 1, "hidden": (4,), "train_tasks": 4, "updates": 1, "batch_size": 4}
    made = config(tmp_path / "whole", agent="pearl", agent_options=options, iterations=2)
    whole, run = metarl.train(made, progress=False), tmp_path / "run"
    run.mkdir()
    shutil.copy(whole / "config.yaml", run)
    shutil.copytree(whole / "buffers", run / "buffers")
    metarl.resume(run, progress=False)
    assert_same_run(whole, run)
    assert load_checkpoint(whole).buffers == load_checkpoint(run).buffers


def test_the_hours_of_a_run_are_bounded(tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture):
    run = tmp_path / "run"
    options = ["--env", "PointNavigation-v0", "--env-options", "horizon=10", "--iterations", "12", "--seed", "3"]
    options += ["--checkpoint-every", "4", "--output", str(run)]
    assert main(["train", "hill-climber", *options, "--max-hours", "1e-9"]) == 75
    assert f"go on with: metarl resume {run}" in capsys.readouterr().err
    assert not (run / "plots").exists()
    assert main(["resume", str(run), "--max-hours", "10"]) == 0
    assert_same_run(whole, run)
    with pytest.raises(metarl.UsageError, match="max_hours must be a positive number"):
        metarl.resume(run, max_hours=0.0)


def test_one_process_trains_a_run(whole: Path):
    with locked(whole), pytest.raises(metarl.UsageError, match="is being trained by another process"):
        metarl.resume(whole)
    metarl.resume(whole)


class Diverging(hill_climber.HillClimber):
    """Its policy jumps in iterations 6 to 9."""

    alarms = {"kl": 5.0}
    jumps = (6, 7, 8, 9)

    def improve(self, env, *, seed):
        self.calls = getattr(self, "calls", int(self.optimizer.state.get(self.weights, {}).get("step", 0))) + 1
        kl = float("nan") if self.calls == 7 else 9.0
        return super().improve(env, seed=seed) | {"kl": kl if self.calls in self.jumps else 0.01}


def test_a_run_that_diverges_ends_with_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = tmp_path / "run"
    with pytest.raises(NumericalFault, match=r"4 iterations in a row diverged, .* tolerates 3: kl is"):
        metarl.train(config(run, agent=Diverging), progress=False)
    assert load_checkpoint(run).iteration == 5
    assert [row.get("divergent") for row in read_metrics(run)] == [None] * 5 + [1] * 3
    metarl.resume(run, agent=Diverging, max_divergent=4, progress=False)
    assert [row.get("divergent") for row in read_metrics(run)] == [None] * 5 + [1] * 4 + [None] * 3


@pytest.fixture
def small_files():
    """Lets the process write files of so many bytes at most, as on a full disk: `OSError` comes beyond."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    for thread in threading.enumerate():  # one that dies of the limit must not do so in the next test
        if type(thread).__module__.startswith("tensorboard"):
            thread.join(60)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's own
def test_rows_that_the_disk_refuses_wait_and_leave_no_half_line(tmp_path: Path, small_files: Callable):
    with MetricsLog(tmp_path, 0) as log:
        log.write({"iteration": 1, "loss": 1.0})
        small_files(40)
        log.write({"iteration": 2, "loss": 2.0})
        for _ in range(2):
            with pytest.raises(OSError, match="File too large"):
                log.flush()
        assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 1
        small_files(resource.RLIM_INFINITY)
        log.sync()
    assert [row["iteration"] for row in read_metrics(tmp_path)] == [1, 2]


def test_rows_of_a_buffer_that_the_disk_refuses_wait(tmp_path: Path, small_files: Callable):
    buffer = ReplayBuffer(100)
    files = BufferFiles(tmp_path, {"seen": buffer}, {})
    buffer.append({"number": torch.arange(10), "more": torch.zeros(10, 3)})
    files.append()
    buffer.append({"number": torch.arange(10, 20), "more": torch.zeros(10, 3)})
    small_files(130)
    with pytest.raises(OSError, match="File too large"):
        files.append()
    small_files(resource.RLIM_INFINITY)
    record = files.record()
    assert record["seen"]["count"] == 10
    files.append()
    for kept, count in ((record, 10), (files.record(), 20)):
        again = ReplayBuffer(100)
        restore_buffers(tmp_path, {"seen": again}, kept)
        assert again.rows(0, count)["number"].tolist() == list(range(count))


class Filling(hill_climber.HillClimber):
    """The disk is full from iteration 6 on."""

    full: Callable | None = None

    def improve(self, env, *, seed):
        if Filling.full is not None and int(self.optimizer.state.get(self.weights, {}).get("step", 0)) == 5:
            Filling.full(16)
        return super().improve(env, seed=seed)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of TensorBoard's thread
def test_a_full_disk_ends_the_run_after_some_checkpoints_in_vain(
    tmp_path: Path, small_files: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(Filling, "full", staticmethod(small_files))
    run = tmp_path / "run"
    with pytest.raises(StorageFault, match="File too large: make room or make it writable, then resume"):
        metarl.train(config(run, agent=Filling, iterations=30), progress=False)
    small_files(resource.RLIM_INFINITY)
    assert load_checkpoint(run).iteration == 4
    monkeypatch.setattr(Filling, "full", None)
    metarl.resume(run, agent=Filling, progress=False)
    whole = metarl.train(config(tmp_path / "whole", agent=Filling, iterations=30), progress=False)
    assert_same_run(whole, run)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_what_leads_out_of_a_run_folder_is_refused(tmp_path: Path, whole: Path):
    run = shutil.copytree(whole, tmp_path / "run")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to(victim)
    with pytest.raises(metarl.UsageError, match=r"metrics\.jsonl is a link that leads out"):
        metarl.resume(run, iterations=20)
    assert victim.read_text() == "precious"
    (run / "metrics.jsonl").unlink()
    os.mkfifo(run / "metrics.jsonl")
    with pytest.raises(metarl.UsageError, match="neither a file nor a folder"):
        metarl.load_agent(run)


NO_FAMILIES = {
    "os:system": {"command": "touch owned"},
    "antigravity:Env": {},  # a module that opens a browser as it is imported
    "builtins:exec": {"source": "open('owned', 'w')"},
    "subprocess:run": {"args": ["touch", "owned"]},
    "metarl.scripts.demo:main": {},
}


@pytest.mark.parametrize(("env", "options"), NO_FAMILIES.items(), ids=NO_FAMILIES.keys())
def test_no_configuration_runs_code(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, env: str, options: dict
):
    monkeypatch.chdir(tmp_path)
    run = shutil.copytree(whole, tmp_path / "run")
    entries = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(entries | {"env": env, "env_options": options}))
    with pytest.raises(metarl.UsageError, match="which is no TaskDistribution as far as one can see: if you trust it"):
        metarl.load_agent(run)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize("env", ["nowhere:family", "nowhere.inside:family", "no\x1bwhere:family"])
def test_a_module_that_is_not_there_is_named(tmp_path: Path, whole: Path, env: str):
    """The usual cause is a command in another folder than the one that the training was started in."""
    run = shutil.copytree(whole, tmp_path / "run")
    entries = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(entries | {"env": env}))
    with pytest.raises(metarl.UsageError, match=r"but there is no module 'no.?where.*' here or among the") as caught:
        metarl.load_agent(run)
    assert "go to the folder that has it" in str(caught.value)
    assert str(caught.value).isprintable()
