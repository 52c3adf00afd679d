"""The training loop: what a run leaves behind, and that stopping it changes nothing."""

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import hill_climber
import pytest
import torch
from run_helpers import assert_same_run, config, timeless
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import metarl
from metarl import registry
from metarl.envs.native.point_navigation import PointNavigation
from metarl.experiment.checkpoints import load_checkpoint
from metarl.experiment.metrics import read_metrics


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    return metarl.train(config(tmp_path_factory.mktemp("runs") / "whole"), progress=False)


def test_a_run_folder_holds_what_it_promises(whole: Path):
    rows = read_metrics(whole)
    assert [row["iteration"] for row in rows] == list(range(1, 13))
    assert [row["env_steps"] for row in rows] == [4 * 8 * 10 * i for i in range(1, 13)]
    seconds = [row["wall_seconds"] for row in rows]
    assert seconds == sorted(seconds)
    assert all(row["steps_per_second"] > 0 for row in rows)
    assert all(row["undefined"] is None for row in rows), "NaN is no JSON"
    assert (whole / "config.yaml").exists()
    assert (whole / "plots" / "training.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in (whole / "checkpoints").iterdir()) == [
        f"iteration-{i:06d}.{kind}" for i in (4, 8, 12) for kind in ("json", "safetensors")
    ]


def test_the_test_learner_learns(tmp_path: Path):
    run = metarl.train(config(tmp_path / "run", iterations=60), progress=False)
    returns = [row["return_mean"] for row in read_metrics(run)]
    assert sum(returns[-10:]) / 10 > returns[0] + 0.5


@pytest.mark.parametrize(
    ("agent", "options"),
    [
        ("random", {"num_tasks": 3, "envs_per_task": 2}),
        ("hill-climber", {}),
        ("maml", {"num_tasks": 3, "envs_per_task": 4, "hidden": (8,)}),
        ("rl2", {"num_tasks": 3, "envs_per_task": 4}),
    ],
)
def test_the_same_seed_twice_gives_the_same_run_and_another_seed_another(tmp_path: Path, agent: str, options: dict):
    base = config(tmp_path / "a", agent=agent, agent_options=options, iterations=3)
    first = metarl.train(base, progress=False)
    second = metarl.train(replace(base, output=tmp_path / "b"), progress=False)
    other = metarl.train(replace(base, output=tmp_path / "c", seed=4), progress=False)
    assert_same_run(first, second)
    assert timeless(first) != timeless(other)


@pytest.mark.parametrize(
    ("agent", "options"),
    [("maml", {"num_tasks": 3, "envs_per_task": 4, "hidden": (8,)}), ("rl2", {"num_tasks": 3, "envs_per_task": 4})],
)
def test_the_built_in_learners_resume_exactly(tmp_path: Path, agent: str, options: dict):
    base = config(tmp_path / "whole", agent=agent, agent_options=options, iterations=4, checkpoint_every=2)
    whole = metarl.train(base, progress=False)
    again = shutil.copytree(whole, tmp_path / "again")
    for path in again.glob("checkpoints/iteration-000004.*"):
        path.unlink()
    metarl.resume(again, progress=False)
    assert_same_run(whole, again)


class Regular(hill_climber.HillClimber):
    """Trains on a list of five tasks and reports which of them it was given."""

    def task_source(self, distribution, *, seed):
        return metarl.TaskList(distribution.sample(5, seed=seed))

    def improve(self, env, *, seed):
        goals = env.tasks.parameters["goal"]
        given = {f"task{id}": float(goal.sum()) for id, goal in zip(env.tasks.ids.tolist(), goals, strict=True)}
        return super().improve(env, seed=seed) | given


def test_an_agent_chooses_its_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(registry._agents, "regular", Regular)
    whole = metarl.train(config(tmp_path / "whole", agent="regular"), progress=False)
    seen: dict[str, set[float]] = {}
    for row in read_metrics(whole):
        given = {name: value for name, value in row.items() if name.startswith("task")}
        assert len(given) == 4, "four of five at a time"
        for name, value in given.items():
            seen.setdefault(name, set()).add(value)
    assert [len(seen[f"task{id}"]) for id in range(5)] == [1] * 5, "an id is always the same task"
    run = shutil.copytree(whole, tmp_path / "run")
    for path in run.glob("checkpoints/iteration-000012.*"):
        path.unlink()
    metarl.resume(run, progress=False)
    assert_same_run(whole, run)


