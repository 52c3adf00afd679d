"""Group fairness against confusion tables by hand, closed forms and finite differences."""

import json
import math
from pathlib import Path

import pytest
import torch

from metarl import UsageError
from metarl.fewshot.data import open_data
from metarl.fewshot.episodes import Episodes, EpisodeShape, Samples, TaskSpec
from metarl.fewshot.learners import learner_class
from metarl.fewshot.objectives.fairness import (
    Fairness,
    FairnessConfig,
    fairness_metrics,
    log_odds,
    squared_covariance,
    squared_difference,
)
from metarl.fewshot.objectives.plain import Objective, ObjectiveConfig
from metarl.fewshot.preprocessing import Preprocessing
from metarl.fewshot.run import FewShotConfig
from metarl.scripts.cli import main

SPEC = TaskSpec("classification", EpisodeShape(2, 4, 4), Preprocessing((3,)), 2)
GROUPS = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]])
LABELS = torch.tensor([[1, 1, 0, 1, 1, 1, 0, 0]])
DECISIONS = torch.tensor([[1, 0, 0, 1, 1, 0, 1, 1]])
#  group 0: y=1: 1 of 2 favoured, y=0: 0 of 1      → favoured 1/3, right 2/3
#  group 1: y=1: 2 of 3 favoured, y=0: 2 of 2      → favoured 4/5, right 2/5


def metrics_of(decisions: torch.Tensor, labels: torch.Tensor, groups: torch.Tensor, num_groups: int = 2) -> dict:
    return fairness_metrics(decisions == 1, labels == 1, decisions == labels, groups, num_groups)


def objective(**options: object) -> Fairness:
    return Fairness(FairnessConfig(**options), SPEC)


def scores(seed: int = 0, ways: int = 2) -> torch.Tensor:
    return torch.randn(1, 8, ways, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_metrics_of_a_confusion_table() -> None:
    metrics = {name: float(value) for name, value in metrics_of(DECISIONS, LABELS, GROUPS).items()}
    assert metrics == pytest.approx(
        {
            "parity_gap": 4 / 5 - 1 / 3,
            "disparate_impact": (1 / 3) / (4 / 5),
            "equal_opportunity_gap": 2 / 3 - 1 / 2,
            "equalised_odds_gap": 1.0,
            "worst_group_accuracy": 2 / 5,
        }
    )


def test_three_groups_are_compared_from_the_best_to_the_worst() -> None:
    groups = torch.tensor([[0, 0, 1, 1, 2, 2]])
    decisions = torch.tensor([[1, 1, 1, 0, 0, 0]])
    metrics = metrics_of(decisions, torch.ones_like(decisions), groups, 3)
    assert metrics["parity_gap"].item() == 1.0
    assert metrics["disparate_impact"].item() == 0.0
    assert metrics["worst_group_accuracy"].item() == 0.0


def test_an_empty_group_is_nan_and_not_zero() -> None:
    metrics = metrics_of(DECISIONS, LABELS, torch.zeros_like(GROUPS))
    assert all(value.isnan().all() for value in metrics.values())


def test_a_group_without_favourable_labels_leaves_demographic_parity() -> None:
    labels = LABELS.masked_fill(GROUPS == 0, 0)
    metrics = metrics_of(DECISIONS, labels, GROUPS)
    assert metrics["parity_gap"].item() == pytest.approx(4 / 5 - 1 / 3)
    assert metrics["equal_opportunity_gap"].isnan()
    assert metrics["equalised_odds_gap"].isnan()


def test_no_favourable_decision_has_no_disparate_impact() -> None:
    metrics = metrics_of(torch.zeros_like(DECISIONS), LABELS, GROUPS)
    assert metrics["disparate_impact"].isnan()
    assert metrics["parity_gap"].item() == 0


def test_measuring_counts_empty_groups() -> None:
    x = torch.zeros(2, 8, 3)
    groups = torch.cat([GROUPS, torch.zeros_like(GROUPS)])
    query = Samples(x, LABELS.expand(2, -1), groups)
    outputs = torch.nn.functional.one_hot(DECISIONS.expand(2, -1), 2).float()
    measured = objective().measure(lambda x: outputs, query, outputs, torch.Generator())
    assert measured["empty_groups"].tolist() == [0, 1]
    assert measured["parity_gap"].isnan().tolist() == [False, True]
    noted = objective().check(Episodes(query, query))
    assert noted == {"empty_groups": 0.5}


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        ("demographic-parity", lambda p: (p[:3].mean() - p[3:].mean()) ** 2),
        ("equal-opportunity", lambda p: (p[:2].mean() - p[3:6].mean()) ** 2),
        ("equalised-odds", lambda p: ((p[:2].mean() - p[3:6].mean()) ** 2 + (p[2] - p[6:].mean()) ** 2) / 2),
    ],
)
def test_the_difference_penalty_by_hand(criterion: str, expected: object) -> None:
    outputs = scores()
    penalty = objective(criterion=criterion).penalty(outputs, Samples(torch.zeros(1, 8, 3), LABELS, GROUPS))
    torch.testing.assert_close(penalty[0], expected(outputs.softmax(-1)[0, :, 1]))  # type: ignore[operator]


