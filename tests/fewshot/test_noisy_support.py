"""Corrupted support sets: what is changed and what is not, for every learner; attacks move numbers only."""

import json
from pathlib import Path

import pytest
import torch

from metarl import UsageError
from metarl.fewshot import EpisodeShape, FewShotConfig, Samples, evaluate
from metarl.fewshot.data import open_data
from metarl.fewshot.learners import learner_class
from metarl.fewshot.objectives.noisy_support import NoisySupport, NoisySupportConfig, flip_labels
from metarl.fewshot.objectives.robust import Ball
from metarl.fewshot.preprocessing import Preprocessing
from metarl.registry import list_learners
from metarl.scripts.cli import main

MIXED = Preprocessing((3,), numeric=(True, False, True))


def test_the_stated_share_of_labels_is_flipped_and_no_class_is_lost():
    labels = torch.arange(4).repeat(200, 5)
    flipped = flip_labels(labels, 0.4, torch.Generator().manual_seed(0))
    assert ((flipped != labels).sum(1) == 8).all()
    right = torch.nn.functional.one_hot(labels, 4) * (flipped == labels)[..., None]
    assert bool((right.sum(1) >= 1).all())
    changed = flipped != labels
    counts = (4 * labels[changed] + flipped[changed]).bincount(minlength=16).reshape(4, 4)
    assert counts.diagonal().sum() == 0
    assert counts.sum(1).min() / counts.sum(1).max() > 0.85  # every class is as likely to be flipped, to any other
    off = counts[~torch.eye(4, dtype=torch.bool)]
    assert off.min() / off.max() > 0.7


def test_what_flips_nothing_or_everything_is_refused():
    labels, generator = torch.arange(2).repeat(1, 5), torch.Generator()
    for rate, message in ((0.01, "flips none of 10"), (0.9, "one of each of 2 classes stays right")):
        with pytest.raises(UsageError, match=message):
            flip_labels(labels, rate, generator)
    with pytest.raises(UsageError, match="no labels to flip"):
        FewShotConfig("maml", "sinusoid", objective="noisy-support").resolve().make()
    with pytest.raises(UsageError, match="nothing is corrupted"):
        NoisySupportConfig(flip_rate=0.0, poison_rate=0.0)


def test_poison_moves_the_numbers_of_some_examples_within_the_ball():
    data = open_data("biased", {"merit": 2, "proxies": 1})
    spec = data.spec(EpisodeShape(2, 5, 2))
    spec = type(spec)(spec.kind, spec.shape, MIXED, spec.outputs)
    objective = NoisySupport(NoisySupportConfig(flip_rate=0.0, poison_rate=0.3, poison_eps=0.5, test_tries=4), spec)
    support = data.episodes("test", 3, spec.shape, seed=0).support
    clean, *tries = objective.corruptions(support, torch.Generator().manual_seed(0))["poisoned"]
    assert clean is support
    assert len(tries) == 4
    for tried in tries:
        moved = (tried.x - support.x).abs()
        assert torch.equal(tried.y, support.y)
        assert (moved[..., 1] == 0).all()  # a word
        assert ((moved > 0).any(-1).sum(1) == 3).all()
        assert moved.max() == pytest.approx(0.5)
    # Aimed at the other class: the first input of the examples that moved goes towards its mean.
    first = tries[0].x - support.x
    other = (
        torch.stack([support.x[e][support.y[e] == 0].mean(0) for e in range(3)]),
        torch.stack([support.x[e][support.y[e] == 1].mean(0) for e in range(3)]),
    )
    aim = torch.where(support.y[..., None] == 0, other[1][:, None], other[0][:, None]) - support.x
    assert bool((first * aim >= 0).all())


@pytest.mark.parametrize("learner", list_learners())
def test_every_learner_is_tested_and_trained_with_bad_supports(learner: str):
    if "classification" not in learner_class(learner).kinds:
        pytest.skip("regression alone")
    options = {"iterations": 1, "num_tasks": 2}
    if hasattr(learner_class(learner).config_class, "test_steps"):
        options["test_steps"] = 1
    config = FewShotConfig(learner, "iris", "noisy-support", 3, 3, 2, options, objective_options={"test_tries": 2})
    experiment = config.resolve()
    with experiment.training(experiment.make()) as training:
        training.iterate(1)
        result = evaluate(training.learner, training.data, episodes=4)
    metrics = result["metrics"]
    assert metrics["poisoned_accuracy"]["mean"] <= result["accuracy"] + 1e-6
    assert 0 <= metrics["flipped_accuracy"]["mean"] <= 1


def test_attacks_on_a_table_leave_words_alone(tmp_path: Path):
    rows = []
    for number in range(60):
        city, income = "Rome" if number % 3 else "Oslo", "NA" if number % 7 == 0 else number
        rows.append(f"{20 + 7 * number % 50},{city},{income},{'ab'[number % 2]}")
    (tmp_path / "t.csv").write_text("\n".join(["age,city,income,outcome", *rows]))
    data = open_data("csv", {"csv": str(tmp_path / "t.csv"), "label": "outcome"})
    objective = {"eps": 0.5, "attack_steps": 2, "test_attack_steps": 3}
    config = FewShotConfig("maml", data, "adversarial", shots=5, queries=3, objective_options=objective)
    learner = config.resolve().make_learner()
    episodes = data.episodes("test", 2, EpisodeShape(2, 5, 3), seed=0)
    predictor = learner.adapt(episodes.support)
    outputs = predictor(episodes.query.x).detach()
    attacked = learner.objective.strongest(predictor, episodes.query, outputs, learner.generator("x"))
    moved = (attacked - episodes.query.x).abs().amax((0, 1))
    labels = [label for feature in data.features for label in feature.labels]
    assert {name for name, by in zip(labels, moved.tolist(), strict=True) if by > 0} == {"age", "income"}
    assert moved.max() <= 0.5 + 1e-6


def test_a_vector_without_words_is_attacked_as_a_whole():
    ball = Ball.of(Preprocessing((2,)), 0.1)
    assert torch.equal(ball.project(torch.ones(1, 1, 2), torch.zeros(1, 1, 2)), torch.full((1, 1, 2), 0.1))


def test_it_is_an_objective_of_the_command_line(tmp_path: Path):
    run = tmp_path / "run"
    arguments = ["--iterations", "1", "--episodes", "2", "--queries", "5", "--flip-rate", "0.3", "--output", str(run)]
    assert main(["fewshot", "protonet", "--data", "biased", "--objective", "noisy-support", *arguments]) == 0
    result = json.loads((run / "evaluation.json").read_text())
    assert {"flipped_accuracy", "poisoned_accuracy"} == result["metrics"].keys()
    assert "--flip-rate 0.3" in result["command"]


def test_without_training_on_them_supports_are_left_alone():
    spec = open_data("biased").spec(EpisodeShape(2, 5, 2))
    objective = NoisySupport(NoisySupportConfig(train=False), spec)
    support = Samples(torch.zeros(1, 10, 6), torch.arange(10)[None] % 2)
    assert objective.corrupt(support, torch.Generator()) is support
