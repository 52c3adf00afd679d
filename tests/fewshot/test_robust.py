"""Adversarial querying: the attack against closed forms on linear models, its bounds, and what it does to training."""

import json
from pathlib import Path

import pytest
import torch

from metarl import UsageError
from metarl.fewshot.episodes import EpisodeShape, Samples, TaskSpec
from metarl.fewshot.objectives.plain import task_loss
from metarl.fewshot.objectives.robust import Adversarial, AdversarialConfig, Ball, harm, pgd
from metarl.fewshot.preprocessing import Preprocessing
from metarl.scripts.cli import main

VECTORS = TaskSpec("classification", EpisodeShape(2, 1, 5), Preprocessing((6,)), 2)
IMAGES = TaskSpec("classification", EpisodeShape(3, 1, 4), Preprocessing((1, 4, 4), (-1.0,), (1.0,)), 3)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def linear_query(tasks: int = 3, queries: int = 10) -> tuple[torch.Tensor, Samples]:
    """Weights `[E, D, 2]` of linear scores, and queries."""
    y = torch.arange(queries).remainder(2).expand(tasks, -1)
    return normal(tasks, 6, 2, seed=1), Samples(normal(tasks, queries, 6), y)


def best_attack(weights: torch.Tensor, query: Samples, eps: float) -> torch.Tensor:
    """x + ε sign(w_wrong − w_right): what raises the loss of a linear model of two classes most (FGSM's optimum)."""
    direction = (weights[..., 1] - weights[..., 0]).sign()[:, None]
    return query.x + eps * direction * (1 - 2 * query.y)[..., None]


@pytest.mark.parametrize("random_start", [False, True])
def test_pgd_finds_the_optimum_of_a_linear_model(random_start: bool) -> None:
    weights, query = linear_query()
    ball = Ball.of(VECTORS.preprocessing, 0.3)
    start = ball.sample(query.x, torch.Generator().manual_seed(0)) if random_start else query.x
    attacked = pgd(lambda x: x @ weights, query, start, ball, steps=7, step_size=2.5 / 7)
    torch.testing.assert_close(attacked, best_attack(weights, query, 0.3))


def test_one_full_step_is_the_fast_gradient_sign() -> None:
    weights, query = linear_query()
    attacked = pgd(lambda x: x @ weights, query, query.x, Ball.of(VECTORS.preprocessing, 0.1), steps=1, step_size=1.0)
    torch.testing.assert_close(attacked, best_attack(weights, query, 0.1))


def test_attacks_stay_in_the_ball_and_in_the_range_of_images() -> None:
    query = Samples(uniform(2, 12, 1, 4, 4), torch.arange(12).remainder(3).expand(2, -1))
    weights = normal(2, 16, 3, seed=1)
    ball = Ball.of(IMAGES.preprocessing, 0.2)
    start = ball.sample(query.x, torch.Generator().manual_seed(7))
    assert (start - query.x).abs().max() > 0.19
    attacked = pgd(lambda x: x.flatten(2).tanh() @ weights, query, start, ball, steps=10, step_size=0.25)
    for x in (start, attacked):
        assert (x - query.x).abs().max() <= 0.2 + 1e-6
        assert x.min() >= 0
        assert x.max() <= 1
    assert not attacked.requires_grad


def test_the_radius_of_images_is_in_raw_values() -> None:
    """Whatever scale and shift make of black and white, the ball is that fraction of the way between them."""
    ball = Ball.of(Preprocessing((2, 3, 3), (2.0, -4.0), (-1.0, 1.0)), 0.1)
    assert ball.radius[:, 0, 0].tolist() == pytest.approx([0.2, 0.4])
    assert ball.low[:, 0, 0].tolist() == [-1.0, -3.0]
    assert ball.high[:, 0, 0].tolist() == [1.0, 1.0]


def test_training_descends_the_loss_of_the_attacked_queries() -> None:
    weights, query = linear_query()
    weights.requires_grad_()
    goal = Adversarial(AdversarialConfig(eps=0.3), VECTORS)
    losses, outputs = goal.query_loss(lambda x: x @ weights, query, torch.Generator().manual_seed(0))
    expected = best_attack(weights.detach(), query, 0.3) @ weights
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(losses, task_loss(expected, query))
    losses.sum().backward()  # the way to the parameters is open after the attack
    assert weights.grad is not None
    assert query.x.grad is None


def test_no_steps_train_plainly() -> None:
    weights, query = linear_query()
    goal = Adversarial(AdversarialConfig(attack_steps=0), VECTORS)
    losses, _ = goal.query_loss(lambda x: x @ weights, query, torch.Generator())
    torch.testing.assert_close(losses, task_loss(query.x @ weights, query))


