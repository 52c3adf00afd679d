"""Intervals of gaps between groups, of which one has few different examples."""

import numpy as np
import pytest
import torch

from metarl import UsageError
from metarl.fewshot import DataConfig, EpisodeShape, evaluate
from metarl.fewshot.data import LabelledData
from metarl.fewshot.data.tables import FavourablePool
from metarl.fewshot.episodes import Members, TaskSpec
from metarl.fewshot.export import Embedding
from metarl.fewshot.learners.maml import ANIL, MAMLConfig
from metarl.fewshot.learners.protonet import ProtoNet, ProtoNetConfig
from metarl.fewshot.objectives.fairness import Fairness, FairnessConfig
from metarl.fewshot.preprocessing import Preprocessing

ROWS = 100
SHAPE = EpisodeShape(2, 2, 12)


class Applicants(LabelledData):
    """Rows of two classes, `rare` of each in the second group; `visits` rows of each person, if not one."""

    preprocessing = Preprocessing((2,))

    def __init__(self, rare: int, seed: int = 0, visits: int = 1) -> None:
        super().__init__(DataConfig())
        generator, ids = torch.Generator().manual_seed(seed), torch.arange(2 * ROWS)
        y, groups = ids // ROWS, (ids % ROWS >= ROWS - rare).long()
        x = torch.randn(2 * ROWS, 2, generator=generator)
        x[:, 0] += 1.2 * (2 * y - 1)
        name = "rows" if visits == 1 else "values of person"
        pool = FavourablePool(x, y, groups, favourable=1, units=ids // visits, unit_name=name, ids=ids)
        self.pools = {"train": pool, "test": pool}


def gaps(data: Applicants, seed: int = 0, episodes: int = 100) -> dict[str, dict[str, float | str | None]]:
    spec = TaskSpec("classification", SHAPE, Preprocessing((2,)), 2)
    learner = ProtoNet(ProtoNetConfig(hidden=(4,)), spec, objective=Fairness(FairnessConfig(), spec), seed=0)
    return evaluate(learner, data, episodes=episodes, shape=SHAPE, seed=seed)["metrics"]


def test_a_gap_over_few_different_examples_has_no_interval_and_says_why() -> None:
    few, some, many = (gaps(Applicants(rare)) for rare in (3, 7, 20))
    for name in (
        "parity_gap",
        "disparate_impact",
        "worst_group_accuracy",
        "equal_opportunity_gap",
        "equalised_odds_gap",
    ):
        assert few[name]["ci95"] is None
        assert "different examples are too few (want 10)" in str(few[name]["interval"])
        assert many[name]["ci95"] is not None
        assert str(many[name]["interval"]).startswith("over 200 rows")
    assert some["parity_gap"]["ci95"] is not None  # 14 of both classes, 7 of each
    assert str(some["equal_opportunity_gap"]["interval"]).startswith("none: 7 different examples")
    assert few["empty_groups"]["ci95"] is not None


def test_rows_of_one_person_count_once() -> None:
    different = gaps(Applicants(20, visits=10))["parity_gap"]
    assert different["ci95"] is None
    assert "4 different examples" in str(different["interval"])
    ones = torch.tensor([[0, 0, 1, 2]])
    members = Members("values of person", ones, ones, ones, ones, query_ids=torch.arange(4)[None])
    assert members.different(ones < 2) == {0, 1}
    assert Members("rows", ones, ones, ones, ones).different(ones < 2) is None


def test_intervals_that_are_given_hold_the_mean_over_all_pools() -> None:
    found = [gaps(Applicants(20, seed), seed, episodes=40)["parity_gap"] for seed in range(40)]
    means, halves = (np.array([row[key] for row in found], dtype=float) for key in ("mean", "ci95"))
    assert np.mean(np.abs(means - means.mean()) < halves) > 0.85


def test_an_embedding_that_depends_on_its_neighbours_is_not_exported() -> None:
    spec = TaskSpec("classification", EpisodeShape(2, 2, 2), Preprocessing((1, 16, 16)), 2)
    with pytest.raises(UsageError, match="normalised by the examples that it is given together: train with --norm"):
        Embedding(ANIL(MAMLConfig(width=4), spec))
    alone = Embedding(ANIL(MAMLConfig(width=4, normalisation="none"), spec))
    x = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(alone(x)[:1], alone(x[:1]))
