"""Runs through the command line: trained, tested, drawn, loaded, stopped and gone on with."""

import dataclasses
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import metarl
import metarl.fewshot
from metarl import UsageError
from metarl.fewshot import FewShotConfig, train
from metarl.fewshot.data import open_data
from metarl.fewshot.episodes import EpisodeShape
from metarl.fewshot.learners.maml import MAMLLearner
from metarl.scripts.cli import main

GLYPHS = ("--data", "glyphs", "--drawings", "8", "--ways", "3", "--shots", "2", "--queries", "4", "--width", "4")
SHORT = ("--iterations", "3", "--episodes", "20")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "protonet"
    arguments = ["--train-ways", "4", *SHORT, "--output", str(path)]
    assert main(["fewshot", "protonet", *GLYPHS, *arguments]) == 0
    return path


def test_a_run_folder_has_everything(run: Path):
    result = json.loads((run / "evaluation.json").read_text())
    assert {"accuracy", "ci95", "episodes", "ways", "shots", "normalisation"} <= result.keys()
    assert (result["episodes"], result["ways"], result["shots"]) == (20, 3, 2)
    assert result["normalisation"] == "none"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [1, 2, 3]
    assert {"loss", "accuracy", "wall_seconds"} <= rows[0].keys()
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["learner_options"]["train_ways"] == 4
    assert config["data_options"] == {"root": None, "drawings": 8}
    assert (run / "checkpoints" / "iteration-000003.safetensors").is_file()
    for name in ("episode", "embedding", "training"):
        with Image.open(run / "plots" / f"{name}.png") as picture:
            assert len(np.unique(np.asarray(picture.convert("L")))) > 10


def test_the_command_of_a_result_makes_the_same_run(tmp_path: Path):
    arguments = ["fewshot", "maml", *GLYPHS, *SHORT, "--objective", "adversarial", "--eps", "0.1", "--no-random-start"]
    arguments += ["--attack-steps", "1", "--test-attack-steps", "2", "--test-restarts", "1"]
    assert main([*arguments, "--output", str(tmp_path / "first")]) == 0
    result = json.loads((tmp_path / "first" / "evaluation.json").read_text())
    assert result["training_seconds"] > 0
    words = shlex.split(result["command"])
    assert words[:3] == ["metarl", "fewshot", "maml"]
    assert "--no-random-start" in words
    assert {"--seed", "--inner-lr", "--test-shots"}.isdisjoint(words)  # as by default
    assert main([*words[1:], "--output", str(tmp_path / "second")]) == 0
    first, second = ((tmp_path / name / "config.yaml").read_text() for name in ("first", "second"))
    assert first == second


def test_ctrl_c_in_the_test_says_how_to_go_on(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    stopped = tmp_path / "stopped"
    shutil.copytree(run, stopped)
    (stopped / "evaluation.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("metarl.fewshot.result.evaluate", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
        assert main(["resume", str(stopped)]) == 130
    assert f"go on with: metarl resume {stopped}" in capsys.readouterr().err
    assert main(["resume", str(stopped)]) == 0
    assert json.loads((stopped / "evaluation.json").read_text())["accuracy"] > 0


def test_three_lines_classify_a_users_own_images(run: Path):
    pool = open_data("glyphs", {"drawings": 8}).pools["test"]
    support_x, support_y = pool.inputs[[0, 1, 8, 9, 16, 17]], [0, 0, 1, 1, 2, 2]
    learner = metarl.fewshot.load(run)
    probabilities = learner.predict(support_x, support_y, pool.inputs[2:5])
    assert probabilities.shape == (3, 3)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3))
    as_floats = learner.predict(support_x.numpy() / 255, support_y, pool.inputs[2:5, 0].float() / 255)
    torch.testing.assert_close(as_floats, probabilities, rtol=1e-3, atol=1e-4)
    four = learner.predict(pool.inputs[[0, 8, 16, 24]], [0, 1, 2, 3], pool.inputs[:1])
    assert four.shape == (1, 4)


def test_regression_and_further_shots(tmp_path: Path, capsys: pytest.CaptureFixture):
    arguments = ["--iterations", "4", "--episodes", "30", "--test-shots", "10", "20", "--output", str(tmp_path / "run")]
    assert main(["fewshot", "maml", "--data", "sinusoid", *arguments]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'run'}\n"
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert result["mse"] > 0
    assert result["shots"] == 5
    assert result["normalisation"] == "none"
    assert [row["shots"] for row in result["further"]] == [10, 20]
    values = metarl.fewshot.load(tmp_path / "run").predict([0.0, 1.0], [0.0, 0.5], [[0.0], [2.0], [3.0]])
    assert values.shape == (3, 1)


