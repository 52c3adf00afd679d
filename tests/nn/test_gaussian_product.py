"""Products of Gaussians against products of densities on a grid, and the KL divergence against torch's."""

import torch
from torch.distributions import Independent, Normal, kl_divergence

from metarl.nn.gaussian_product import gaussian_factors, gaussian_product, kl_to_standard


def test_the_product_is_the_normalised_product_of_the_densities():
    outputs = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    precision, weighted_mean = gaussian_factors(outputs)
    mean, variance = gaussian_product(precision.sum(0), weighted_mean.sum(0))
    grid = torch.linspace(-12, 12, 100_001, dtype=torch.float64)
    factors = Normal(outputs[:, :1], torch.log1p(outputs[:, 1:].exp()).sqrt())
    weights = factors.log_prob(grid).sum(0).softmax(0)
    expected = (weights * grid).sum()
    torch.testing.assert_close(mean[0], expected)
    torch.testing.assert_close(variance[0], (weights * (grid - expected).square()).sum())


def test_the_order_of_the_factors_does_not_matter():
    outputs = torch.randn(30, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    precision, weighted_mean = gaussian_factors(outputs)
    forward = gaussian_product(precision.sum(0), weighted_mean.sum(0))
    backward = gaussian_product(precision.flip(0).sum(0), weighted_mean.flip(0).sum(0))
    torch.testing.assert_close(forward, backward)


def test_no_factors_make_a_standard_normal():
    mean, variance = gaussian_product(torch.zeros(5), torch.zeros(5))
    assert not mean.any()
    assert torch.equal(variance, torch.ones(5))


def test_the_kl_divergence_is_that_of_torch():
    mean = torch.randn(7, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    variance = mean.exp().flip(1)
    expected = kl_divergence(
        Independent(Normal(mean, variance.sqrt()), 1),
        Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 1),
    )
    torch.testing.assert_close(kl_to_standard(mean, variance), expected)
