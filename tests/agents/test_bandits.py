"""Bandit policies: indices against published ones, returns against Duan et al. (2016), and what they refuse."""

import pytest
import torch
from practice import train

import metarl
from metarl.agents.bandits import MOST_PULLS, CountsPolicy, GittinsPolicy, UCB1Policy
from metarl.agents.gittins_index import gittins_indices
from metarl.registry import agent_class

IDS = ("gittins", "ucb1", "thompson", "greedy")


def make_agent(id, family, num_tasks=4, envs_per_task=3, **options):
    cls = agent_class(id)
    config = cls.config_class(num_tasks=num_tasks, envs_per_task=envs_per_task, **options)
    return cls(config, metarl.EnvSpec.of(family))


def test_indices_are_those_of_the_published_tables():
    """Successes and failures: index, as printed with four digits by Gittins, Glazebrook and Weber (2011)."""
    published = {(0, 0): 0.7029, (1, 1): 0.6346, (2, 2): 0.6010, (0, 1): 0.5001, (9, 1): 0.8695}
    indices = gittins_indices(12, 0.9)
    for counts, index in published.items():
        assert float(indices[counts]) == pytest.approx(index, abs=1e-4)
    assert float(gittins_indices(12, 0.99)[0, 0]) == pytest.approx(0.8699, abs=2e-4)


def test_an_index_is_the_best_ratio_of_discounted_reward_to_discounted_time():
    """Gittins' own definition, sup over stopping times, by bisection for the ratio."""
    discount, depth = 0.8, 40

    def excess(successes, failures, rate):
        """The most that Σ β^t (r_t − rate) can be, over stopping times of at least one pull."""
        values = {}
        for count in reversed(range(depth)):
            for a in range(count + 1):
                mean = (successes + a + 1) / (successes + failures + count + 2)
                after = [max(0.0, values.get((count + 1, a + won), 0.0)) for won in (1, 0)]
                values[count, a] = mean - rate + discount * (mean * after[0] + (1 - mean) * after[1])
        return values[0, 0]

    for successes, failures in ((0, 0), (2, 0), (1, 3)):
        low, high = 0.0, 1.0
        for _ in range(20):
            rate = (low + high) / 2
            low, high = (rate, high) if excess(successes, failures, rate) > 0 else (low, rate)
        index = float(gittins_indices(6, discount)[successes, failures])
        assert index == pytest.approx(low, abs=3e-4)


def test_an_arm_that_was_pulled_more_often_than_the_table_knows_counts_as_known():
    policy = GittinsPolicy(2, torch.Generator(), discount=0.9, pulls=4)
    counts = torch.tensor([[[3.0, 3.0], [4.0, 3.0]]])
    assert policy.scores(counts)[0].tolist() == pytest.approx([0.5, 4 / 7])
    assert MOST_PULLS >= 500  # the longest setting of the paper


def test_upper_confidence_bounds_by_hand():
    scores = UCB1Policy(2, torch.Generator(), exploration=1.0).scores(torch.tensor([[[2.0, 1.0], [1.0, 1.0]]]))
    expected = [2 / 3 + (2 * torch.tensor(2.0).log() / 3) ** 0.5, 1 / 2 + (2 * torch.tensor(2.0).log() / 2) ** 0.5]
    assert scores[0].tolist() == pytest.approx([float(value) for value in expected])


@pytest.mark.parametrize(
    ("id", "options", "published"),
    [
        ("gittins", {}, 6.6),
        ("ucb1", {}, 6.7),
        ("greedy", {}, 6.6),
        ("greedy", {"epsilon": 0.01}, 6.6),
        ("random", {}, 5.0),
    ],
)
def test_returns_with_5_arms_and_10_pulls_are_those_of_the_paper(id, options, published):
    family = metarl.make("Bandit-v0", arms=5, pulls=10)
    (metrics,) = train(make_agent(id, family, 4000, 5, **options), family, 1)
    assert metrics["return_mean"] == pytest.approx(published, rel=0.02)