@torch.no_grad()
def test_adversarial_accuracy_of_a_linear_model_is_that_of_the_optimum() -> None:
    weights, query = linear_query(queries=200)
    outputs = query.x @ weights
    goal = Adversarial(AdversarialConfig(eps=0.2), VECTORS)
    measured = goal.measure(lambda x: x @ weights, query, outputs, torch.Generator().manual_seed(0))
    optimum = best_attack(weights, query, 0.2) @ weights
    torch.testing.assert_close(measured["adversarial_accuracy"], (optimum.argmax(-1) == query.y).float().mean(1))
    torch.testing.assert_close(measured["natural_accuracy"], (outputs.argmax(-1) == query.y).float().mean(1))
    assert (measured["adversarial_accuracy"] < measured["natural_accuracy"]).all()


@torch.no_grad()
def test_more_restarts_harm_more() -> None:
    """A rugged model, on which single attacks get stuck: the worst of several is worse for every query."""
    query = Samples(normal(1, 40, 6), torch.arange(40).remainder(2)[None])
    first, second = normal(6, 50, seed=1), normal(50, 2, seed=2)

    def predictor(x: torch.Tensor) -> torch.Tensor:
        return (8 * x @ first).sin() @ second

    outputs = predictor(query.x)
    harms = []
    for restarts in (1, 8):
        goal = Adversarial(AdversarialConfig(eps=0.3, test_restarts=restarts), VECTORS)
        attacked = goal.strongest(predictor, query, outputs, torch.Generator().manual_seed(0))
        assert (attacked - query.x).abs().max() <= 0.3 + 1e-6
        harms.append(harm(predictor(attacked), query))
    assert (harms[0] >= harm(outputs, query) - 1e-5).all()
    assert (harms[1] >= harms[0] - 1e-5).all()
    assert (harms[1] > harms[0] + 0.1).any()


def test_harm_is_positive_where_a_prediction_is_wrong() -> None:
    outputs = torch.tensor([[[3.0, 1.0, 2.0], [0.0, 1.0, 5.0]]])
    assert harm(outputs, Samples(torch.zeros(1, 2, 6), torch.tensor([[0, 1]]))).tolist() == [[-1.0, 4.0]]
    values = Samples(torch.zeros(1, 2, 1), torch.tensor([[[1.0], [2.0]]]))
    assert harm(torch.tensor([[[3.0], [2.0]]]), values).tolist() == [[4.0, 0.0]]


def test_regression_is_attacked_too() -> None:
    """The squared error of a line w x: the worst point is ε away on the side that the error already leans to."""
    spec = TaskSpec("regression", EpisodeShape(1, 5, 5), Preprocessing((1,)), 1)
    query = Samples(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[1.0], [5.0]]]))
    goal = Adversarial(AdversarialConfig(eps=0.5), spec)
    with torch.no_grad():
        measured = goal.measure(lambda x: 2 * x, query, 2 * query.x, torch.Generator().manual_seed(0))
    assert measured["natural_mse"].item() == pytest.approx((1 + 1) / 2)
    assert measured["adversarial_mse"].item() == pytest.approx((4 + 4) / 2)


def test_the_attack_at_test_time_must_be_the_stronger_one() -> None:
    with pytest.raises(UsageError, match="the test needs a stronger attack than training"):
        AdversarialConfig(attack_steps=20)
    with pytest.raises(UsageError, match="eps must be positive"):
        AdversarialConfig(eps=0.0)
    with pytest.raises(UsageError, match="attack_step_size must be positive"):
        AdversarialConfig(attack_step_size=-1.0)


def test_a_run_tells_of_both_accuracies(tmp_path: Path) -> None:
    """Raw digits after a few steps: the attack at test time takes some of the accuracy away."""
    path = tmp_path / "run"
    options = ["--objective", "adversarial", "--eps", "0.02", "--iterations", "5", "--episodes", "20"]
    assert main(["fewshot", "protonet", "--data", "digits", *options, "--output", str(path)]) == 0
    result = json.loads((path / "evaluation.json").read_text())
    natural, adversarial = (result["metrics"][f"{kind}_accuracy"] for kind in ("natural", "adversarial"))
    assert natural["mean"] == pytest.approx(result["accuracy"])
    assert adversarial["mean"] < natural["mean"] - 0.05
    assert adversarial["ci95"] is None  # the test has five classes, and each episode all of them
    assert result["interval"].startswith("none over classes: 5 are too few")
