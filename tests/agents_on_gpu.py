"""Agents whose networks are on the phantom GPU, and a rollout in which they may wait for nothing."""

import torch
from phantom_gpu import OnGPU, PhantomGPU, move_module

import metarl
from metarl.agents.maml import MAML, MAMLConfig
from metarl.agents.multitask import Multitask, MultitaskConfig, Oracle
from metarl.agents.pearl import PEARL, PEARLConfig
from metarl.agents.random import RandomAgent, RandomConfig
from metarl.agents.reptile import Reptile, ReptileConfig
from metarl.agents.rl2 import RL2, RL2Config
from metarl.agents.varibad import VariBAD, VariBADConfig
from metarl.rollout.policy import PolicyWrapper
from metarl.rollout.storage import RolloutStorage

GRADIENT = {
    "maml": (MAML, MAMLConfig(num_tasks=2, envs_per_task=3, hidden=(8,))),
    "reptile": (Reptile, ReptileConfig(num_tasks=2, envs_per_task=3, hidden=(8,))),
    "random": (RandomAgent, RandomConfig(num_tasks=2)),
}
NETWORKS = {
    "multitask": (Multitask, MultitaskConfig(num_tasks=2, hidden=(8,))),
    "oracle": (Oracle, MultitaskConfig(num_tasks=2, hidden=(8,))),
    "varibad": (VariBAD, VariBADConfig(num_tasks=2, hidden=8, policy_hidden=(8,))),
    "pearl": (PEARL, PEARLConfig(num_tasks=2, hidden=(8,), encoder_hidden=(8,))),
} | {
    f"rl2-{core}": (RL2, RL2Config(num_tasks=2, envs_per_task=3, hidden=8, core=core, episodes_per_trial=1))
    for core in ("gru", "lstm", "snail", "transformer")
}
AGENTS = [*GRADIENT, *NETWORKS]
BOXES_ONLY = {"pearl"}
"""Agents that act in boxes of numbers alone."""
BOUNDED = ("rl2-snail", "rl2-transformer")
"""Agents that look once a trial whether a new one has begun."""


def make_agent(name, family):
    agent_class, config = (GRADIENT | NETWORKS)[name]
    agent = agent_class(config, metarl.EnvSpec.of(family), device="cuda")
    for part in ("network", "model"):
        if name in NETWORKS and hasattr(agent, part):
            move_module(getattr(agent, part))
    return agent


class Strict(PolicyWrapper):
    """Refuses whatever waits, from the first `act` on."""

    def __init__(self, policy: metarl.Policy, gpu: PhantomGPU):
        super().__init__(policy)
        self.gpu = gpu

    def act(self, observations):
        self.gpu.strict = True
        return super().act(observations)


def roll_strictly(gpu, monkeypatch, name, make_env):
    """A rollout past the end of an episode in which everything from the first `act` to the last `step` is strict."""
    env, other = make_env(), make_env()
    family = env.distribution
    policy = make_agent(name, family).adapt(other, 0, seed=0)
    policy.act(torch.zeros(2, 3, *family.observation_space.shape, device="cuda"))  # constants are copied once
    if name.startswith("rl2"):
        policy.memory = None
    finish = RolloutStorage.trajectories

    def after_the_last_step(storage, *arguments, **options):
        gpu.strict = False
        return finish(storage, *arguments, **options)

    monkeypatch.setattr(RolloutStorage, "trajectories", after_the_last_step)
    steps = family.horizon + (0 if name in BOUNDED else 2)
    trajectories = metarl.collect(env, Strict(policy.fork(), gpu), steps, episodes_per_trial=1)
    assert trajectories.rewards.shape == (steps, 2, 3)
    assert isinstance(trajectories.rewards, OnGPU)
