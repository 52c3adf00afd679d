"""Nothing makes the host wait for a GPU while an agent acts, observes and steps: on a phantom, which needs no GPU."""

import pytest
import torch
from phantom_gpu import OnGPU, PhantomGPU, Waits, move_module, phantom_gpu, waiting_refused

import metarl
from metarl.agents.maml import MAML, MAMLConfig
from metarl.agents.multitask import Multitask, MultitaskConfig
from metarl.agents.random import RandomAgent, RandomConfig
from metarl.agents.rl2 import RL2, RL2Config
from metarl.agents.varibad import VariBAD, VariBADConfig
from metarl.rollout.storage import RolloutStorage

FAMILIES = {
    "PointNavigation-v0": {"horizon": 4},
    "SparsePointNavigation-v0": {"horizon": 4},
    "Bandit-v0": {"pulls": 4},
    "TabularMDP-v0": {"horizon": 4},
}
AGENTS = ["maml", "rl2-gru", "rl2-lstm", "rl2-snail", "rl2-transformer", "multitask", "varibad", "random"]


@pytest.fixture
def gpu(monkeypatch):
    with phantom_gpu(monkeypatch) as made:
        yield made


def make_agent(name, family):
    spec = metarl.EnvSpec.of(family)
    if name == "maml":
        return MAML(MAMLConfig(num_tasks=2, envs_per_task=3, hidden=(8,)), spec, device="cuda")
    if name == "random":
        return RandomAgent(RandomConfig(num_tasks=2), spec, device="cuda")
    if name == "multitask":
        baseline = Multitask(MultitaskConfig(num_tasks=2, hidden=(8,)), spec, device="cuda")
        move_module(baseline.network)
        return baseline
    if name == "varibad":
        believer = VariBAD(VariBADConfig(num_tasks=2, hidden=8, policy_hidden=(8,)), spec, device="cuda")
        move_module(believer.network)
        move_module(believer.model)
        return believer
    config = RL2Config(num_tasks=2, envs_per_task=3, hidden=8, core=name.removeprefix("rl2-"), episodes_per_trial=1)
    agent = RL2(config, spec, device="cuda")
    move_module(agent.network)
    return agent


def make_env(family):
    env = family.make_env(2, 3, device="cuda", graph=False)
    env.set_tasks(family.sample(2, seed=0))
    return env


class Strict(metarl.Policy):
    """Refuses whatever waits, from the first `act` on."""

    def __init__(self, inner: metarl.Policy, gpu: PhantomGPU):
        self.inner, self.gpu = inner, gpu

    def act(self, observations):
        self.gpu.strict = True
        return self.inner.act(observations)

    def observe(self, transition):
        self.inner.observe(transition)

    def begin_trial(self, mask):
        self.inner.begin_trial(mask)


@pytest.mark.parametrize("id", FAMILIES)
@pytest.mark.parametrize("name", AGENTS)
def test_a_rollout_waits_for_nothing_before_its_end(gpu, monkeypatch, id, name):
    family = metarl.make(id, **FAMILIES[id])
    env, policy = make_env(family), make_agent(name, family).adapt(make_env(family), 0, seed=0)
    policy.act(torch.zeros(2, 3, *family.observation_space.shape, device="cuda"))  # constants are copied once
    if name.startswith("rl2"):
        policy.memory = None
    finish = RolloutStorage.trajectories

    def after_the_last_step(storage, *arguments, **options):
        gpu.strict = False
        return finish(storage, *arguments, **options)

    monkeypatch.setattr(RolloutStorage, "trajectories", after_the_last_step)
    # A trial of SNAIL or the transformer is over then; they look once whether a new one has begun.
    steps = family.horizon + (0 if name in ("rl2-snail", "rl2-transformer") else 2)
    trajectories = metarl.collect(env, Strict(policy.fork(), gpu), steps, episodes_per_trial=1)
    assert trajectories.rewards.shape == (steps, 2, 3)
    assert isinstance(trajectories.rewards, OnGPU)


def test_snail_refuses_a_trial_too_long_without_looking_at_every_step(gpu):
    """Its longest trial has as many steps as one of training; looking whether it had is left to the step after."""
    family = metarl.make("TabularMDP-v0", horizon=4)
    agent, env = make_agent("rl2-snail", family), make_env(metarl.make("TabularMDP-v0", horizon=5))
    policy = agent.adapt(make_env(family), 0, seed=0)
    with pytest.raises(metarl.UsageError, match="SNAIL was built to remember 4 inputs and is given a sequence of 5"):
        metarl.collect(env, policy, 5)


def test_snail_goes_on_after_a_trial_as_long_as_those_of_training(gpu):
    family = metarl.make("TabularMDP-v0", horizon=4)
    policy = make_agent("rl2-snail", family).adapt(make_env(family), 0, seed=0)
    trajectories = metarl.collect(make_env(family), policy, 11, episodes_per_trial=1)
    assert trajectories.rewards.isfinite().all()


def test_the_phantom_sees_what_waits(gpu):
    numbers, mask = torch.arange(3.0, device="cuda"), torch.arange(3, device="cuda") > 0
    waiting = {
        "item": lambda: numbers.sum().item(),
        "bool": lambda: bool(mask.any()),
        "tolist": lambda: numbers.tolist(),
        "numpy": lambda: numbers.numpy(),
        "to the host": lambda: numbers.cpu(),
        "to the device of the host": lambda: numbers.to("cpu"),
        "from the host": lambda: torch.ones(3).to(numbers.device),
        "numbers of Python": lambda: torch.tensor([1.0, 2.0], device="cuda"),
        "nonzero": lambda: mask.nonzero(),
        "a mask as index": lambda: numbers[mask],
        "a mask as index to write": lambda: numbers.index_put_((mask,), numbers[:1]),
        "masked_select": lambda: numbers.masked_select(mask),
        "equal": lambda: torch.equal(numbers, numbers),
        "repeats": lambda: numbers.repeat_interleave(mask.long()),
        "unique": lambda: numbers.unique(),
    }
    with waiting_refused(gpu):
        for what, call in waiting.items():
            with pytest.raises(Waits):
                call()
                pytest.fail(f"{what} is not refused")
        assert torch.where(mask, numbers, 0.0).device.type == "cuda"
        numbers[torch.arange(2, device="cuda")]
    with pytest.raises(RuntimeError, match="two devices"):
        numbers + torch.ones(3)
    assert numbers.tolist() == [0, 1, 2]
