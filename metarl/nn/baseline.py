"""The linear feature baseline (Duan et al. 2016, "Benchmarking deep reinforcement learning", supplement 2)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def episode_time(episode_starts: Bool[Tensor, "T ..."]) -> Int[Tensor, "T ..."]:
    """The number of steps of its episode before each step."""
    steps = torch.arange(len(episode_starts), device=episode_starts.device)
    steps = steps.reshape(-1, *[1] * (episode_starts.ndim - 1)).expand(episode_starts.shape)
    return steps - torch.where(episode_starts, steps, 0).cummax(0).values


def fit_baseline(
    observations: Float[Tensor, "T M N D"],
    time: Int[Tensor, "T M N"],
    returns: Float[Tensor, "T M N"],
    valid: Bool[Tensor, "T M N"],
    *,
    ridge: float = 1e-5,
) -> Float[Tensor, "T M N"]:
    """Fits `returns` by least squares on the `valid` steps of each task; returns the fitted values at every step.

    Features [o, o², t/100, (t/100)², (t/100)³, 1], observations clipped to ±10; (XᵀX + ridge) w = Xᵀy in float64.
    """
    o = observations.clamp(-10, 10)
    t = (time / 100)[..., None].to(o.dtype)
    features = torch.cat([o, o.square(), t, t**2, t**3, torch.ones_like(t)], dim=-1)
    features = features.transpose(0, 1).flatten(1, 2).double()  # [M, T·N, F]
    targets = returns.transpose(0, 1).flatten(1)[..., None].double()
    weighted = features * valid.transpose(0, 1).flatten(1)[..., None]
    gram = weighted.mT @ features
    gram.diagonal(dim1=-2, dim2=-1).add_(ridge)
    coefficients = torch.linalg.solve(gram, weighted.mT @ targets)
    values = (features @ coefficients)[..., 0].to(returns.dtype)
    return values.unflatten(1, returns.shape[::2]).transpose(0, 1)
