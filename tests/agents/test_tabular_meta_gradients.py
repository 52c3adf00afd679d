"""Meta-gradients against finite differences of the exact return after adaptation, in a problem that can be enumerated.

In a contextual bandit with softmax policies, J(θ) = Σ_s μ(s) Σ_a π(a | s) r(s, a) and its gradient have closed forms.
So the return after an exact gradient step is an explicit function of θ and of the step sizes. The batches hold every
(s, a) once, weighted by its probability.
"""

import gymnasium as gym
import numpy as np
import pytest
import torch

from metarl.adaptation import stack
from metarl.agents.meta_objective import SCALE, InnerStep, LocalModel, MetaObjective, split
from metarl.nn.policy import PolicyBatch, PolicyGradient, PolicyNetwork

M, S, A, STEP = 3, 2, 3, 0.7
GENERATOR = torch.Generator().manual_seed(5)
REWARDS = torch.randn(M, S, A, generator=GENERATOR, dtype=torch.float64)
START = torch.tensor([0.3, 0.7], dtype=torch.float64)
NETWORK = PolicyNetwork(gym.spaces.Box(0, 1, (S,), np.float32), gym.spaces.Discrete(A), hidden=())
THETA = {
    "weight0": torch.randn(A, S, generator=GENERATOR, dtype=torch.float64),
    "bias0": torch.randn(A, generator=GENERATOR, dtype=torch.float64),
}
SCALES = {f"{SCALE}{n}": 0.5 + torch.rand(v.shape, generator=GENERATOR, dtype=torch.float64) for n, v in THETA.items()}


def probabilities(weight, bias):
    return torch.softmax(weight.T + bias, -1)  # [S, A]


def exact_return(weight, bias, rewards):
    return float((START[:, None] * probabilities(weight, bias) * rewards).sum())


def exact_slope(weight, bias, rewards):
    """∂J/∂W[a, s] = μ(s) π(a | s) (r(s, a) − Σ_b π(b | s) r(s, b)), and its sum over s for the bias."""
    pi = probabilities(weight, bias)
    slope = (START[:, None] * pi * (rewards - (pi * rewards).sum(1, keepdim=True))).T
    return slope, slope.sum(1)


def exact_loss(parameters, num_steps):
    """Minus the mean return after `num_steps` exact steps."""
    theta, scales = split(parameters)
    total = 0.0
    for rewards in REWARDS:
        weight, bias = theta["weight0"], theta["bias0"]
        for _ in range(num_steps):
            slope = exact_slope(weight, bias, rewards)
            sizes = (STEP, STEP) if scales is None else (STEP * scales["weight0"], STEP * scales["bias0"])
            weight, bias = weight + sizes[0] * slope[0], bias + sizes[1] * slope[1]
        total -= exact_return(weight, bias, rewards)
    return total / M


def finite_differences(parameters, num_steps, eps=1e-6):
    gradient = {}
    for name, value in parameters.items():
        slopes = torch.zeros_like(value)
        for place in np.ndindex(value.shape):
            change = torch.zeros_like(value)
            change[place] = eps
            up, down = (exact_loss(parameters | {name: value + sign * change}, num_steps) for sign in (1, -1))
            slopes[place] = (up - down) / (2 * eps)
        gradient[name] = slopes
    return gradient


def enumerated(parameters):
    """Every (s, a) for each task, under stacked `parameters`."""
    observations = torch.eye(S, dtype=torch.float64).repeat_interleave(A, 0).expand(M, -1, -1)
    actions = torch.arange(A).repeat(S).expand(M, -1)
    log_probs = NETWORK.head.log_prob(NETWORK(parameters, observations), actions)
    weights = START.repeat_interleave(A) * log_probs.exp() * REWARDS.flatten(1)
    return PolicyBatch(observations, actions, weights, torch.ones_like(weights, dtype=torch.bool), log_probs)


def objective_at(parameters, num_steps=1, **options):
    theta, scales = split(parameters)
    current, steps = stack(theta, M), []
    for _ in range(num_steps):
        gradient = PolicyGradient(NETWORK, enumerated(current), likelihood_ratio=True)
        steps.append(InnerStep(gradient, current, STEP, scales))
        current = steps[-1].after
    return MetaObjective(NETWORK, steps, enumerated(current), **options)


@pytest.mark.parametrize("num_steps", [1, 2])
@pytest.mark.parametrize("parameters", [THETA, THETA | SCALES], ids=["one step size", "learned step sizes"])
def test_the_second_order_gradient_is_that_of_the_exact_return_after_adaptation(parameters, num_steps):
    expected = finite_differences(parameters, num_steps)
    model = LocalModel(objective_at(parameters, num_steps))
    assert model.gradient.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(model.gradient[name], value, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("parameters", [THETA, THETA | SCALES], ids=["one step size", "learned step sizes"])
def test_the_gradient_of_promp_is_the_same_at_the_policy_that_acted(parameters):
    """There, nothing is clipped yet and the penalty has no slope."""
    leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    objective = objective_at(parameters, clip=0.3, inner_kl_penalty=0.5)
    _, gradient = objective.loss_and_gradient(leaves)
    for name, value in finite_differences(parameters, 1).items():
        torch.testing.assert_close(gradient[name], value, rtol=1e-6, atol=1e-9)


def test_the_first_order_gradient_is_the_mean_slope_at_the_adapted_parameters():
    """And that of the step sizes is exact after one step: it needs no second derivative."""
    model = LocalModel(objective_at(THETA | SCALES, first_order=True))
    expected = {name: torch.zeros_like(value) for name, value in THETA.items()}
    for rewards in REWARDS:
        slope = exact_slope(THETA["weight0"], THETA["bias0"], rewards)
        weight = THETA["weight0"] + STEP * SCALES[f"{SCALE}weight0"] * slope[0]
        bias = THETA["bias0"] + STEP * SCALES[f"{SCALE}bias0"] * slope[1]
        for name, value in zip(("weight0", "bias0"), exact_slope(weight, bias, rewards), strict=True):
            expected[name] -= value / M
    exact = finite_differences(THETA | SCALES, 1)
    for name, value in (expected | {name: exact[name] for name in SCALES}).items():
        torch.testing.assert_close(model.gradient[name], value, rtol=1e-6, atol=1e-9)
    assert not torch.allclose(expected["weight0"], exact["weight0"], atol=1e-3)
