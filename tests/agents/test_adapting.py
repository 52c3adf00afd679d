"""`adapt` and what it returns refuse in one line what they are not for: counts, policies and batches of others."""

import numpy as np
import pytest
import torch

import metarl
from metarl.agents.sb3_models import SB3Policy
from metarl.registry import agent_class
from metarl.sb3 import SB3Actions

POINT = metarl.make("PointNavigation-v0", horizon=4)
OPTIONS = {
    "maml": {"hidden": (4,)},
    "reptile": {"hidden": (4,)},
    "rl2": {"hidden": 4},
    "varibad": {"hidden": 4, "policy_hidden": (4,)},
    "pearl": {"hidden": (4,), "encoder_hidden": (4,)},
    "multitask": {"hidden": (4,)},
    "oracle": {"hidden": (4,)},
    "random": {},
    "sb3-ppo": {"hidden": (4,), "n_steps": 4, "batch_size": 4, "from_scratch": True},
}
MEMORY = ("rl2", "varibad", "pearl")
BY_TASK = ("maml", "reptile", "multitask", "oracle", "sb3-ppo")


def make_agent(id):
    cls = agent_class(id)
    return cls(cls.config_class(num_tasks=2, envs_per_task=2, **OPTIONS[id]), metarl.EnvSpec.of(POINT), seed=0)


def make_env(num_tasks=3, envs_per_task=2):
    env = POINT.make_env(num_tasks, envs_per_task)
    env.set_tasks(POINT.sample(num_tasks, seed=0))
    return env


@pytest.mark.parametrize("id", OPTIONS)
def test_a_number_of_episodes_is_a_count_or_zero(id):
    agent, env = make_agent(id), make_env()
    with pytest.raises(metarl.UsageError, match=r"number of episodes must be .*, got -1"):
        agent.adapt(env, -1)
    agent.adapt(env, 0)


@pytest.mark.parametrize("id", OPTIONS)
def test_a_policy_of_another_agent_is_refused(id):
    env = make_env()
    other = make_agent("maml" if id == "random" else "random").adapt(env, 0)
    with pytest.raises(metarl.UsageError, match="adapt goes on with a policy that this agent's adapt returned"):
        make_agent(id).adapt(env, 1, policy=other)


@pytest.mark.parametrize("id", [*MEMORY, *BY_TASK])
def test_a_policy_refuses_other_numbers_of_tasks(id):
    """Six tasks, too: models of three tasks would fit them two by two, and six environments in all are three by two."""
    policy = make_agent(id).adapt(make_env(), 1)
    for batch in ((5, 2), (6, 2), (6, 1)):
        with pytest.raises(metarl.UsageError, match=r"the policy is adapted to .* and is to act for .*: adapt the"):
            metarl.collect(make_env(*batch), policy.fork(), episodes=1)


@pytest.mark.parametrize("id", OPTIONS)
def test_a_policy_with_memory_alone_refuses_other_numbers_of_environments(id):
    agent, wider = make_agent(id), make_env(envs_per_task=3)
    policy = agent.adapt(make_env(), 1)
    if id in MEMORY:
        with pytest.raises(metarl.UsageError, match="and is to act for"):
            metarl.collect(wider, policy.fork(), episodes=1)
        with pytest.raises(metarl.UsageError, match="and is to act for"):
            agent.adapt(wider, 1, policy=policy)
    else:
        assert metarl.collect(wider, policy.fork(), episodes=1).rewards.shape == (4, 3, 3)


class Recorder:
    """A recurrent network of SB3's interface that keeps which episodes it was told to start."""

    def __init__(self):
        self.told = []

    def predict(self, observations, state, starts, deterministic):
        self.told.append(starts.tolist())
        return np.zeros((len(observations), 2), np.float32), (np.zeros(1),)


def test_memory_of_a_recurrent_network_does_not_outlive_an_episode_that_ended_before_others():
    network = Recorder()
    policy = SB3Policy([network], SB3Actions(POINT.action_space, rescale=True))
    observations, rewards = torch.zeros(1, 2, 2), torch.zeros(1, 2)

    def step(ended, active):
        actions = policy.act(observations).actions
        no = torch.zeros(1, 2, dtype=torch.bool)
        flags = torch.tensor([ended]), torch.tensor([active])
        policy.observe(metarl.Transition(observations, actions, rewards, flags[0], no, observations, flags[1]))

    step([True, False], [True, True])
    step([False, False], [False, True])
    step([False, True], [False, True])
    step([False, False], [True, True])  # the next rollout
    assert network.told == [[True, True], [True, False], [True, False], [True, True]]


TRIALS = {id: OPTIONS[id] for id in MEMORY} | {"psrl": {}, "ucb1": {}}


def make_trials(id, *horizons):
    """An agent of the first horizon, and three tasks in environments of each."""
    name = {"psrl": "TabularMDP-v0", "ucb1": "Bandit-v0"}.get(id, "PointNavigation-v0")
    length = "pulls" if name == "Bandit-v0" else "horizon"
    families = [metarl.make(name, **{length: steps}) for steps in horizons]
    cls = agent_class(id)
    agent = cls(cls.config_class(num_tasks=2, envs_per_task=2, **TRIALS[id]), metarl.EnvSpec.of(families[0]), seed=0)
    envs = [family.make_env(3, 2) for family in families]
    for env in envs:
        env.set_tasks(families[0].sample(3, seed=0))
    return agent, *envs


class InTurns(metarl.Policy):
    """Acts as `policy`, while `other` thinks about the same observations. Neither hears of the reset in between."""

    def __init__(self, policy, other):
        self.policy, self.other = policy, other

    def act(self, observations):
        step = self.policy.act(observations)
        self.other.act(observations)
        return step

    def observe(self, transition):
        for policy in (self.other, self.policy):
            policy.observe(transition)


@pytest.mark.parametrize("id", TRIALS)
def test_a_fork_changes_nothing_of_the_policy_it_came_from(id):
    agent, env = make_trials(id, 5)
    policy = agent.adapt(env, 1)
    alone = metarl.collect(env, policy.fork(), episodes=1, seed=1)
    other = policy.drawing_from(torch.Generator().manual_seed(5))
    together = metarl.collect(env, InTurns(policy.fork(), other), episodes=1, seed=1)
    assert torch.equal(alone.actions, together.actions)


@pytest.mark.parametrize("id", TRIALS)
def test_a_rollout_that_was_cut_ended_its_episode(id):
    """Three steps of an episode of 3 and of one of 8 leave the same memory: the next rollout resets both."""
    agent, *envs = make_trials(id, 8, 3)
    policy = agent.adapt(envs[0], 0)
    policies = [policy, policy.fork()]
    first = [metarl.collect(env, each, 3, seed=1) for env, each in zip(envs, policies, strict=True)]
    assert torch.equal(first[0].actions, first[1].actions)
    assert not first[0].ended.any()
    assert first[1].ended[-1].all()
    second = [metarl.collect(envs[0], each, 8, seed=2).actions for each in policies]
    assert torch.equal(*second)


def test_a_recurrent_network_of_sb3_forgets_an_episode_that_was_cut():
    network = Recorder()
    policy = SB3Policy([network], SB3Actions(POINT.action_space, rescale=True))
    env = make_env(1, 2)
    for _ in range(2):
        metarl.collect(env, policy, 2, seed=0)
    assert network.told == [[True, True], [False, False]] * 2
