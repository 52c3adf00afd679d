"""Sets of tasks: what is drawn from them, sets of one's own, and mistakes in them."""

import pytest
import torch

import metarl
from metarl import UsageError
from metarl.envs.metaworld.task_sets import SETS
from metarl.envs.metaworld.tasks import definition


@pytest.mark.parametrize(("id", "split", "names"), [("ML10-v3", "train", 10), ("ML10-v3", "test", 5)])
def test_sampling_covers_every_name_evenly_and_no_goal_twice(id, split, names):
    distribution = metarl.make(id)
    for count in (names, 3 * names, 3 * names + 2, 50 * names):
        tasks = distribution.sample(count, split=split, seed=count)
        counts = torch.bincount(tasks.parameters["task_index"])
        counts = counts[counts > 0]
        assert len(counts) == names
        assert counts.max() - counts.min() <= 1
        rows = torch.cat([tasks.parameters["task_index"][:, None].double(), tasks.parameters["rand_vec"]], 1)
        assert len(rows.unique(dim=0)) == count
    assert len(distribution.sample(50 * names + 3, split=split, seed=0)) == 50 * names + 3


def test_splits_of_a_set_of_ones_own():
    train = ["door-open-v3", "bin-picking-v3", "door-close-v3", "drawer-open-v3", "coffee-pull-v3"]
    distribution = metarl.make("ML-custom", train=train, test=["reach-v3"])
    assert distribution.names == (*train, "reach-v3")
    assert set(distribution.all_tasks("train").parameters["task_index"].tolist()) == set(range(5))
    assert set(distribution.all_tasks("test").parameters["task_index"].tolist()) == {5}
    assert metarl.make("ML-custom").split_names == SETS["ML10"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": ["reach-v2"]}, "unknown Meta-World task 'reach-v2': did you mean .*reach-v3"),
        ({"train": ["reach-v3"], "test": ["push-v3", "reach-v3"]}, "reach-v3 is in both train and test"),
        ({"train": ["push-v3", "push-v3"]}, "push-v3 is named twice in train"),
        ({"train": []}, "train must be a list of Meta-World task names"),
        ({"test": "reach-v3"}, "test must be a list of Meta-World task names"),
        ({"reward": "v3"}, "unknown reward 'v3': choose from v2, v1"),
    ],
)
def test_wrong_sets_are_one_clear_line(options, message):
    with pytest.raises(UsageError, match=message) as caught:
        metarl.make("ML-custom", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("id", ["ML1-reech-v3", "ML1-reach-v2", "MT1-raech-v3"])
def test_an_unknown_task_names_near_matches(id):
    with pytest.raises(UsageError, match=rf"unknown environment '{id}'; did you mean .*{id[:3]}-reach-v3"):
        metarl.make(id)


def test_a_definition_that_is_not_there():
    with pytest.raises(UsageError, match="unknown Meta-World task 'hamer-v3': did you mean hammer-v3"):
        definition("hamer-v3")
