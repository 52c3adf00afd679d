"""The registered examples of Gymnasium families."""

import math

import pytest
import torch

import metarl
from metarl import UsageError
from metarl.contract import check_distribution


@pytest.mark.parametrize("id", ["CartPoleParams-v0", "PendulumParams-v0"])
def test_the_contract_holds(id):
    check_distribution(metarl.make(id))


@pytest.mark.parametrize(("id", "horizon"), [("CartPoleParams-v0", 500), ("PendulumParams-v0", 200)])
def test_the_horizon_is_gymnasiums(id, horizon):
    assert metarl.make(id).horizon == horizon


def test_a_pendulum_obeys_its_task():
    """One semi-implicit Euler step: dω = (3g / 2l · sin θ + 3u / ml²) dt."""
    distribution = metarl.make("PendulumParams-v0")
    task = {"gravity": 7.0, "mass": 1.5, "length": 0.5}
    env = distribution.make_env(1)
    env.set_tasks(distribution.task(**task))
    env.reset(seed=4)
    theta, omega = env.get_state()["state"][0].tolist()
    obs, *_ = env.step(torch.tensor([[1.25]]))
    omega += 0.05 * (3 * 7.0 / (2 * 0.5) * math.sin(theta) + 3 * 1.25 / (1.5 * 0.5**2))
    theta += 0.05 * omega
    torch.testing.assert_close(obs[0], torch.tensor([math.cos(theta), math.sin(theta), omega]))


def test_a_cart_pole_obeys_its_task():
    """One Euler step of the equations in Florian (2007), eq. 23 and 24 without friction."""
    distribution = metarl.make("CartPoleParams-v0")
    gravity, mass, length, force = 5.0, 0.15, 0.3, 10.0
    env = distribution.make_env(1)
    env.set_tasks(distribution.task(gravity=gravity, mass=mass, length=length))
    env.reset(seed=4)
    x, v, theta, omega = env.get_state()["state"][0].tolist()
    obs, *_ = env.step(torch.tensor([1]))
    total, sine, cosine = 1 + mass, math.sin(theta), math.cos(theta)
    push = (force + mass * length * omega**2 * sine) / total
    angular = (gravity * sine - cosine * push) / (length * (4 / 3 - mass * cosine**2 / total))
    linear = push - mass * length * angular * cosine / total
    expected = [x + 0.02 * v, v + 0.02 * linear, theta + 0.02 * omega, omega + 0.02 * angular]
    torch.testing.assert_close(obs[0], torch.tensor(expected))


def test_tasks_out_of_range_are_refused():
    with pytest.raises(UsageError, match=r"'gravity': 20\.0 is out of range"):
        metarl.make("CartPoleParams-v0").task(gravity=20, mass=0.1, length=0.5)
    with pytest.raises(UsageError, match="no task parameter 'wind'"):
        metarl.make("PendulumParams-v0").task(gravity=10, mass=1, length=1, wind=2)
