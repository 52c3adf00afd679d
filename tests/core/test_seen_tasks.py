"""Test tasks that were training tasks are refused, unless the family of the training has them in both splits itself."""

import pytest
import torch

import metarl
from metarl.distribution import TaskDistribution
from metarl.envs.native.point_navigation import PointNavigation
from metarl.seen_tasks import check_unseen, num_shared, seen_tasks
from metarl.tasks import Tasks


class Listed(PointNavigation):
    """Goals at these places on the x axis."""

    def __init__(self, train: list[float], test: list[float]):
        super().__init__(horizon=3)
        self.places = {"train": train, "test": test}

    def all_tasks(self, split: str) -> Tasks:
        places = torch.tensor(self.places[split])
        return Tasks({"goal": torch.stack([places, torch.zeros_like(places)], dim=1)})

    _sample = TaskDistribution._sample


@pytest.fixture
def agent() -> metarl.Agent:
    agent = metarl.TrainConfig("random", Listed([0.1, 0.2, 0.3], [0.3, 0.4]), agent_options=SMALL).resolve().make()
    assert agent.trained_on.places["train"] == [0.1, 0.2, 0.3]
    return agent


SMALL = {"num_tasks": 2, "envs_per_task": 1}


def test_tasks_are_compared_by_all_their_values():
    family = Listed([0.1, 0.2, 0.3], [0.3, 0.4])
    goals = [[0.1, 0.0], [0.1, 0.05], [0.2, 0.0], [0.3, 0.0], [0.4, 0.0], [0.5, 0.0]]
    expected = [True, False, True, False, False, False]  # 0.3 is in both splits of the training's family
    for dtype in (torch.float32, torch.float64):
        assert seen_tasks(family, Tasks({"goal": torch.tensor(goals, dtype=dtype)})).tolist() == expected
    assert not seen_tasks(family, Tasks({"place": torch.tensor(goals)})).any()
    assert not seen_tasks(family, Tasks({"goal": torch.zeros(2, 3)})).any()


def test_large_whole_numbers_are_not_rounded():
    """A parameter may be the seed of a level."""

    class Levels(Listed):
        def __init__(self):
            super().__init__([], [])
            self.task_space = {"level": metarl.make("ML1-reach-v3").task_space["task_index"]}

        def all_tasks(self, split):
            return Tasks({"level": torch.tensor([2**31])})

    assert seen_tasks(Levels(), Tasks({"level": torch.tensor([2**31 + 1])})).tolist() == [False]


def test_an_evaluation_on_training_tasks_is_refused(agent: metarl.Agent):
    other = Listed([0.5], [0.2, 0.1, 0.4])
    with pytest.raises(metarl.UsageError, match=r"2 of 3 test tasks of PointNavigation-v0 are training tasks"):
        metarl.evaluate(agent, other, num_tasks=3)
    metarl.evaluate(agent, other, num_tasks=3, allow_training_tasks=True)
    metarl.evaluate(agent, other, num_tasks=3, split="train")
    metarl.evaluate(agent, Listed([0.5], [-0.4]), num_tasks=3)
    with pytest.raises(metarl.UsageError, match="1 of 1 test tasks"):
        metarl.evaluate(agent, other, tasks=other.task(goal=[0.1, 0.0]))


def test_the_family_of_the_training_is_never_refused(agent: metarl.Agent):
    assert metarl.evaluate(agent, agent.trained_on, num_tasks=4).distinct_tasks == 2
    metarl.evaluate(agent, Listed([0.1, 0.2, 0.3], [0.3, 0.4]), num_tasks=4)
    metarl.evaluate(agent, agent.trained_on, num_tasks=4, split="train")


@pytest.mark.parametrize("id", ["HalfCheetahDir-v0", "AntDir-v0", "MT1-push-v3", "ML1-push-v3", "PointNavigation-v0"])
def test_the_built_in_families_pass_as_they_are(id: str):
    family = metarl.make(id)
    check_unseen(metarl.make(id), family.sample(60, split="test", seed=1), family)


def test_goals_of_the_next_seed_leak():
    """Meta-World's test goals of a seed are the training goals of the next."""
    trained, other = metarl.make("ML1-push-v3", goals_seed=1), metarl.make("ML1-push-v3")
    assert seen_tasks(trained, other.all_tasks("test")).sum() == 50
    assert not seen_tasks(trained, metarl.make("ML1-push-v3", goals_seed=2).all_tasks("test")).any()


def test_an_agent_of_no_run_is_not_examined():
    family = Listed([0.1], [0.1])
    agent = metarl.registry.agent_class("random")(metarl.AgentConfig(2, 1), metarl.EnvSpec.of(family))
    assert agent.trained_on is None
    metarl.evaluate(agent, family, num_tasks=1)


def test_tasks_that_only_the_training_family_shares_between_its_splits_leak_into_another_family():
    """Trained on a list without splits, tested on another family that holds the same tasks out."""

    def family(parameters):
        return metarl.GymnasiumDistribution(
            "Pendulum", "Pendulum-v1", parameters={"g": parameters}, apply=lambda env, task: None, vectorization="sync"
        )

    with pytest.warns(UserWarning, match="training tasks too"):
        shared = family([5.0, 10.0])
    other = family({"train": [1.0], "test": [5.0, 10.0]})
    check_unseen(shared, shared.all_tasks("test"), shared)
    assert num_shared(shared) == 2
    with pytest.raises(metarl.UsageError, match="2 of 2 test tasks"):
        check_unseen(shared, other.all_tasks("test"), other)
