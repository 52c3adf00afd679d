"""Figures of classifiers against scikit-learn, and against hand counts where it has none."""

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics

import metarl.fewshot
from metarl.fewshot.calibration import (
    Calibration,
    calibrate,
    calibration_figures,
    conformal_figures,
    conformal_threshold,
    fit_temperature,
    read_calibration,
    reliability,
)
from metarl.fewshot.data import open_data
from metarl.fewshot.episodes import EpisodeShape, Members
from metarl.fewshot.figures import Counts, auc, classification_figures, group_figures
from metarl.fewshot.learners.protonet import ProtoNet, ProtoNetConfig
from metarl.fewshot.predictions import Predictions, collect_predictions
from metarl.scripts.cli import main


def drawn(episodes: int = 7, queries: int = 12, ways: int = 3, **more) -> Predictions:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, ways, (episodes, queries), generator=generator)
    scores = torch.randn(episodes, queries, ways, generator=generator).round(decimals=1)  # with ties
    scores = scores + 0.8 * torch.nn.functional.one_hot(y, ways)
    return Predictions(scores, y, **more)


def test_figures_within_an_episode_are_scikit_learns():
    found = drawn()
    counts, areas = Counts(found), auc(found.probabilities, found.y)
    for e in range(len(found.y)):
        y, chosen = found.y[e].numpy(), found.chosen[e].numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            recall, precision, f1 = (
                score(y, chosen, labels=range(3), average=None, zero_division=np.nan)
                for score in (metrics.recall_score, metrics.precision_score, metrics.f1_score)
            )
        np.testing.assert_allclose(counts.recall[e], recall)
        np.testing.assert_allclose(counts.precision[e], precision)
        np.testing.assert_allclose(counts.f1[e], f1)
        assert counts.recall[e].nanmean() == pytest.approx(metrics.balanced_accuracy_score(y, chosen))
        for label in range(3):
            if not 0 < (y == label).sum() < len(y):
                assert areas[e, label].isnan()
                continue
            wanted = metrics.roc_auc_score(y == label, found.probabilities[e, :, label].numpy())
            assert areas[e, label] == pytest.approx(wanted)


def test_the_confusion_matrix_is_scikit_learns_and_only_for_fixed_labels():
    assert "confusion" not in classification_figures(drawn())
    found = drawn(names=("a", "b", "c"), fixed=True)
    result = classification_figures(found)
    wanted = metrics.confusion_matrix(found.y.flatten(), found.chosen.flatten())
    assert result["confusion"]["counts"] == wanted.tolist()
    assert [row["class"] for row in result["per_class"]] == ["a", "b", "c"]


def test_brier_and_log_loss_are_scikit_learns():
    found = drawn()
    figures = calibration_figures(found)
    y, p = found.y.flatten().numpy(), found.probabilities.flatten(0, 1).numpy()
    assert figures["log_loss"] == pytest.approx(metrics.log_loss(y, p))
    wanted = sum(metrics.brier_score_loss(y == label, p[:, label]) for label in range(3))
    assert figures["brier"]["mean"] == pytest.approx(wanted)


def test_the_calibration_error_by_hand():
    confidence, right = np.array([0.6, 0.62, 0.95, 1.0]), np.array([1.0, 0.0, 1.0, 1.0])
    rows = reliability(confidence, right)
    assert [row["queries"] for row in rows] == [1, 1, 2]  # 0.6 is the upper end of its bin
    assert rows[2]["confidence"] == pytest.approx(0.975)
    scores = torch.tensor(np.log(np.stack([confidence.clip(max=1 - 1e-12), 1 - confidence.clip(max=1 - 1e-12)], 1)))
    found = Predictions(scores[None], torch.tensor([[0, 1, 0, 0]]))
    assert calibration_figures(found)["ece"] == pytest.approx((0.4 + 0.62 + 2 * 0.025) / 4, abs=1e-6)