def test_the_covariance_penalty_is_the_squared_sample_covariance() -> None:
    outputs = scores()
    penalty = objective(surrogate="covariance").penalty(outputs, Samples(torch.zeros(1, 8, 3), LABELS, GROUPS))
    margin = outputs[0, :, 1] - outputs[0, :, 0]
    covariance = torch.cov(torch.stack([GROUPS[0].double(), margin]), correction=0)[0, 1]
    torch.testing.assert_close(penalty[0], covariance**2)


def test_log_odds_of_one_class_among_three() -> None:
    outputs = scores(ways=3)
    p = outputs.softmax(-1)[..., 1]
    torch.testing.assert_close(log_odds(outputs, 1), (p / (1 - p)).log())


@pytest.mark.parametrize("surrogate", [squared_difference, squared_covariance])
def test_penalties_of_equal_groups_are_zero_and_of_unequal_ones_not(surrogate: object) -> None:
    values = torch.tensor([[1.0, 2.0, 3.0, 1.0, 2.0, 3.0]])
    groups = torch.tensor([[0, 0, 0, 1, 1, 1]])
    everyone = torch.ones_like(groups, dtype=torch.bool)
    assert surrogate(values, groups, everyone, 2).item() == pytest.approx(0)  # type: ignore[operator]
    assert surrogate(values * (1 + groups), groups, everyone, 2).item() > 0.1  # type: ignore[operator]


@pytest.mark.parametrize("surrogate", ["difference", "covariance"])
@pytest.mark.parametrize("criterion", ["demographic-parity", "equalised-odds"])
def test_gradients_of_penalties(surrogate: str, criterion: str) -> None:
    loss = objective(surrogate=surrogate, criterion=criterion, penalty_inside=3.0)
    support = Samples(torch.zeros(1, 8, 3), LABELS, GROUPS)
    assert torch.autograd.gradcheck(lambda outputs: loss.support_loss(outputs, support), scores().requires_grad_())


@pytest.mark.parametrize("surrogate", ["difference", "covariance"])
def test_an_empty_group_leaves_a_penalty_of_nothing_with_finite_gradients(surrogate: str) -> None:
    outputs = scores().requires_grad_()
    alone = Samples(torch.zeros(1, 8, 3), LABELS, torch.ones_like(GROUPS))
    penalty = objective(surrogate=surrogate, criterion="equalised-odds").penalty(outputs, alone)
    penalty.sum().backward()
    assert penalty.item() == pytest.approx(0)
    assert outputs.grad is not None
    assert outputs.grad.abs().max() < 1e-12


