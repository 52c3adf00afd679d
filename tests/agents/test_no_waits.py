"""Nothing makes the host wait for a GPU while an agent acts, observes and steps: on a phantom, which needs no GPU."""

import pytest
import torch
from agents_on_gpu import AGENTS, BOXES_ONLY, make_agent, roll_strictly
from phantom_gpu import Waits, phantom_gpu, waiting_refused

import metarl

FAMILIES = {
    "PointNavigation-v0": {"horizon": 4},
    "SparsePointNavigation-v0": {"horizon": 4},
    "Bandit-v0": {"pulls": 4},
    "TabularMDP-v0": {"horizon": 4},
}


@pytest.fixture
def gpu(monkeypatch):
    with phantom_gpu(monkeypatch) as made:
        yield made


def make_env(family):
    env = family.make_env(2, 3, device="cuda", graph=False)
    env.set_tasks(family.sample(2, seed=0))
    return env


BOXES = ["PointNavigation-v0", "SparsePointNavigation-v0"]


@pytest.mark.parametrize(
    ("name", "id"), [(name, id) for name in AGENTS for id in (BOXES if name in BOXES_ONLY else FAMILIES)]
)
def test_a_rollout_waits_for_nothing_before_its_end(gpu, monkeypatch, name, id):
    family = metarl.make(id, **FAMILIES[id])
    roll_strictly(gpu, monkeypatch, name, lambda: make_env(family))


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
