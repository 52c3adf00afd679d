"""Squashed Gaussians against torch's transformed distributions, and their density against 1."""

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from metarl.nn.squashed_gaussian import SquashedGaussian


def head(size=3):
    return SquashedGaussian(Box(-1, 1, (size,)))


def some_outputs(rows, size=3):
    return 0.5 * torch.randn(rows, 2 * size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def reference(outputs):
    mean, log_std = outputs.chunk(2, -1)
    return TransformedDistribution(Independent(Normal(mean, log_std.exp()), 1), [TanhTransform()])


def test_log_probabilities_are_those_of_torch():
    outputs = some_outputs(50)
    actions = 0.99 * (2 * torch.rand(50, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 1)
    expected = reference(outputs).log_prob(actions)
    torch.testing.assert_close(head().log_prob(outputs, actions), expected)


def test_a_sample_comes_with_its_log_probability():
    outputs = some_outputs(50)
    actions, log_probs = head().sample(outputs, torch.Generator().manual_seed(2))
    torch.testing.assert_close(log_probs, reference(outputs).log_prob(actions), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [20.0, -20.0])
def test_the_log_probability_is_finite_where_the_tanh_is_one(value):
    outputs = torch.tensor([[value, 0.0]])
    actions, log_probs = head(1).sample(outputs, torch.Generator().manual_seed(0))
    assert actions.abs() == 1
    assert log_probs.isfinite()


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.7, 0.3), (-1.5, 0.8)])
def test_the_density_integrates_to_one(mean, std):
    edges = torch.linspace(-1, 1, 200_001, dtype=torch.float64)
    middles = (edges[1:] + edges[:-1]) / 2
    outputs = torch.tensor([[mean, math.log(std)]], dtype=torch.float64).expand(len(middles), 2)
    density = head(1).log_prob(outputs, middles[:, None]).exp()
    assert float((density * edges.diff()).sum()) == pytest.approx(1, abs=1e-4)


def test_gradients_flow_through_samples():
    def sampled(outputs):
        return head().sample(outputs, torch.Generator().manual_seed(3))

    assert torch.autograd.gradcheck(sampled, some_outputs(4).requires_grad_())


def test_the_unit_box_is_mapped_to_the_bounds_and_back():
    space = Box(np.array([[0, -2], [5, 3]], np.float32), np.array([[4, 2], [np.inf, 3]], np.float32))
    squashed = SquashedGaussian(space)
    unit = torch.tensor([[-1.0, -1.0, -1.0, -1.0], [1.0, 1.0, 1.0, 1.0], [0.5, 0.0, 0.5, 0.3]])
    expected = torch.tensor([[[0, -2], [5, 3]], [[4, 2], [7, 3]], [[3, 0], [6.5, 3]]])
    assert torch.equal(squashed.to_box(unit), expected)
    back = squashed.from_box(expected)
    assert torch.equal(back[:, :3], unit[:, :3])
    assert not back[:, 3].any()  # both bounds are 3