def test_a_third_group_without_examples_changes_no_penalty() -> None:
    samples = Samples(torch.zeros(1, 8, 3), LABELS, GROUPS)
    for surrogate in ("difference", "covariance"):
        two, three = (objective(surrogate=surrogate, num_groups=n).penalty(scores(), samples) for n in (2, 3))
        torch.testing.assert_close(two, three)


def test_weights_add_the_penalty_inside_and_outside() -> None:
    outputs, query = scores(), Samples(torch.zeros(1, 8, 3), LABELS, GROUPS)
    weighted, plain = objective(penalty_inside=2.0, penalty_outside=5.0), Objective(ObjectiveConfig(), SPEC)
    penalty, base = weighted.penalty(outputs, query), plain.support_loss(outputs, query)
    torch.testing.assert_close(weighted.support_loss(outputs, query), base + 2 * penalty)
    losses, _ = weighted.query_loss(lambda x: outputs, query, torch.Generator())
    torch.testing.assert_close(losses, base + 5 * penalty)
    off = objective(penalty_inside=0.0, penalty_outside=0.0)
    torch.testing.assert_close(off.support_loss(outputs, query), base)


def test_an_option_has_kept_its_meaning_under_its_former_name() -> None:
    config = FewShotConfig("maml", "biased", "fairness", objective_options={"favourable": 0}, episodes=10)
    assert config.resolve().config.objective_options.favourable_label == 0


def test_what_is_wrong_is_said() -> None:
    samples = Samples(torch.zeros(1, 8, 3), LABELS)
    with pytest.raises(UsageError, match="needs the group of each example"):
        objective().check(Episodes(samples, samples))
    samples = Samples(torch.zeros(1, 8, 3), LABELS, 2 * GROUPS)
    with pytest.raises(UsageError, match="a group 2: num_groups is 2"):
        objective().penalty(scores(), samples)
    with pytest.raises(UsageError, match="favourable_label must be a label from 0 to 1"):
        objective(favourable_label=2)
    with pytest.raises(UsageError, match="penalty_inside must be at least 0"):
        objective(penalty_inside=-1.0)
    with pytest.raises(UsageError, match="num_groups must be at least 2"):
        objective(num_groups=1)
    regression = TaskSpec("regression", EpisodeShape(1, 5, 5), Preprocessing((1,)), 1)
    with pytest.raises(UsageError, match="regression has no favourable class"):
        Fairness(FairnessConfig(), regression)


class TestBiasedTables:
    def test_shares_of_the_groups_and_means_of_the_features(self) -> None:
        data = open_data("biased", {"bias": 0.4, "signal": 1.5, "leak": 2.0, "merit": 3, "proxies": 2})
        query = data.episodes("test", 50, EpisodeShape(2, 5, 500), seed=0).query
        assert query.groups is not None
        favourable = query.y == 1
        assert favourable.float().mean(1).tolist() == [0.5] * 50
        share = query.groups[favourable].float().mean() - query.groups[~favourable].float().mean()
        assert float(share) == pytest.approx(0.4, abs=0.02)
        for columns, bits, distance in ((slice(0, 3), query.y, 1.5), (slice(3, 5), query.groups, 2.0)):
            signs = 2.0 * bits - 1
            means = (query.x[..., columns] * signs[..., None]).mean(1)
            assert means.norm(dim=1).mean().item() == pytest.approx(distance, abs=0.02)

    def test_deciding_by_merit_has_the_gap_of_the_formula(self) -> None:
        data = open_data("biased", {"bias": 0.4, "signal": 0.85})
        query = data.episodes("test", 50, EpisodeShape(2, 5, 1000), seed=1).query
        assert query.groups is not None
        merit = query.x[..., :4]
        direction = (merit * (2.0 * query.y - 1)[..., None]).mean(1, keepdim=True)
        decisions = ((merit * direction).sum(-1) > 0).long()
        metrics = metrics_of(decisions, query.y, query.groups)
        right = 0.5 * (1 + math.erf(0.85 / math.sqrt(2)))
        assert (decisions == query.y).float().mean().item() == pytest.approx(right, abs=0.01)
        assert metrics["parity_gap"].mean().item() == pytest.approx(0.4 * (2 * right - 1), abs=0.02)

    def test_same_seed_same_episodes_and_tasks_differ(self) -> None:
        data, shape = open_data("biased"), EpisodeShape(2, 3, 4)
        first, again = (data.episodes("train", 2, shape, seed=5) for _ in range(2))
        assert torch.equal(first.query.x, again.query.x)
        assert not torch.equal(first.query.x, data.episodes("test", 2, shape, seed=5).query.x)

    def test_wrong_options(self) -> None:
        with pytest.raises(UsageError, match="3 ways cannot be drawn"):
            open_data("biased").episodes("train", 1, EpisodeShape(3, 1, 1), seed=0)
        with pytest.raises(UsageError, match=r"bias must lie in \[0, 1\]"):
            open_data("biased", {"bias": 1.5})


