"""PSRL: value iteration against brute force, the posterior against hand sums, the return against Duan et al. (2016)."""

import itertools

import pytest
import torch
from practice import train

import metarl
from metarl.agents.psrl import PSRL, PSRLConfig, PSRLPolicy, optimal_plan


def test_the_plan_is_the_best_of_all_plans():
    states, actions, horizon = 2, 2, 3
    generator = torch.Generator().manual_seed(0)
    transitions = torch.rand(1, states, actions, states, generator=generator)
    transitions = transitions / transitions.sum(-1, keepdim=True)
    rewards = torch.randn(1, states, actions, generator=generator)

    def value(plan):
        """Of state 0 under a plan [H][S], by a sum over all paths."""
        total = 0.0
        for path in itertools.product(range(states), repeat=horizon - 1):
            state, probability, earned = 0, 1.0, 0.0
            for t, following in enumerate((*path, None)):
                action = plan[t][state]
                earned += float(rewards[0, state, action])
                if following is not None:
                    probability *= float(transitions[0, state, action, following])
                    state = following
            total += probability * earned
        return total

    plans = itertools.product(itertools.product(range(actions), repeat=states), repeat=horizon)
    best = max(value(plan) for plan in plans)
    assert value(optimal_plan(transitions, rewards, horizon)[0].tolist()) == pytest.approx(best)


def test_the_posterior_counts_every_step_of_the_trial():
    family = metarl.make("TabularMDP-v0", states=3, actions=2, horizon=5)
    agent = PSRL(PSRLConfig(reward_mean=0.5, reward_count=2.0, transition_count=0.1), metarl.EnvSpec.of(family))
    env = family.make_env(2, 2)
    env.set_tasks(family.sample(2, seed=0))
    policy = PSRLPolicy(agent.config, 3, 2, 5, torch.Generator().manual_seed(0))
    trajectories = metarl.collect(env, policy, episodes=2, seed=1)
    known, final = policy.statistics, trajectories.final_observations
    for b, (m, n) in enumerate(itertools.product(range(2), range(2))):
        visits, sums = torch.full((3, 2), 2.0), torch.full((3, 2), 1.0)
        transitions = torch.full((3, 2, 3), 0.1)
        for t in range(10):
            state, following = (int(values[t, m, n].argmax()) for values in (trajectories.observations, final))
            action = int(trajectories.actions[t, m, n])
            visits[state, action] += 1
            sums[state, action] += trajectories.rewards[t, m, n]
            transitions[state, action, following] += 1
        torch.testing.assert_close(known["visits"][b], visits)
        torch.testing.assert_close(known["reward_sums"][b], sums)
        torch.testing.assert_close(known["transitions"][b], transitions)


def test_the_plan_is_kept_for_an_episode_and_drawn_anew_for_the_next():
    family = metarl.make("TabularMDP-v0", states=4, actions=3, horizon=5)
    env = family.make_env(3, 1)
    env.set_tasks(family.sample(3, seed=0))
    plans = []

    class Recording(PSRLPolicy):
        def choose(self, observations):
            actions = super().choose(observations)
            plans.append(self.statistics["plan"].clone())
            return actions

    metarl.collect(env, Recording(PSRLConfig(), 4, 3, 5, torch.Generator().manual_seed(0)), episodes=2, seed=1)
    assert all(torch.equal(plan, plans[0]) for plan in plans[:5])
    assert all(torch.equal(plan, plans[5]) for plan in plans[5:])
    assert not torch.equal(plans[0], plans[5])


def test_the_return_of_ten_episodes_is_that_of_the_paper():
    """138.1, table 2, n = 10."""
    family = metarl.make("TabularMDP-v0")
    agent = PSRL(PSRLConfig(num_tasks=400, envs_per_task=2), metarl.EnvSpec.of(family))
    (metrics,) = train(agent, family, 1)
    assert metrics["return_trial"] == pytest.approx(138.1, abs=3)
    assert metrics["return_mean"] > metrics["return_first_episode"] + 4


@pytest.mark.parametrize("option", ["transition_count", "reward_count"])
def test_priors_that_are_none_are_refused(option):
    with pytest.raises(metarl.UsageError, match=option):
        PSRLConfig(**{option: 0.0})


def _evaluate(cls):
    family = cls()
    return metarl.evaluate(PSRL(PSRLConfig(), metarl.EnvSpec.of(family)), family, num_tasks=4)


def test_states_that_are_not_observed_one_hot_are_refused():
    class Blurred(type(metarl.make("TabularMDP-v0"))):
        def observe(self, state):
            return super().observe(state) * 0.5 + 0.05

    with pytest.raises(metarl.UsageError, match="psrl is for states that are observed one-hot"):
        _evaluate(Blurred)


def test_episodes_that_end_before_their_horizon_are_refused():
    class Ending(type(metarl.make("TabularMDP-v0"))):
        def transition(self, state, action, streams, task):
            state, reward, _ = super().transition(state, action, streams, task)
            return state, reward, state["state"] == 3

    with pytest.raises(metarl.UsageError, match="psrl is for episodes of the whole horizon"):
        _evaluate(Ending)
