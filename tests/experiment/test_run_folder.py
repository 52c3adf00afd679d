"""Run folders: where they are made, that nothing is overwritten, and that damage is noticed in one clear line."""

import importlib.metadata
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import hill_climber
import pytest
import torch
import yaml
from run_helpers import assert_same_run, config

import metarl
from metarl.experiment.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from metarl.experiment.files import write_atomically
from metarl.experiment.metrics import read_metrics


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return metarl.train(config(tmp_path_factory.mktemp("runs") / "run", iterations=6), progress=False)


@pytest.fixture
def run(tmp_path: Path, finished: Path) -> Path:
    """A run to break: checkpoints of iterations 0, 4 and 6."""
    return shutil.copytree(finished, tmp_path / "run")


def edit_config(run: Path, change: Callable[[dict], object]) -> None:
    entries = yaml.safe_load((run / "config.yaml").read_text())
    change(entries)
    (run / "config.yaml").write_text(yaml.safe_dump(entries))


def truncate(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:-count])


def flip_bit(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


LAST = "checkpoints/iteration-000006"
DAMAGE = {
    "no folder": (lambda run: shutil.rmtree(run), "there is no run folder"),
    "no config": (lambda run: (run / "config.yaml").unlink(), "no config.yaml"),
    "broken yaml": (lambda run: (run / "config.yaml").write_text("env: [1"), "config.yaml is damaged"),
    "yaml without options": (lambda run: (run / "config.yaml").write_text("3"), "holds no options"),
    "binary config": (lambda run: (run / "config.yaml").write_bytes(b"\xff\xfe\x00\x81"), "config.yaml is damaged"),
    "a missing option": (lambda run: edit_config(run, lambda entries: entries.pop("seed")), "seed is missing"),
    "an option of a wrong type": (
        lambda run: edit_config(run, lambda entries: entries.update(seed="x")),
        "option 'seed'",
    ),
    "an unknown agent": (lambda run: edit_config(run, lambda e: e.update(agent="mmal")), "did you mean maml"),
    "another version": (lambda run: edit_config(run, lambda entries: entries.update(format=99)), "of format 99"),
    "the version before": (
        lambda run: edit_config(run, lambda entries: entries.update(format=1)),
        rf"is a run of format 1: metarl 0\.1 reads it, this is {importlib.metadata.version('metarl-kit')}",
    ),
    "a format that is no number": (lambda run: edit_config(run, lambda e: e.update(format=[1])), r"of format \[1\]"),
    "an unknown kind": (lambda run: edit_config(run, lambda e: e.update(kind="dance")), "kind is 'dance'"),
    "no checkpoint": (lambda run: shutil.rmtree(run / "checkpoints"), "no checkpoint"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE.keys())
@pytest.mark.parametrize("use", [metarl.load_agent, metarl.resume], ids=["load_agent", "resume"])
def test_damage_is_named(run: Path, damage: Callable, message: str, use: Callable):
    damage(run)
    before = sorted(run.rglob("*"))
    with pytest.raises(metarl.UsageError, match=message):
        use(run)
    assert sorted(run.rglob("*")) == before


DAMAGED_LAST = {
    "truncated tensors": lambda run: truncate(run / f"{LAST}.safetensors", 7),
    "a flipped bit in tensors": lambda run: flip_bit(run / f"{LAST}.safetensors", -5),
    "a flipped bit in values": lambda run: flip_bit(run / f"{LAST}.json", 40),
    "truncated values": lambda run: (run / f"{LAST}.json").write_text('{"format": 2,'),
    "missing tensors": lambda run: (run / f"{LAST}.safetensors").unlink(),
    "tensors of another": lambda run: shutil.copy(
        run / "checkpoints/iteration-000004.safetensors", run / f"{LAST}.safetensors"
    ),
}


@pytest.mark.parametrize("damage", DAMAGED_LAST.values(), ids=DAMAGED_LAST.keys())
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    run: Path, finished: Path, damage: Callable, capsys: pytest.CaptureFixture
):
    damage(run)
    assert metarl.load_run(run).checkpoint.iteration == 4
    word = capsys.readouterr().err
    assert "iteration-000006" in word
    assert "taking that of iteration 4 instead" in word
    metarl.resume(run, progress=False)
    assert_same_run(finished, run)
    kept = sorted(path.name for path in (run / "checkpoints").glob("*.damaged"))
    assert "iteration-000006.json.damaged" in kept, "nothing is thrown away"


def test_without_any_good_checkpoint_nothing_goes_on(run: Path):
    for path in run.glob("checkpoints/*.json"):
        flip_bit(path, 40)
    with pytest.raises(metarl.UsageError, match=r"damaged .* and no earlier one is left"):
        metarl.resume(run)


def test_the_best_checkpoint_is_kept_and_can_be_opened(tmp_path: Path):
    for iteration, score in enumerate([1.0, 5.0, 2.0, None, 3.0, 4.0, 2.0], start=1):
        save_checkpoint(tmp_path, Checkpoint(iteration, tensors={"n": torch.tensor(iteration)}, score=score))
    assert sorted(int(path.stem[-6:]) for path in tmp_path.glob("checkpoints/*.json")) == [2, 5, 6, 7]
    assert [load_checkpoint(tmp_path, which).iteration for which in ("last", "best", 5)] == [7, 2, 5]
    with pytest.raises(metarl.UsageError, match="no checkpoint 3: choose last, best or an iteration of 2, 5, 6, 7"):
        load_checkpoint(tmp_path, 3)


def test_the_score_of_a_checkpoint_is_the_mean_since_the_one_before(finished: Path):
    returns = [row["return_mean"] for row in read_metrics(finished)]
    assert load_checkpoint(finished, 4).score == pytest.approx(sum(returns[:4]) / 4)
    assert load_checkpoint(finished).score is None, "of an iteration between two regular ones"


def test_a_checkpoint_says_what_it_is_of(finished: Path):
    checkpoint = load_checkpoint(finished)
    entries = yaml.safe_load((finished / "config.yaml").read_text())
    assert checkpoint.versions == entries.pop("versions")
    assert checkpoint.config == entries


@pytest.mark.parametrize("content", ["", '{"iteration": 1}\n', "{\n" * 4, '{"iteration": 7}\n' * 4])
def test_damaged_metrics_are_named_before_anything_is_written(run: Path, content: str):
    for path in run.glob(f"{LAST}.*"):
        path.unlink()
    (run / "metrics.jsonl").write_text(content)
    with pytest.raises(metarl.UsageError, match=r"metrics\.jsonl is damaged"):
        metarl.resume(run, progress=False)
    assert (run / "metrics.jsonl").read_text() == content


def test_the_config_is_resolved(finished: Path):
    entries = yaml.safe_load((finished / "config.yaml").read_text())
    assert entries["format"] == 2
    assert entries["versions"]["torch"] == torch.__version__
    assert (entries["backend"], entries["device"], entries["env_options"]) == ("torch", "cpu", {"horizon": 10})
    assert entries["agent_options"] == {
        "num_tasks": 4,
        "envs_per_task": 8,
        "lr": 0.05,
        "noise": 0.1,
        "layers": [],
        "search": {"decay": 1.0, "horizon": 10},
    }
    assert "output" not in entries, "a run may be moved"


def test_options_come_back_as_they_were(tmp_path: Path):
    options = hill_climber.HillClimberConfig(lr=1e-5, layers=(3, 4))
    run = metarl.train(config(tmp_path / "run", iterations=1, agent_options=options), progress=False)
    assert metarl.load_run(run).config.agent_options == options


def test_default_folders_count_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    once = replace(config(tmp_path), output=None, iterations=1)
    names = [metarl.train(once, progress=False) for _ in range(3)]
    base = "runs/hill-climber-PointNavigation-v0-seed3"
    assert names == [Path(base), Path(f"{base}-2"), Path(f"{base}-3")]


def test_an_output_folder_in_use_is_refused(tmp_path: Path, run: Path):
    before = (run / "config.yaml").read_bytes()
    with pytest.raises(metarl.UsageError, match="already holds a run"):
        metarl.train(config(run))
    assert (run / "config.yaml").read_bytes() == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(metarl.UsageError, match="not empty"):
        metarl.train(config(tmp_path / "other"))
    with pytest.raises(metarl.UsageError, match="not empty"):
        metarl.train(config(tmp_path / "other" / "thesis.txt"))
    (tmp_path / "empty").mkdir()
    assert metarl.train(config(tmp_path / "empty", iterations=1), progress=False) == tmp_path / "empty"


WRONG = {
    "environment": ({"env": "PointNavgation-v0"}, "did you mean PointNavigation-v0"),
    "environment option": ({"env_options": {"horizn": 3}}, "horizn"),
    "agent": ({"agent": "mlam"}, "did you mean maml"),
    "agent option": ({"agent_options": {"lrr": 0.1}}, "did you mean lr"),
    "type of an agent option": ({"agent_options": {"lr": "fast"}}, "want float, got 'fast'"),
    "config of another agent": ({"agent_options": metarl.AgentConfig()}, "takes a HillClimberConfig"),
    "iterations": ({"iterations": 0}, "iterations must be"),
    "steps": ({"steps": -5}, "steps must be"),
    "seed": ({"seed": -1}, "seed must be"),
    "tasks": ({"agent_options": {"num_tasks": 0}}, "num_tasks must be"),
    "checkpoints": ({"checkpoint_every": 0}, "checkpoint_every must be"),
    "backend": ({"backend": "warp"}, "no backend 'warp'"),
    "device": ({"device": "cuda:99"}, "is not there"),
    "device type": ({"device": "toaster"}, "unknown device"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_config_leaves_nothing_behind(tmp_path: Path, options: dict, message: str):
    with pytest.raises(metarl.UsageError, match=message) as caught:
        metarl.train(config(tmp_path / "run", **options))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_keep_every_bit_and_only_the_last_few(tmp_path: Path):
    tensors = {
        "weights": torch.randn(3, 2, generator=torch.Generator().manual_seed(0)),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "special": torch.tensor([float("nan"), float("inf"), -0.0]),
        "count": torch.tensor(2**62),
        "empty": torch.zeros(0, 4),
    }
    values = {"step": 3.5, "name": "µ", "list": [1, None]}
    for iteration in range(1, 6):
        save_checkpoint(tmp_path, Checkpoint(iteration, 10 * iteration, 0.5, tensors, values))
    assert sorted(p.stem[-1] for p in tmp_path.glob("checkpoints/*.json")) == ["3", "4", "5"]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 6, "no temporary files"
    loaded = load_checkpoint(tmp_path)
    assert (loaded.iteration, loaded.env_steps, loaded.wall_seconds, loaded.values) == (5, 50, 0.5, values)
    for name, expected in tensors.items():
        found = loaded.tensors[name]
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.numpy().tobytes() == expected.contiguous().numpy().tobytes()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_metrics_are_strict_json(finished: Path):
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    for line in (finished / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)