def test_the_temperature_of_one_margin_has_a_closed_form():
    """With scores (m, 0) and accuracy p, the best temperature is m / log(p / (1 − p))."""
    y = (torch.arange(100) >= 80).long()
    scores = torch.tensor([3.0, 0.0]).expand(100, 2)
    assert fit_temperature(scores, y) == pytest.approx(3 / math.log(4), rel=1e-4)


def test_with_one_query_an_episode_the_threshold_is_that_of_split_conformal_prediction():
    scores = torch.rand(99, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ordered = scores.flatten().sort().values
    for coverage in (0.5, 0.8, 0.9, 0.99):
        assert conformal_threshold(scores, coverage) == ordered[math.ceil(100 * coverage - 1e-9) - 1]
    assert conformal_threshold(scores[:8], 0.9) == math.inf  # 8 / 9 < 0.9


def test_sets_cover_what_they_state_although_queries_of_an_episode_go_together():
    """Each episode has its own difficulty, so that its queries depend on each other."""
    generator = torch.Generator().manual_seed(0)
    covered = []
    for _ in range(150):
        skill = torch.randn(21, 1, 1, generator=generator)
        y = torch.zeros(21, 10, dtype=torch.int64)
        scores = torch.randn(21, 10, 2, generator=generator)
        scores[..., 0] += 1.5 * skill[..., 0] + 1
        parts = Predictions(scores[:20], y[:20]), Predictions(scores[20:], y[20:])
        found = calibrate(parts[0], coverage=0.8, split="validation", training_steps=0)
        covered.append(conformal_figures(parts[1], found)["coverage"]["mean"])
    mean, error = np.mean(covered), np.std(covered) / math.sqrt(len(covered))
    assert 0.8 - 3 * error <= mean <= 0.8 + 1 / 21 + 3 * error


def test_a_set_holds_what_reaches_the_threshold_and_abstention_is_not_one():
    found = Predictions(torch.tensor([[[0.8, 0.2], [0.55, 0.45], [0.3, 0.7]]]).log(), torch.tensor([[0, 1, 0]]))
    result = conformal_figures(found, Calibration(1.0, 0.56, 0.9, "train", 10, 0))
    assert result["coverage"]["mean"] == pytest.approx(2 / 3)
    assert result["answered"] == pytest.approx(2 / 3)
    assert result["accuracy_if_answered"] == pytest.approx(0.5)
    everything = conformal_figures(found, Calibration(1.0, None, 0.9, "train", 2, 0))
    assert everything["coverage"]["mean"] == 1
    assert everything["mean_size"] == 2


def test_rates_of_groups_by_hand_and_a_group_without_queries():
    chosen, y, groups = [1, 1, 0, 0, 1, 0], [1, 0, 1, 0, 1, 0], [0, 0, 0, 0, 1, 1]
    scores = torch.nn.functional.one_hot(torch.tensor([chosen, chosen]), 2).float()
    found = Predictions(
        scores, torch.tensor([y, y]), torch.tensor([groups, [0] * 6]), favourable=1, group_names=("a", "b", "c")
    )
    result = group_figures(found, 1)
    assert result["reference"] == "a"
    first, second, third = result["groups"]
    assert first["selection_rate"]["mean"] == pytest.approx(0.5)
    assert second["tpr"]["mean"] == 1
    assert second["fpr"]["mean"] == 0
    assert second["selection_rate"]["episodes_without"] == 1
    assert second["tpr_difference"]["mean"] == pytest.approx(0.5)
    assert (third["queries"], third["rare"], third["selection_rate"]["mean"]) == (0, True, None)


def test_labels_are_those_of_the_classes_if_every_episode_has_all():
    data = open_data("iris")
    learner = ProtoNet(ProtoNetConfig(), data.spec(data.default_shape()), seed=0)
    found = collect_predictions(learner, data, episodes=20)
    assert found.fixed
    assert found.members is not None
    assert torch.equal(found.y, found.members.query_classes)
    tested = metarl.fewshot.evaluate(learner, data, episodes=20)
    assert classification_figures(found)["accuracy"]["mean"] == pytest.approx(tested["accuracy"])
    assert classification_figures(found)["accuracy"]["ci95"] == pytest.approx(tested["ci95"], nan_ok=True)
    two = collect_predictions(learner, data, episodes=5, shape=EpisodeShape(2, 5, 5))
    assert not two.fixed
    per_class = classification_figures(two)["per_class"]
    assert sum(row["queries"] for row in per_class) == two.y.numel()


def test_one_class_has_no_interval_over_classes():
    classes = torch.tensor([[0, 1], [1, 2]])
    members = Members("classes", classes, classes, classes, classes)
    scores = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]] * 2)
    found = Predictions(scores, torch.tensor([[0, 1]] * 2), None, members, ("a", "b", "c"))
    rows = classification_figures(found)["per_class"]
    assert [row["queries"] for row in rows] == [1, 2, 1]
    assert rows[1]["accuracy"]["mean"] == 0.5
    assert rows[1]["accuracy"]["ci95"] is None