def test_the_first_bound_ends_the_run(tmp_path: Path):
    by_steps = metarl.train(config(tmp_path / "a", iterations=9, steps=700), progress=False)
    assert read_metrics(by_steps)[-1]["env_steps"] == 960, "the first iteration that reaches 700 is the third"
    by_iterations = metarl.train(config(tmp_path / "b", iterations=2, steps=700), progress=False)
    assert len(read_metrics(by_iterations)) == 2


def test_a_killed_run_goes_on_as_if_it_had_never_stopped(tmp_path: Path, whole: Path):
    """A power cut after iteration 11: checkpoints of 4 and 8, metrics beyond them, the last line half written."""
    run = shutil.copytree(whole, tmp_path / "moved" / "cut")
    for path in run.glob("checkpoints/iteration-000012.*"):
        path.unlink()
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:10]) + lines[10][:20])
    assert metarl.load_run(run).checkpoint.iteration == 8
    before = read_metrics(whole)[7]["wall_seconds"]
    assert metarl.resume(run, progress=False) == run
    assert_same_run(whole, run)
    assert read_metrics(run)[8]["wall_seconds"] > before, "the clock goes on"


def test_tensorboard_shows_each_iteration_once(tmp_path: Path, whole: Path):
    run = shutil.copytree(whole, tmp_path / "run")
    for path in run.glob("checkpoints/iteration-000012.*"):
        path.unlink()
    metarl.resume(run, progress=False)
    events = EventAccumulator(str(run)).Reload()
    scalars = events.Scalars("return_mean")
    assert [scalar.step for scalar in scalars] == list(range(1, 13))
    expected = [row["return_mean"] for row in read_metrics(whole)]
    assert [scalar.value for scalar in scalars] == pytest.approx(expected, rel=1e-6)


def test_a_complete_run_is_left_as_it_is(tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture):
    run = shutil.copytree(whole, tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    metarl.resume(run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert "complete" in capsys.readouterr().err


class Fragile(PointNavigation):
    """Breaks at its 75th step."""

    steps = 0

    def transition(self, *arguments):
        Fragile.steps += 1
        if Fragile.steps == 75:
            raise RuntimeError("the gripper fell off")
        return super().transition(*arguments)


def test_an_environment_that_raises_shows_its_own_error_and_loses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(registry._distributions, "Fragile-v0", Fragile)
    monkeypatch.setattr(Fragile, "steps", 0)
    run = tmp_path / "run"
    with pytest.raises(RuntimeError, match="the gripper fell off"):
        metarl.train(config(run, env="Fragile-v0"))
    assert f"metarl resume {run}" in capsys.readouterr().err
    assert metarl.load_run(run).checkpoint.iteration == 7, "of 10 steps each, the eighth broke"
    metarl.resume(run, progress=False)  # it does not break again
    assert timeless(run) == timeless(metarl.train(config(tmp_path / "other", env="Fragile-v0"), progress=False))


def test_training_works_outside_the_main_thread(tmp_path: Path):
    """Signal handlers cannot be set there."""
    done = []
    thread = threading.Thread(target=lambda: done.append(metarl.train(config(tmp_path / "run", iterations=1))))
    thread.start()
    thread.join()
    assert done == [tmp_path / "run"]


def test_load_agent_gives_the_trained_parameters(whole: Path, tmp_path: Path):
    moved = shutil.copytree(whole, tmp_path / "elsewhere")
    agent = metarl.load_agent(moved)
    assert isinstance(agent, hill_climber.HillClimber)
    assert torch.equal(agent.weights.detach(), load_checkpoint(whole).tensors["weights"])
    run = metarl.load_run(moved)
    assert run.distribution.horizon == 10
    assert run.config.agent_options == hill_climber.HillClimberConfig(search=hill_climber.SearchConfig(horizon=10))
    result = metarl.evaluate(run.agent, run.distribution, num_tasks=3)
    assert json.loads(result.to_json())["episodes_used"] == [0]
