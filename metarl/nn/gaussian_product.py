"""Products of Gaussian factors: a belief about a latent variable from any number of observations, in any order.

A factor N(m, s²) has the natural parameters 1/s² and m/s². The product of factors is the Gaussian that has the sums of
them. So a belief takes the same memory after any number of observations.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LEAST_VARIANCE = 1e-6
"""The variance of a factor is softplus of a network's output, and at least this."""
Natural = tuple[Tensor, Tensor]
"""Precision 1/s² and precision times mean m/s², each `[..., L]`; zeros stand for no observation."""


def gaussian_factors(outputs: Float[Tensor, "... P"]) -> Natural:
    """The natural parameters of one factor per row of a network's outputs `[..., 2L]`: means, then variances.

    >>> from metarl.nn.gaussian_product import gaussian_factors
    >>> precision, weighted_mean = gaussian_factors(torch.zeros(3, 10))
    >>> precision.shape, weighted_mean.shape
    (torch.Size([3, 5]), torch.Size([3, 5]))
    """
    mean, variance = outputs.chunk(2, dim=-1)
    precision = F.softplus(variance).clamp(min=LEAST_VARIANCE).reciprocal()
    return precision, precision * mean


def gaussian_product(
    precision: Float[Tensor, "... L"], weighted_mean: Float[Tensor, "... L"]
) -> tuple[Float[Tensor, "... L"], Float[Tensor, "... L"]]:
    """Mean and variance of the Gaussian with these sums of natural parameters; N(0, 1) for the product of no factors.

    >>> from metarl.nn.gaussian_product import gaussian_product
    >>> gaussian_product(torch.tensor([0.0, 4.0]), torch.tensor([0.0, 2.0]))
    (tensor([0.0000, 0.5000]), tensor([1.0000, 0.2500]))
    """
    variance = torch.where(precision > 0, precision, 1.0).reciprocal()
    return variance * weighted_mean, variance


def kl_to_standard(mean: Float[Tensor, "... L"], variance: Float[Tensor, "... L"]) -> Float[Tensor, "..."]:
    """KL(N(mean, variance) ‖ N(0, I)), summed over the last dimension.

    >>> from metarl.nn.gaussian_product import kl_to_standard
    >>> kl_to_standard(torch.tensor([0.0, 2.0]), torch.ones(2))
    tensor(2.)
    """
    return 0.5 * (mean.square() + variance - 1 - variance.log()).sum(-1)