def test_thompson_sampling_gets_a_little_more_than_in_the_paper_and_more_if_optimistic():
    """5.7 there; draws from the exact posterior get 5.8."""
    family = metarl.make("Bandit-v0", arms=5, pulls=10)
    plain, optimistic = (
        train(make_agent("thompson", family, 4000, 5, optimistic=optimistic), family, 1)[0]["return_mean"]
        for optimistic in (False, True)
    )
    assert plain == pytest.approx(5.7, rel=0.03)
    assert optimistic > plain + 0.05


@pytest.mark.parametrize("id", IDS)
def test_a_policy_counts_what_it_saw_and_a_fork_learns_by_itself(id):
    family = metarl.make("Bandit-v0", arms=3, pulls=4)
    agent = make_agent(id, family)
    env = family.make_env(2, 3)
    env.set_tasks(family.task(probabilities=[0.0, 1.0, 0.0]).repeat_interleave(2))
    policy = agent.adapt(env, 2, seed=1)
    assert isinstance(policy, CountsPolicy)
    counts = policy.statistics["counts"].clone()
    assert counts.shape == (6, 3, 2)
    assert (counts.sum((1, 2)) == 6 + 8).all()  # the prior and two episodes of four pulls
    assert (counts[:, 1, 1] == 1).all()
    assert (counts[:, [0, 2], 0] == 1).all()
    metarl.collect(env, policy.fork(), episodes=1, seed=2)
    agent.adapt(env, 1, policy=policy)
    assert torch.equal(policy.statistics["counts"], counts)
    policy.begin_trial(torch.tensor([[True, False, False], [False, False, False]]))
    assert (policy.statistics["counts"][0] == 1).all()
    assert torch.equal(policy.statistics["counts"][1:], counts[1:])
    assert agent.stages(3) == [0, 1, 2, 3]


@pytest.mark.parametrize("id", [*IDS, "psrl"])
def test_tasks_of_other_kinds_are_refused(id):
    point = metarl.make("PointNavigation-v0")
    with pytest.raises(metarl.UsageError, match=f"{id} knows the tasks of .*-v0 only"):
        make_agent(id, point)
    other = "TabularMDP-v0" if id != "psrl" else "Bandit-v0"
    with pytest.raises(metarl.UsageError, match=f"{id} knows the tasks of"):
        make_agent(id, metarl.make(other))


def test_a_family_of_the_same_spaces_with_other_rewards_is_refused():
    class Gaussian(type(metarl.make("Bandit-v0"))):
        def transition(self, state, action, streams, task):
            state, _, terminated = super().transition(state, action, streams, task)
            return state, streams.normal(), terminated

    family = Gaussian()
    with pytest.raises(metarl.UsageError, match="ucb1 is for rewards of 0 and 1"):
        train(make_agent("ucb1", family), family, 1)


@pytest.mark.parametrize(
    ("id", "options"),
    [
        ("gittins", {"discount": 1.0}),
        ("ucb1", {"exploration": -1.0}),
        ("greedy", {"epsilon": 2.0}),
        ("thompson", {"episodes_per_trial": 0}),
    ],
)
def test_options_out_of_range_are_refused(id, options):
    with pytest.raises(metarl.UsageError, match=next(iter(options))):
        agent_class(id).config_class(**options)


@pytest.mark.parametrize("id", IDS)
def test_other_rewards_are_refused_where_nothing_is_adapted_to_first(id):
    class Halves(type(metarl.make("Bandit-v0"))):
        def transition(self, state, action, streams, task):
            state, reward, terminated = super().transition(state, action, streams, task)
            return state, reward / 2, terminated

    family = Halves()
    with pytest.raises(metarl.UsageError, match=f"{id} is for rewards of 0 and 1, got 0.0 to 0.5"):
        metarl.evaluate(make_agent(id, family), family, num_tasks=5)
