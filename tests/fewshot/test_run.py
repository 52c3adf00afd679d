"""Runs through the command line: trained, tested, drawn, loaded, stopped and gone on with."""

import dataclasses
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
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


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path):
    arguments = ["fewshot", "maml", "--data", "sinusoid", "--iterations", "1000", "--episodes", "2"]
    assert main([*arguments, "--output", str(tmp_path / "whole")]) == 0
    program = "import sys; from metarl.scripts.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, *arguments, "--output", str(tmp_path / "stopped")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "stopped" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.stat().st_size > 200):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "which is saved; go on with: metarl resume" in errors
    assert not (tmp_path / "stopped" / "evaluation.json").exists()
    assert main(["resume", str(tmp_path / "stopped")]) == 0
    whole, stopped = (metarl.fewshot.load(tmp_path / name).state()[0] for name in ("whole", "stopped"))
    assert whole.keys() == stopped.keys()
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


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
    (tmp_path / "config.yaml").write_text("format: 1\n")
    with pytest.raises(UsageError, match="no run of metarl fewshot"):
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
