"""Simple models beside a learner: the same episodes, paired differences, and the verdict in words."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

import metarl.fewshot
from metarl.fewshot import EpisodeShape, FewShotConfig
from metarl.fewshot.baselines import MISSING, PERMUTED, Baselines, verdict
from metarl.fewshot.data import open_data
from metarl.fewshot.intervals import mean_interval
from metarl.fewshot.learners.protonet import ProtoNet, ProtoNetConfig
from metarl.scripts.cli import main

SHAPE = EpisodeShape(2, 5, 6)


def write_sites(folder: Path, sites: int = 12, rows: int = 24) -> str:
    """Each site shifts `dose`; the ill have the higher one."""
    generator = np.random.default_rng(3)
    lines = ["site,dose,age,state,cost"]
    for site in range(sites):
        for row in range(rows):
            dose, age = generator.normal() + 2 * (row % 2) + site, generator.normal()
            lines.append(f"s{site},{dose:.3f},{age:.3f},{('well', 'ill')[row % 2]},{2 * dose - age:.3f}")
    (folder / "sites.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "sites.csv")


def site_data(folder: Path, **options: object):
    chosen = {"label": "state", "ignore": ("cost",)} | options
    return open_data("csv", {"csv": write_sites(folder), "task_column": "site", **chosen})


def by_name(result: dict, fitted_on: str, model: str = "logistic regression") -> dict:
    (row,) = [row for row in result["models"] if row["model"] == model and row["fitted_on"].endswith(fitted_on)]
    return row


def test_scores_are_those_of_scikit_learn_on_the_same_episodes(tmp_path: Path) -> None:
    data = site_data(tmp_path)
    episodes = data.episodes("test", 6, SHAPE, seed=1)
    baselines = Baselines(data)
    for part in (slice(0, 4), slice(4, 6)):
        baselines.add(episodes[part])
    own = torch.ones(6, 12)
    found = baselines.results("accuracy", own, episodes.members)
    assert [row["model"] for row in found["models"]].count("gradient boosting") == 2
    alone = [
        LogisticRegression(max_iter=1000).fit(x, y).predict(q) == truth
        for x, y, q, truth in zip(
            *(part.numpy() for part in (episodes.support.x, episodes.support.y, episodes.query.x, episodes.query.y)),
            strict=True,
        )
    ]
    row = by_name(found, "each support set")
    assert row["accuracy"] == pytest.approx(np.mean(alone))
    assert row["difference"]["mean"] == pytest.approx(1 - np.mean(alone))
    scores = torch.from_numpy(np.stack(alone)).float()
    assert row["ci95"] == mean_interval(scores.mean(1), episodes.members, scores).half
    inputs, labels = data.pools["train"].labelled()
    whole = LogisticRegression(max_iter=1000).fit(data.preprocessing(inputs).numpy(), labels.numpy())
    right = whole.predict(episodes.query.x.flatten(0, 1).numpy()) == episodes.query.y.flatten().numpy()
    row = by_name(found, "training rows")
    assert row["fitted_on"] == f"{len(inputs)} training rows"
    assert row["accuracy"] == pytest.approx(right.mean())


def test_regression_has_ridge(tmp_path: Path) -> None:
    data = site_data(tmp_path, label=None, target="cost", ignore=("state",))
    episodes = data.episodes("test", 3, EpisodeShape(1, 8, 5), seed=0)
    baselines = Baselines(data)
    baselines.add(episodes)
    found = baselines.results("mse", torch.zeros(3, 5), episodes.members)
    expected = [
        np.square(Ridge().fit(x, y).predict(q) - truth)
        for x, y, q, truth in zip(
            episodes.support.x.numpy(),
            episodes.support.y[..., 0].numpy(),
            episodes.query.x.numpy(),
            episodes.query.y[..., 0].numpy(),
            strict=True,
        )
    ]
    assert by_name(found, "support set", "ridge regression")["mse"] == pytest.approx(np.mean(expected), rel=1e-4)
    assert found["verdict"].startswith("better than every baseline") or "chance" in found["verdict"]


def test_permuted_labels_have_no_fit_on_all_training_rows() -> None:
    data = open_data("iris")
    baselines = Baselines(data)
    baselines.add(data.episodes("test", 2, data.default_shape(), seed=0))
    found = baselines.results("accuracy", torch.zeros(2, baselines.all[0].scores[0].shape[1]), None)
    assert {row["fitted_on"] for row in found["models"]} == {"each support set"}
    assert found["note"] == PERMUTED
    assert found["verdict"].startswith("a simple baseline wins: ")


def test_two_classes_with_a_favourable_one_keep_their_labels(tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    rows = [f"{i % 7},{'fm'[i // 2 % 2]},{('no', 'yes')[i % 2]}" for i in range(80)]
    file.write_text("\n".join(["x,sex,loan", *rows]) + "\n")
    for favourable in ("no", "yes"):
        data = open_data("csv", {"csv": str(file), "label": "loan", "group": "sex", "favourable": favourable})
        pool = data.pools["train"]  # type: ignore[attr-defined]
        _, labels = pool.labelled()
        names = [data.classes[int(code)] for code in pool.classes.repeat_interleave(pool.counts)]  # type: ignore[attr-defined]
        assert labels.tolist() == [int(name == favourable) for name in names]


@pytest.mark.parametrize(
    ("learner", "half", "metric", "beginning"),
    [
        (0.5, 0.1, "accuracy", "a simple baseline wins: A fitted on B has accuracy 0.8000, better by 0.3000 ± 0.1000"),
        (
            0.75,
            0.1,
            "accuracy",
            "a simple baseline wins: A fitted on B has accuracy 0.8000, better by 0.0500 ± 0.1000, ",
        ),
        (0.85, 0.1, "accuracy", "no better than the best baseline beyond chance: A fitted on B"),
        (0.95, 0.1, "accuracy", "better than every baseline: the best, A fitted on B, has accuracy 0.8000, worse by"),
        (0.95, None, "accuracy", "no better than the best baseline beyond chance"),
        (0.5, 0.1, "mse", "better than every baseline"),
        (1.5, 0.1, "mse", "a simple baseline wins"),
    ],
)
def test_the_verdict(learner: float, half: float | None, metric: str, beginning: str) -> None:
    worse = 0.1 if metric == "accuracy" else 3.0
    rows = [
        {"model": model, "fitted_on": "B", metric: score, "difference": {"mean": learner - score, "ci95": half}}
        for model, score in (("A", 0.8), ("C", worse))
    ]
    assert verdict(rows, metric).startswith(beginning)


def test_a_run_has_them_and_the_command_line_prints_them(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["--data", "csv", "--csv", write_sites(tmp_path), "--label", "state", "--task-column", "site"]
    words += ["--ignore", "cost", "--iterations", "2", "--episodes", "3", "--output", str(tmp_path / "run")]
    assert main(["fewshot", "protonet", *words]) == 0
    shown = capsys.readouterr().err
    assert "baseline: gradient boosting fitted on each support set, accuracy" in shown
    assert "baselines: " in shown
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert len(result["baselines"]["models"]) == 6
    assert "--no-baselines" not in result["command"]
    assert main(["evaluate", str(tmp_path / "run"), "--tasks", "2"]) == 0
    assert "baseline: logistic regression fitted on" in capsys.readouterr().err


def test_without_scikit_learn_a_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = site_data(tmp_path)
    learner = ProtoNet(ProtoNetConfig(), data.spec(SHAPE))
    monkeypatch.setitem(sys.modules, "sklearn", None)
    result = metarl.fewshot.evaluate(learner, data, episodes=2, baselines=True)
    assert result["baselines"] == {"note": MISSING}
    assert "baselines" not in metarl.fewshot.evaluate(learner, data, episodes=2)


def test_they_can_be_left_out(tmp_path: Path) -> None:
    config = FewShotConfig(
        "protonet", "iris", learner_options={"iterations": 1}, episodes=2, baselines=False, output=tmp_path / "run"
    )
    result = json.loads((metarl.train(config, progress=False) / "evaluation.json").read_text())
    assert "baselines" not in result
    assert "--no-baselines" in result["command"]