def test_every_number_of_shots_is_tested_with_every_number_of_queries(tmp_path: Path):
    config = FewShotConfig(
        learner="protonet",
        data="glyphs",
        data_options={"drawings": 8},
        shots=1,
        queries=4,
        test_shots=(2,),
        test_queries=(1,),
        episodes=2,
        learner_options={"iterations": 1, "width": 4},
        output=tmp_path / "run",
    )
    result = json.loads((train(config, progress=False) / "evaluation.json").read_text())
    assert [(row["shots"], row["queries"]) for row in (result, *result["further"])] == [(1, 4), (1, 1), (2, 4), (2, 1)]
    assert "--test-shots 2 --test-queries 1" in result["command"]
    with pytest.raises(UsageError, match="8 shots and 4 queries need 12 examples"):
        train(dataclasses.replace(config, test_shots=(8,), output=tmp_path / "none"), progress=False)
    assert not (tmp_path / "none").exists()


def test_help_shows_the_options_of_the_three_with_their_defaults(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as exit:
        main(["fewshot", "maml", "--data", "sinusoid", "--help"])
    assert exit.value.code == 0
    shown = capsys.readouterr().out
    assert "usage: metarl fewshot maml" in shown
    for text in ("--inner-lr FLOAT", "default: 0.01", "default: 70000", "--root", "--ways", "--output"):
        assert text in shown
    with pytest.raises(SystemExit):
        main(["fewshot", "--help"])
    assert "LEARNER is one of anil" in capsys.readouterr().out


STOPPED = """
import os, signal, sys
from metarl.fewshot.run import FewShotTraining
from metarl.scripts.cli import main
iterate = FewShotTraining.iterate
def interrupted(self, iteration):
    if iteration == 301:
        os.kill(os.getpid(), signal.SIGINT)
    return iterate(self, iteration)
FewShotTraining.iterate = interrupted
sys.exit(main(sys.argv[1:]))
"""
"""The command line, and Ctrl-C in step 301."""


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path):
    arguments = ["fewshot", "maml", "--data", "sinusoid", "--iterations", "502", "--episodes", "2"]
    assert main([*arguments, "--output", str(tmp_path / "whole")]) == 0
    command = [sys.executable, "-c", STOPPED, *arguments, "--output", str(tmp_path / "stopped")]
    stopped = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert stopped.returncode == 130, stopped.stderr
    assert "after step 301, which is saved; go on with: metarl resume" in stopped.stderr
    assert not (tmp_path / "stopped" / "evaluation.json").exists()
    assert main(["resume", str(tmp_path / "stopped")]) == 0
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def assert_same_run(left: Path, right: Path) -> None:
    """Equal metrics apart from times, equal parameters, equal figures of the test."""
    rows = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (left, right)]
    for row in (*rows[0], *rows[1]):
        for time_of in ("wall_seconds", "step_ms", "drawing_ms"):
            del row[time_of]
    assert rows[0] == rows[1]
    one, other = (metarl.fewshot.load(run).state()[0] for run in (left, right))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    results = [json.loads((run / "evaluation.json").read_text()) for run in (left, right)]
    assert results[0]["mse"] == results[1]["mse"]


def test_the_unfinished_row_of_metrics_survives_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """501 to 1000 steps make rows of two: Ctrl-C in step 7, and a kill after step 501, leave half a row."""
    config = FewShotConfig(
        "maml",
        "sinusoid",
        learner_options={"iterations": 502, "num_tasks": 2, "hidden": (4,)},
        episodes=2,
        checkpoint_every=501,
        output=tmp_path / "whole",
    )
    whole = train(config, progress=False)
    fit, calls = MAMLLearner.fit, []

    def interrupted(self, episodes, *, seed):
        calls.append(seed)
        if len(calls) == 7:
            signal.raise_signal(signal.SIGINT)
        return fit(self, episodes, seed=seed)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MAMLLearner, "fit", interrupted)
        train(dataclasses.replace(config, output=tmp_path / "stopped"), progress=False)
    assert metarl.load_run(tmp_path / "stopped").checkpoint.iteration == 7, "the step is finished first"
    metarl.resume(tmp_path / "stopped", progress=False)
    assert_same_run(whole, tmp_path / "stopped")

    killed = shutil.copytree(whole, tmp_path / "killed")
    for path in (*killed.glob("checkpoints/iteration-000502.*"), killed / "evaluation.json"):
        path.unlink()
    metarl.resume(killed, progress=False)
    assert_same_run(whole, killed)


