"""SAC: its targets against sums by hand, its gradients against autograd, its values against a known optimum."""

import copy
import math

import pytest
import torch
from gymnasium.spaces import Box

import metarl
from metarl.agents.sac import METRICS, SAC, SACConfig, SoftActorCritic, Transitions
from metarl.nn.squashed_gaussian import SquashedGaussian


def make(inputs=2, size=1, **options):
    config = SACConfig(**({"hidden": (16, 16), "reward_scale": 2.0} | options))
    network = SoftActorCritic(config, inputs, SquashedGaussian(Box(-1, 1, (size,))))
    network.initialize(torch.Generator().manual_seed(0))
    return SAC(config, network, ranks=metarl.Ranks())


def batch(rows=6, inputs=2, size=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    o, o2 = torch.randn(2, rows, inputs, generator=generator)
    actions = 2 * torch.rand(rows, size, generator=generator) - 1
    rewards = torch.randn(rows, generator=generator)
    return Transitions(o, actions, rewards, torch.arange(rows) % 3 == 0, o2)


def test_targets_of_three_transitions_by_hand():
    """A step in the middle, a truncated one and a terminated one. Target critics say 7 and 5 everywhere."""
    sac = make(discount=0.9, temperature=0.5)
    with torch.no_grad():
        for parameter in sac.network.target.parameters():
            parameter.zero_()
        sac.network.target.biases[-1].copy_(torch.tensor([7.0, 5.0])[:, None, None])
    reached = torch.tensor([[0.1, 0.2], [0.3, 0.4], [9.0, 9.0]])
    rewards = torch.tensor([1.0, -2.0, 4.0])
    # Truncation is no field of a transition: what was truncated goes on after its true last observation.
    three = Transitions(reached, torch.zeros(3, 1), rewards, torch.tensor([False, False, True]), reached)
    _, log_probs = sac.network.head.sample(sac.network.policy(reached), torch.Generator().manual_seed(1))
    middle, truncated = (5 - 0.5 * log_prob for log_prob in log_probs[:2].tolist())
    expected = [2 * 1.0 + 0.9 * middle, 2 * -2.0 + 0.9 * truncated, 2 * 4.0]
    found = sac.targets(three, torch.Generator().manual_seed(1)).tolist()
    assert found == pytest.approx(expected, rel=1e-6)


def test_losses_are_those_of_the_paper_row_by_row():
    sac, data = make(discount=0.9, temperature=0.5), batch()
    network, generator = copy.deepcopy(sac.network), torch.Generator().manual_seed(5)
    metrics = dict(zip(METRICS, sac.update(data, torch.Generator().manual_seed(5)).tolist(), strict=True))
    y = make(discount=0.9, temperature=0.5).targets(data, generator)
    actions, log_probs = network.head.sample(network.policy(data.observations), generator)
    critic_loss = actor_loss = 0.0
    for row in range(6):
        rows = slice(row, row + 1)
        for value in network.values(data.observations[rows], data.actions[rows])[:, 0]:
            critic_loss += float((value - y[row]).detach()) ** 2 / 6
        least = min(network.values(data.observations[rows], actions[rows])[:, 0].tolist())
        actor_loss += (0.5 * float(log_probs[row].detach()) - least) / 6
    assert metrics["critic_loss"] == pytest.approx(critic_loss, rel=1e-5)
    assert metrics["actor_loss"] == pytest.approx(actor_loss, rel=1e-5)


def test_observations_get_the_gradient_of_the_critics_loss_alone():
    sac, data = make(), batch()
    observations = data.observations.clone().requires_grad_()
    reference = make()
    targets = reference.targets(data, torch.Generator().manual_seed(2))
    loss = (reference.network.values(observations, data.actions) - targets).square().mean(1).sum()
    (expected,) = torch.autograd.grad(loss, observations)
    seen = Transitions(observations, data.actions, data.rewards, data.terminated, data.next_observations)
    sac.update(seen, torch.Generator().manual_seed(2))
    torch.testing.assert_close(observations.grad, expected)


def test_each_network_gets_the_gradient_of_its_own_loss():
    """The policy's loss moves no critic, and the critics' loss no policy."""
    sac, data = make(temperature=0.5), batch()
    reference = make(temperature=0.5)
    network, generator = reference.network, torch.Generator().manual_seed(2)
    targets = reference.targets(data, generator)
    critic_loss = (network.values(data.observations, data.actions) - targets).square().mean(1).sum()
    actions, log_probs = network.head.sample(network.policy(data.observations), generator)
    actor_loss = (0.5 * log_probs - network.values(data.observations, actions).amin(0)).mean()
    sac.update(data, torch.Generator().manual_seed(2))
    for name, loss in (("critic", critic_loss), ("actor", actor_loss)):
        expected = torch.autograd.grad(loss, list(getattr(network, name).parameters()), retain_graph=True)
        found = [parameter.grad for parameter in getattr(sac.network, name).parameters()]
        torch.testing.assert_close(found, list(expected))


def test_the_slow_critics_follow_by_their_share():
    sac = make(polyak=0.25, lr=0.1)
    before = [p.clone() for p in sac.network.target.parameters()]
    sac.update(batch(), torch.Generator())
    for old, slow, fast in zip(before, sac.network.target.parameters(), sac.network.critic.parameters(), strict=True):
        torch.testing.assert_close(slow, old + 0.25 * (fast - old))
        assert slow.is_leaf
        assert slow.grad is None


@pytest.mark.parametrize(("std", "falls"), [(1.0, True), (1e-3, False)])
def test_a_learned_temperature_falls_while_entropy_is_above_its_target(std, falls):
    sac = make(temperature=None, lr=0.01)
    with torch.no_grad():
        sac.network.actor.biases[-1][..., 1] = math.log(std)
    sac.update(batch(), torch.Generator().manual_seed(0))
    assert bool(sac.network.log_temperature < 0) == falls


def test_a_fixed_temperature_stays():
    sac = make(temperature=0.3)
    sac.update(batch(), torch.Generator())
    assert sac.network.log_temperature.item() == pytest.approx(math.log(0.3))


@pytest.mark.slow
def test_values_converge_to_the_known_soft_optimum_of_a_deterministic_mdp():
    """Two states: the first leads to the second, the second ends. Both rewards are parabolas of the action."""
    alpha, discount = 0.02, 0.8
    sac = make(temperature=alpha, discount=discount, reward_scale=1.0, lr=3e-3, polyak=0.05, hidden=(64, 64))
    generator = torch.Generator().manual_seed(0)
    states = torch.eye(2).repeat(256, 1)
    second = states[:, 1] == 1
    actions = 2 * torch.rand(512, 1, generator=generator) - 1
    rewards = torch.where(second, 1 - (actions[:, 0] + 0.3).square(), -(actions[:, 0] - 0.5).square())
    data = Transitions(states, actions, rewards, second, torch.tensor([0.0, 1.0]).expand(512, 2))
    for _ in range(2500):
        sac.update(data, generator)
    values = sac.network.values(states, actions).mean(0).detach()
    grid = torch.linspace(-1, 1, 100_001, dtype=torch.float64)
    # V(s) = α log ∫ exp(Q(s, a) / α) da
    value = 1 + alpha * math.log(float((-(grid + 0.3).square() / alpha).exp().mean()) * 2)
    expected = torch.where(second, rewards, rewards + discount * value)
    assert float((values - expected).abs().mean()) < 0.02
    best = sac.network.head.mode(sac.network.policy(torch.eye(2)))[:, 0].detach()
    torch.testing.assert_close(best, torch.tensor([0.5, -0.3]), atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"discount": 1.0}, "discount must lie in"),
        ({"hidden": (0,)}, "a hidden layer's size"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(metarl.UsageError, match=message):
        SACConfig(**options)
