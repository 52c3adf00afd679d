"""The meta-test protocol: stages, budgets, per-task means, and its JSON."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import metarl
from metarl import Agent, AgentConfig, EnvSpec, Evaluation, Tasks, UsageError, collect, evaluate
from metarl.registry import agent_class
from metarl.rollout import FunctionPolicy


class Walker(Agent):
    """Walks right, by 0.01 more for each episode of adaptation; notes what it is asked."""

    config_class = AgentConfig

    def __init__(self, family):
        super().__init__(AgentConfig(num_tasks=2, envs_per_task=3), EnvSpec.of(family))
        self.asked = []

    def adapt(self, env, episodes, *, seed=0, policy=None):
        self.asked.append((episodes, policy))
        speed = (0.0 if policy is None else policy.speed) + 0.01 * episodes
        adapted = FunctionPolicy(lambda observations: torch.tensor([speed, 0.0]).expand_as(observations))
        adapted.speed = speed
        return adapted

    def improve(self, env, *, seed):
        raise AssertionError("evaluation must not train")

    def state(self):
        return {}, {}

    def load_state(self, tensors, values):
        pass


@pytest.fixture
def family():
    return metarl.make("PointNavigation-v0", horizon=7)


def test_each_stage_spends_its_share_and_measures_one_fresh_episode(family):
    agent = Walker(family)
    evaluation = evaluate(agent, family, num_tasks=5, episodes=3, seed=2)
    tasks = family.sample(5, split="test", seed=2)
    assert evaluation.tasks == tasks
    assert evaluation.episodes_used == [0, 1, 2, 3]
    assert evaluation.success is None
    assert [episodes for episodes, _ in agent.asked] == [0, 0, 1, 0, 1, 0, 1, 0]
    for stage in range(4):
        position = 0.01 * stage * torch.arange(1, 8)[:, None]
        goal = tasks.parameters["goal"]
        returns = -((position - goal[:, 0]).square() + goal[:, 1].square()).sum(0)
        torch.testing.assert_close(evaluation.returns[:, stage], returns, rtol=1e-4, atol=1e-4)


def test_scores_are_means_over_the_environments_of_a_task(family):
    family = metarl.make("SparsePointNavigation-v0", goal_radius=1.0)
    agent = agent_class("random")(agent_class("random").config_class(envs_per_task=4), EnvSpec.of(family))
    evaluation = evaluate(agent, family, num_tasks=3, seed=1)
    assert evaluation.episodes_used == [0]
    assert evaluation.returns.shape == evaluation.success.shape == (3, 1)
    assert set((4 * evaluation.success).flatten().tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}

    class Spy(type(agent)):
        def adapt(self, env, episodes, **options):
            self.env, self.policy = env, super().adapt(env, episodes, **options)
            self.start = self.policy.generator.get_state()
            return self.policy

    spy = Spy(agent.config, EnvSpec.of(family))
    assert torch.equal(evaluate(spy, family, num_tasks=3, seed=1).returns, evaluation.returns)
    spy.policy.generator.set_state(spy.start)
    again = collect(spy.env, spy.policy, family.horizon)
    manual = again.rewards.sum(0).mean(-1)
    torch.testing.assert_close(evaluation.returns[:, 0], manual)
    torch.testing.assert_close(evaluation.success[:, 0], again.success.any(0).float().mean(-1))


def test_a_seed_decides_everything(family):
    agent = agent_class("random")(agent_class("random").config_class(envs_per_task=2), EnvSpec.of(family))
    one, same, other = (evaluate(agent, "PointNavigation-v0", num_tasks=3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.returns, same.returns)
    assert one.tasks == same.tasks
    assert one.tasks != other.tasks


def test_the_split_and_the_number_of_environments_can_be_said(family):
    evaluation = evaluate(Walker(family), family, num_tasks=2, episodes=1, split="train", envs_per_task=1, seed=0)
    assert evaluation.tasks == family.sample(2, split="train", seed=0)


@pytest.mark.parametrize("wrong", [{"num_tasks": 0}, {"episodes": 0}, {"split": "no"}, {"backend": "no"}])
def test_wrong_arguments_are_refused(family, wrong):
    with pytest.raises(UsageError):
        evaluate(Walker(family), family, **wrong)


@pytest.fixture
def evaluation() -> Evaluation:
    rng = np.random.default_rng(0)
    returns = torch.as_tensor(rng.normal(size=(8, 2)), dtype=torch.float32)
    tasks = Tasks({"task_index": torch.arange(8) // 4, "goal": torch.as_tensor(rng.normal(size=(8, 2)))})
    return Evaluation(returns, (returns > 0).float(), [0, 5], tasks)


def test_json_gives_the_evaluation_back(evaluation):
    evaluation = dataclasses.replace(evaluation, iteration=3, drawn_from="outside")
    again = Evaluation.from_json(evaluation.to_json())
    assert torch.equal(again.returns, evaluation.returns)
    assert (again.iteration, again.drawn_from) == (3, "outside")
    assert torch.equal(again.success, evaluation.success)
    assert again.episodes_used == [0, 5]
    assert again.tasks == evaluation.tasks
    assert again.summary() == evaluation.summary()
    data = json.loads(evaluation.to_json())
    assert list(data) == [
        "returns",
        "success",
        "episodes_used",
        "tasks",
        "protocol",
        "faults",
        "family",
        "family_options",
        "horizon",
        "iteration",
        "drawn_from",
        "summary",
    ]
    assert Evaluation.from_json(dataclasses.replace(evaluation, iteration=3).to_json()).iteration == 3
    for wrong in (-1, "3", 1.5):
        with pytest.raises(UsageError, match="iteration is nothing of that kind"):
            Evaluation.from_json(json.dumps(data | {"iteration": wrong}))


def test_json_without_success(evaluation):
    without = Evaluation(evaluation.returns, None, evaluation.episodes_used, evaluation.tasks)
    assert Evaluation.from_json(without.to_json()).success is None
    assert not any(key.startswith("success") for row in without.summary() for key in row)


def test_summary_has_mean_middle_mean_and_interval_of_every_stage(evaluation):
    rows = evaluation.summary()
    assert [row["episodes_used"] for row in rows] == [0, 5]
    for stage, row in enumerate(rows):
        scores = evaluation.returns[:, stage].double().numpy()
        assert row["return_mean"] == pytest.approx(scores.mean())
        assert row["return_iqm"] == pytest.approx(np.sort(scores)[2:6].mean())
        assert row["return_low"] < row["return_mean"] < row["return_high"]
        assert row["success_mean"] == pytest.approx((scores > 0).mean())


def test_copies_of_a_task_are_pooled_before_anything_is_said_of_tasks():
    """Each of six tasks ten times: the interval is that of six means, not of sixty numbers."""
    rng = np.random.default_rng(0)
    means = torch.as_tensor(rng.normal(size=(6, 2)), dtype=torch.float32)
    noise = torch.as_tensor(rng.normal(size=(10, 6, 2)), dtype=torch.float32)
    noise -= noise.mean(0)
    goals = torch.arange(6.0)
    copied = Evaluation((means + noise).flatten(0, 1), None, [0, 5], Tasks({"goal": goals.repeat(10)}))
    once = Evaluation(means, None, [0, 5], Tasks({"goal": goals}))
    assert copied.distinct_tasks == 6
    assert copied.note is None
    for mine, expected in zip(copied.summary(), once.summary(), strict=True):
        assert mine == {name: pytest.approx(value, abs=1e-5) for name, value in expected.items()}
        assert (mine["tasks"], mine["interval"]) == (6, "tasks")


def test_fewer_than_five_tasks_have_no_interval_but_the_spread_of_repetitions():
    returns = torch.tensor([1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 50.0])[:, None]
    tasks = Tasks({"direction": torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0, -1.0])})
    evaluation = Evaluation(returns, None, [0], tasks)
    (row,) = evaluation.summary()
    assert (row["tasks"], row["interval"]) == (2, "repetitions")
    assert row["return_mean"] == pytest.approx((2 + 27.5) / 2)  # each task counts once, however often it came
    assert (row["return_low"], row["return_high"]) == (5.5, 16.5)  # (1 + 10) / 2 and (3 + 30) / 2
    assert evaluation.note == "2 tasks only: the range is that of 3 repetitions of them, not an interval over tasks"
    (row,) = Evaluation(returns[:2], None, [0], tasks[:2]).summary()
    assert (row["return_low"], row["return_high"]) == (None, None)
    assert "once each" in Evaluation(returns[:2], None, [0], tasks[:2]).note


def test_the_two_directions_of_the_cheetah_are_two_tasks():
    family = metarl.make("HalfCheetahDir-v0", horizon=3)
    agent = agent_class("random")(agent_class("random").config_class(envs_per_task=1), EnvSpec.of(family))
    evaluation = evaluate(agent, family, num_tasks=6)
    assert evaluation.distinct_tasks == 2
    assert evaluation.summary()[0]["interval"] == "repetitions"


def test_summary_resamples_within_task_classes():
    returns = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])[:, None]
    classes = Tasks({"task_index": torch.tensor([0, 0, 0, 1, 1, 1]), "goal": torch.arange(6)})
    row = Evaluation(returns, None, [0], classes).summary()[0]
    assert row["return_low"] == row["return_high"] == 0.5


def test_an_unknown_protocol_and_one_that_the_family_lacks_are_refused(family):
    for protocol in ("ours", "metaworld"):
        with pytest.raises(UsageError, match=f"has no protocol '{protocol}': choose from per-task"):
            evaluate(Walker(family), family, num_tasks=2, protocol=protocol)