def test_adapting_with_the_penalty_lowers_the_gap_of_the_support_set() -> None:
    data = open_data("biased", {"bias": 0.8})
    spec = data.spec(EpisodeShape(2, 50, 50))
    support = data.episodes("test", 8, spec.shape, seed=0).support
    config = learner_class("maml").default_config(spec)
    penalties = {}
    for weight in (0.0, 10.0):
        goal = Fairness(FairnessConfig(penalty_inside=weight), spec)
        learner = learner_class("maml")(config, spec, objective=goal, seed=0)
        penalties[weight] = float(goal.penalty(learner.adapt(support)(support.x), support).mean().detach())
    assert penalties[10.0] < penalties[0.0] / 2


def test_predicting_takes_the_groups_of_a_users_support_set() -> None:
    data = open_data("biased", {"bias": 0.8})
    spec = data.spec(EpisodeShape(2, 20, 20))
    goal = Fairness(FairnessConfig(penalty_inside=10.0), spec)
    learner = learner_class("maml")(learner_class("maml").default_config(spec), spec, objective=goal, seed=0)
    episode = data.episodes("test", 1, spec.shape, seed=0)
    x, y, groups, query = episode.support.x[0], episode.support.y[0], episode.support.groups[0], episode.query.x[0]
    predicted = learner.predict(x, y, query, support_groups=groups)
    expected = learner.adapt(episode.support)(episode.query.x)[0].softmax(-1)
    torch.testing.assert_close(predicted, expected.detach())
    with pytest.raises(UsageError, match="needs the group of each example"):
        learner.predict(x, y, query)
    with pytest.raises(UsageError, match="support_groups 3"):
        learner.predict(x, y, query, support_groups=[0, 1, 0])


def test_a_run_tells_of_fairness_with_intervals_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """One query of each class: often both are of one group, which leaves the episode out, counted."""
    path = tmp_path / "run"
    options = ["--objective", "fairness", "--iterations", "2", "--episodes", "40", "--queries", "1"]
    assert main(["fewshot", "maml", "--data", "biased", *options, "--output", str(path)]) == 0
    metrics = json.loads((path / "evaluation.json").read_text())["metrics"]
    assert 0 < metrics["parity_gap"]["empty"] < 40
    assert metrics["parity_gap"]["ci95"] > 0
    assert metrics["empty_groups"]["mean"] == pytest.approx(metrics["parity_gap"]["empty"] / 40)
    assert "empty_groups" in json.loads((path / "metrics.jsonl").read_text().splitlines()[0])

    wrong = tmp_path / "wrong"
    assert main(["fewshot", "maml", "--data", "wine", *options, "--output", str(wrong)]) == 2
    assert "needs the group of each example" in capsys.readouterr().err
    assert not wrong.exists()
