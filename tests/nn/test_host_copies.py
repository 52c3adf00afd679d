"""Acting copies nothing from the host's memory once it has begun: such a copy makes a GPU wait, every time.

The device "meta" has no numbers, but every copy to it is seen; tests with the mark `gpu` run the same under torch's
synchronisation debug mode.
"""

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import metarl
from metarl.agents.maml import MAML, MAMLConfig
from metarl.agents.recurrent import RecurrentPolicy
from metarl.agents.rl2 import RL2, RL2Config
from metarl.nn.heads import head_for
from metarl.rollout.policy import PolicyWrapper

BOX = gym.spaces.Box(np.array([-0.1, -np.inf], np.float32), np.array([0.3, np.inf], np.float32))
SPACES = {
    "box": BOX,
    "discrete": gym.spaces.Discrete(3, start=1),
    "factored": gym.spaces.MultiDiscrete([2, 3], start=[0, 4]),
    "mixed": gym.spaces.Tuple((BOX, gym.spaces.MultiDiscrete([2, 3]))),
}


class HostCopies(TorchDispatchMode):
    """Records operations that make something on "meta" from a tensor in the host's memory."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        devices = {value.device.type for value in args if isinstance(value, torch.Tensor) and value.ndim}
        made = result.device.type if isinstance(result, torch.Tensor) else None
        if made == "meta" and "cpu" in devices:
            self.seen.append(str(function))
        return result


@pytest.mark.parametrize("kind", SPACES)
def test_heads_keep_their_constants_where_they_are_used(kind):
    head = head_for(SPACES[kind])
    output = torch.zeros(3, 4, head.size, device="meta")
    phi = (output, torch.zeros(3, 1, head.scale_size, device="meta")) if head.scale_size else (output,)
    dtype = torch.long if head.discrete else torch.float32
    actions = torch.zeros(3, 4, *head.action_shape, device="meta", dtype=dtype)

    def use():
        if kind == "box":  # "meta" draws no exponential numbers from a generator
            head.sample(phi, torch.Generator())
        head.features(actions)
        head.blank(output[:, 0])
        head.fisher(phi, phi)
        for function in (head.log_prob, head.score):
            function(phi, actions)
        head.entropy(phi)
        head.kl(phi, phi)

    use()  # the first use copies them
    with HostCopies() as copies:
        use()
    assert not copies.seen


def test_the_watch_sees_a_copy():
    with HostCopies() as copies:
        torch.zeros(3).to("meta")
    assert copies.seen


# The same where it hurts ---------------------------------------------------------------------------------------------


def agents(family):
    spec = metarl.EnvSpec.of(family)
    yield MAML(MAMLConfig(num_tasks=2, envs_per_task=3, hidden=(8,)), spec, device="cuda")
    yield RL2(RL2Config(num_tasks=2, envs_per_task=3, hidden=8), spec, device="cuda")


class Strict(PolicyWrapper):
    """Makes whatever waits for the GPU raise, from the first operation of `act` to the last of `observe`."""

    def act(self, observations):
        torch.cuda.set_sync_debug_mode("error")  # the environment's step comes in between
        return super().act(observations)

    def observe(self, transition):
        super().observe(transition)
        self.begin_trial(transition.ended)
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize(
    "id", ["PointNavigation-v0", "Bandit-v0", "HalfCheetahVel-v0", "HopperRandParams-v0", "ML1-reach-v3"]
)
def test_nothing_waits_for_a_gpu_while_an_agent_acts_observes_and_steps(id):
    family = metarl.make(id)
    env = family.make_env(2, 3, device="cuda")
    env.set_tasks(family.sample(2, seed=0))
    for agent in agents(family):
        policy = agent.adapt(env, 0, seed=0)
        if isinstance(policy, RecurrentPolicy):
            metarl.collect(env, policy.fork(), 2, episodes_per_trial=1)
        metarl.collect(env, policy.fork(), 3)  # warms up: kernels, constants
        try:
            metarl.collect(env, Strict(policy.fork()), 5)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    env.close()