def test_evaluate_writes_the_figures_and_keeps_the_calibration(tmp_path: Path, capsys: pytest.CaptureFixture):
    run = tmp_path / "run"
    short = ["--iterations", "2", "--episodes", "5", "--queries", "10", "--output", str(run)]
    assert main(["fewshot", "protonet", "--data", "biased", "--objective", "fairness", *short]) == 0
    assert main(["evaluate", str(run), "--figures", "--tasks", "8"]) == 0
    figures = json.loads((run / "evaluation.json").read_text())["figures"]
    assert {"balanced_accuracy", "macro_f1", "macro_auc", "calibration", "conformal", "groups"} <= figures.keys()
    calibration = read_calibration(run)
    assert calibration is not None
    assert (calibration.training_steps, calibration.episodes, calibration.split) == (2, 8, "train")
    assert (run / "plots" / "reliability.png").is_file()
    assert "balanced accuracy" in capsys.readouterr().out
    (run / "calibration.json").write_text("{")
    with pytest.raises(metarl.UsageError, match="damaged"):
        read_calibration(run)


def test_figures_are_for_classifiers(tmp_path: Path, capsys: pytest.CaptureFixture):
    run = str(tmp_path / "run")
    assert main(["fewshot", "cnp", "--data", "sinusoid", "--iterations", "1", "--episodes", "2", "--output", run]) == 0
    assert main(["evaluate", run, "--figures"]) == 2
    assert "figures are for classification" in capsys.readouterr().err


def test_each_protected_column_has_its_own_figures(tmp_path: Path):
    """The second column is the first with its groups named the other way round, and no feature."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(120):
        sex, granted = number % 2, rng.random() < 0.5
        rows.append(f"{rng.normal() + granted:.3f},{'fm'[sex]},{'fm'[1 - sex]},{('no', 'yes')[granted]}")
    (tmp_path / "t.csv").write_text("\n".join(["merit,sex,mirrored,outcome", *rows]))
    options = {"csv": str(tmp_path / "t.csv"), "label": "outcome", "group": "sex", "favourable": "yes"}
    data = open_data("csv", options | {"protected": ("mirrored",)})
    assert data.preprocessing.shape == (1,)
    assert "mirrored: protected, f, m" in data.summary()
    learner = ProtoNet(ProtoNetConfig(), data.spec(data.default_shape()), seed=0)
    found, _ = metarl.fewshot.figures(learner, data, episodes=20)
    first, second = found["groups"]["groups"], found["protected"]["mirrored"]["groups"]
    assert [row["group"] for row in first] == ["f", "m"]
    assert found["groups"]["favourable"] == "yes"
    for row, mirrored in zip(first, reversed(second), strict=True):
        for name in ("queries", "selection_rate", "tpr", "fpr", "accuracy"):
            assert row[name] == mirrored[name]
    with pytest.raises(metarl.UsageError, match="go together"):
        open_data("csv", {"csv": str(tmp_path / "t.csv"), "label": "outcome", "protected": ("sex",)})
