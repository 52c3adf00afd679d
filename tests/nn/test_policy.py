"""Stacked policy gradients against a loop over tasks, finite differences and autograd, in float64."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from metarl.nn.policy import PolicyBatch, PolicyGradient, PolicyLinearization, PolicyNetwork

M, N, D = 3, 11, 4
FACTORED = gym.spaces.MultiDiscrete([2, 3], start=[0, 4])
SPACES = {
    "box": gym.spaces.Box(-1, 1, (2,)),
    "discrete": gym.spaces.Discrete(3),
    "factored": FACTORED,
    "mixed": gym.spaces.Tuple((gym.spaces.Discrete(3), gym.spaces.Box(-1, 1, (2,)), FACTORED)),
}


def make_case(kind, seed=0):
    generator = torch.Generator().manual_seed(seed)
    network = PolicyNetwork(gym.spaces.Box(-np.inf, np.inf, (D,)), SPACES[kind], (6, 5))
    parameters = {}
    network.scale.update(torch.tensor([[0.5, 2.0, 1.0, 9.0]]))  # so that it matters where observations are scaled
    for name, value in network.initialize(generator).items():
        parameters[name] = 0.5 * torch.randn(M, *value.shape, generator=generator, dtype=torch.float64)
    observations = torch.randn(M, N, D, generator=generator, dtype=torch.float64)
    actions = network.head.sample(network(parameters, observations), generator)
    valid = torch.rand(M, N, generator=generator) < 0.8
    weights = torch.randn(M, N, generator=generator, dtype=torch.float64) * valid
    old = network.head.log_prob(network(parameters, observations), actions)
    batch = PolicyBatch(observations, actions, weights, valid, old + 0.1 * torch.randn(M, N, generator=generator))
    direction = {n: torch.randn(v.shape, generator=generator, dtype=torch.float64) for n, v in parameters.items()}
    return network, parameters, batch, direction


def loss(network, parameters, batch, likelihood_ratio):
    log_prob = network.head.log_prob(network(parameters, batch.observations), batch.actions)
    gain = (log_prob - batch.log_probs).exp() if likelihood_ratio else log_prob
    return -(batch.weights * gain).sum()


@pytest.mark.parametrize("likelihood_ratio", [False, True])
@pytest.mark.parametrize("kind", SPACES)
def test_gradient_is_that_of_each_task_by_itself(kind, likelihood_ratio):
    network, parameters, batch, _ = make_case(kind)
    stacked = PolicyGradient(network, batch, likelihood_ratio=likelihood_ratio)(parameters)
    for task in range(M):
        row = slice(task, task + 1)
        own = {name: value[row].clone().requires_grad_() for name, value in parameters.items()}
        part = PolicyBatch(*(getattr(batch, name)[row] for name in PolicyBatch.__dataclass_fields__))
        expected = torch.autograd.grad(loss(network, own, part, likelihood_ratio), list(own.values()))
        for name, value in zip(own, expected, strict=True):
            torch.testing.assert_close(stacked[name][row], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", SPACES)
def test_a_third_derivative_is_refused(kind):
    """The backward pass is written out and has no derivative: it must not pass for a constant."""
    network, parameters, batch, direction = make_case(kind)
    leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    gradient = PolicyGradient(network, batch)(leaves)
    slope = sum((gradient[name] * direction[name]).sum() for name in leaves)
    first = torch.autograd.grad(slope, list(leaves.values()), create_graph=True)
    something_else = sum(value.square().sum() for value in leaves.values())  # that autograd could differentiate
    with pytest.raises(RuntimeError, match="PolicyGradient can be differentiated once"):
        torch.autograd.grad(sum(value.square().sum() for value in first) + something_else, list(leaves.values()))


@pytest.mark.parametrize("kind", SPACES)
def test_gradient_matches_finite_differences(kind):
    network, parameters, batch, direction = make_case(kind)
    gradient = PolicyGradient(network, batch)(parameters)
    slope = sum((gradient[name] * direction[name]).sum() for name in parameters)
    eps = 1e-6
    ahead, behind = (
        loss(network, {n: v + sign * eps * direction[n] for n, v in parameters.items()}, batch, False)
        for sign in (1, -1)
    )
    assert slope.item() == pytest.approx(((ahead - behind) / (2 * eps)).item(), rel=1e-7)


@pytest.mark.parametrize("likelihood_ratio", [False, True])
@pytest.mark.parametrize("kind", SPACES)
def test_hessian_product_matches_autograd(kind, likelihood_ratio):
    network, parameters, batch, direction = make_case(kind)
    slope = torch.func.grad(lambda p: loss(network, p, batch, likelihood_ratio))
    _, expected = torch.func.jvp(slope, (parameters,), (direction,))
    gradient = PolicyGradient(network, batch, likelihood_ratio=likelihood_ratio)
    local, _ = gradient.linearize(parameters)
    product = gradient.hessian_product(local, direction)
    # autograd's way through the gradient has to lead to the same product
    leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    inner = sum((gradient(leaves)[name] * direction[name]).sum() for name in leaves)
    by_autograd = torch.autograd.grad(inner, list(leaves.values()))
    for (name, value), other in zip(leaves.items(), by_autograd, strict=True):
        torch.testing.assert_close(product[name], expected[name], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(other, expected[name].reshape(value.shape), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", SPACES)
def test_fisher_product_is_the_hessian_of_the_mean_kl(kind):
    network, parameters, batch, direction = make_case(kind)
    old = network(parameters, batch.observations)

    def mean_kl(p):
        return batch.mean(network.head.kl(old, network(p, batch.observations))).sum()

    _, expected = torch.func.jvp(torch.func.grad(mean_kl), (parameters,), (direction,))
    product = PolicyLinearization(network, parameters, batch.observations).fisher_product(direction, batch.valid)
    for name in parameters:
        torch.testing.assert_close(product[name], expected[name], rtol=1e-8, atol=1e-12)