def test_a_step_that_fails_goes_back_to_the_last_checkpoint(tmp_path: Path, monkeypatch, capsys):
    """The parameters may have changed half: they are not saved."""
    config = FewShotConfig(
        "maml",
        "sinusoid",
        learner_options={"iterations": 9, "num_tasks": 2, "hidden": (4,)},
        episodes=2,
        checkpoint_every=4,
        output=tmp_path / "whole",
    )
    whole = train(config, progress=False)
    apply, calls = MAMLLearner.apply_gradients, []

    def broken(self):
        apply(self)
        calls.append(None)
        if len(calls) == 7:
            raise RuntimeError("out of memory")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="out of memory"):
        patch.setattr(MAMLLearner, "apply_gradients", broken)
        train(dataclasses.replace(config, output=tmp_path / "broken"), progress=False)
    assert "stopped after step 4, which is saved" in capsys.readouterr().err
    metarl.resume(tmp_path / "broken", progress=False)
    assert_same_run(whole, tmp_path / "broken")


def test_a_complete_run_is_left_as_it_is(run: Path, capsys: pytest.CaptureFixture):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert metarl.resume(run) == run
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert "is complete: 3 iterations" in capsys.readouterr().err


def test_evaluate_tests_the_learner(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    copy, file = shutil.copytree(run, tmp_path / "run"), tmp_path / "result.json"
    arguments = ["--tasks", "12", "--split", "train", "--seed", "3", "--json", str(file)]
    assert main(["evaluate", str(copy), *arguments]) == 0
    shown = capsys.readouterr().out
    result = json.loads(file.read_text())
    assert file.read_text() == (copy / "evaluation.json").read_text()
    learner, data = metarl.fewshot.load(run), open_data("glyphs", {"drawings": 8})
    expected = metarl.fewshot.evaluate(learner, data, episodes=12, split="train", seed=3)
    for name in ("accuracy", "ci95", "episodes", "split", "seed", "ways", "shots", "queries"):
        assert result[name] == expected[name]
    assert f"{expected['accuracy']:.4f} ± {expected['ci95']:.4f}" in shown
    assert "protonet on glyphs, 12 train episodes" in shown
    assert result["command"] == json.loads((run / "evaluation.json").read_text())["command"]
    assert result["evaluated_by"] == "metarl evaluate RUN --tasks 12 --split train --seed 3"


@pytest.mark.parametrize(
    "option",
    [
        ("--env", "Bandit-v0"),
        ("--env-options", "horizon=3"),
        ("--protocol", "per-task"),
        ("--backend", "torch"),
        ("--episodes", "3"),
    ],
    ids=lambda option: option[0],
)
def test_evaluate_refuses_options_of_agents(run: Path, option: tuple[str, str], capsys: pytest.CaptureFixture):
    before = (run / "evaluation.json").read_bytes()
    assert main(["evaluate", str(run), *option]) == 2
    assert capsys.readouterr().err == f"metarl: error: {option[0]} is for runs of agents: {run} is a few-shot run\n"
    assert (run / "evaluation.json").read_bytes() == before


def test_adapt_is_for_agents(run: Path, capsys: pytest.CaptureFixture):
    assert main(["adapt", str(run), "--task", "{}"]) == 2
    error = capsys.readouterr().err
    assert "is a few-shot run: metarl adapt is for agents" in error
    assert error.count("\n") == 1


def test_the_data_of_a_run_are_those_it_was_made_with(tmp_path: Path):
    """A table of other columns under the same name would be learned without a word."""
    table = tmp_path / "table.csv"
    header = "a,b,label"
    rows = [f"{i % 7},{i % 3},{'xyz'[i % 3]}" for i in range(60)]
    table.write_text("\n".join([header, *rows]) + "\n")
    config = FewShotConfig(
        "protonet",
        "csv",
        ways=2,
        queries=2,
        data_options={"csv": str(table), "label": "label"},
        learner_options={"iterations": 2, "hidden": (4,)},
        episodes=2,
        output=tmp_path / "run",
    )
    run = train(config, progress=False)
    (run / "evaluation.json").unlink()
    table.write_text("\n".join(["a,b,c,label", *(f"1.5,{row}" for row in rows)]) + "\n")
    with pytest.raises(UsageError, match="'csv' is not what the run was made with"):
        metarl.resume(run, progress=False)


PLUGIN = """
from metarl.fewshot.data.glyphs import Glyphs
from metarl.fewshot.learners.protonet import ProtoNet
from metarl.fewshot.objectives.plain import Objective

class Mine(ProtoNet):
    pass

class Drawn(Glyphs):
    pass

class Plainer(Objective):
    pass
"""


def test_learner_data_and_objective_may_be_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    (tmp_path / "my_fewshot.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    words = ["my_fewshot:Mine", "--data", "my_fewshot:Drawn", "--objective", "my_fewshot:Plainer", *GLYPHS[2:]]
    assert main(["fewshot", *words, *SHORT]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path == Path("runs/my_fewshot-Mine-my_fewshot-Drawn-seed0")
    assert type(metarl.fewshot.load(path)).__name__ == "Mine"
    for wrong, message in (
        (["my_fewshot:Min", "--data", "glyphs"], "my_fewshot has no 'Min'; did you mean Mine"),
        (["no_such_module:Mine", "--data", "glyphs"], "there is no module 'no_such_module'"),
        (["my_fewshot:Drawn", "--data", "glyphs"], "is no learner: want a subclass of metarl.fewshot.learner.Learner"),
        (["maml", "--data", "my_fewshot:Mine"], "is no data set"),
        (["maml", "--data", "glyphs", "--objective", "my_fewshot:Mine"], "is no objective"),
    ):
        assert main(["fewshot", *wrong]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_names_have_one_meaning():
    assert metarl.fewshot.train is metarl.train
    assert metarl.fewshot.resume is metarl.resume


MISTAKES = {
    "no learner": ((), "name the learner first"),
    "a learner": (("malm", "--data", "sinusoid"), "unknown learner 'malm'"),
    "no data": (("maml",), "missing: --data"),
    "a data set": (("maml", "--data", "sinusiod"), "did you mean sinusoid"),
    "an objective": (("maml", "--data", "sinusoid", "--objective", "plian"), "did you mean plain"),
    "an option": (("maml", "--data", "sinusoid", "--inner-lrr", "1"), "unknown option --inner-lrr"),
    "a wrong number": (("maml", "--data", "sinusoid", "--iterations", "many"), "--iterations"),
    "zero steps": (("maml", "--data", "sinusoid", "--iterations", "0"), "iterations must be"),
    "a kind": (("protonet", "--data", "sinusoid"), "protonet learns classification"),
    "ways of a regression": (("maml", "--data", "sinusoid", "--ways", "5"), "leave --ways out"),
    "no files": (("maml", "--data", "omniglot"), "images_background and images_evaluation"),
    "too many ways": (("maml", *GLYPHS[:4], "--ways", "900"), "900 ways asked for"),
    "too many shots": (("maml", *GLYPHS[:4], "--shots", "8", "--queries", "1"), "need 13 examples"),
    "zero test episodes": (("maml", "--data", "sinusoid", "--episodes", "0"), "episodes must be"),
    "a device": (("maml", "--data", "sinusoid", "--device", "cuda:77"), "is not there"),
    "a seed": (("maml", "--data", "sinusoid", "--seed", "-1"), "seed must be"),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_gets_one_line(arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fewshot", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("metarl: error: ")
    assert shown.err.count("\n") == 1
    assert message in shown.err
    assert list(tmp_path.iterdir()) == []


def test_mistakes_about_runs_are_told(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["fewshot", "maml", "--data", "sinusoid", "--output", str(run)]) == 2
    assert "already holds a run" in capsys.readouterr().err
    with pytest.raises(UsageError, match="there is no run folder"):
        metarl.fewshot.load(tmp_path / "nowhere")
    agent = metarl.TrainConfig("random", "Bandit-v0", iterations=1, output=tmp_path / "agent")
    with pytest.raises(UsageError, match=r"no run of metarl fewshot: metarl\.load_agent opens its agent"):
        metarl.fewshot.load(metarl.train(agent, progress=False))
    with pytest.raises(UsageError, match=r"is a few-shot run: metarl\.fewshot\.load opens its learner"):
        metarl.load_agent(run)
    (tmp_path / "config.yaml").write_text("format: 1\n")
    with pytest.raises(UsageError, match=r"is a run of format 1: metarl 0\.1 reads it"):
        metarl.fewshot.load(tmp_path)


def test_a_config_is_enough_from_python(tmp_path: Path):
    config = metarl.fewshot.FewShotConfig(
        "anil",
        "glyphs",
        ways=2,
        queries=3,
        learner_options={"iterations": 2, "width": 4},
        data_options={"drawings": 8},
        episodes=5,
        output=tmp_path / "run",
    )
    path = metarl.fewshot.train(config, progress=False)
    learner = metarl.fewshot.load(path)
    assert learner.spec.shape == EpisodeShape(2, 1, 3)
    assert learner.updates == 2
    with pytest.raises(UsageError, match="learner 'anil' has no option 'inner_lrr'"):
        metarl.fewshot.train(metarl.fewshot.FewShotConfig("anil", "glyphs", learner_options={"inner_lrr": 1}))
