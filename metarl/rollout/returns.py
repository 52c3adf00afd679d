"""Returns and advantages over time-major trajectories `[T, ...]`."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.parallel import Ranks


def discounted_returns(
    rewards: Float[Tensor, "T ..."], ended: Bool[Tensor, "T ..."], discount: float
) -> Float[Tensor, "T ..."]:
    """R_t = r_t + γ R_{t+1}, with R_{t+1} = 0 if step t `ended` its episode or is the last one."""
    going_on = (~ended).to(rewards.dtype) * discount
    returns = torch.empty_like(rewards)
    following = torch.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        following = torch.addcmul(rewards[t], going_on[t], following)
        returns[t] = following
    return returns


def gae(
    rewards: Float[Tensor, "T ..."],
    values: Float[Tensor, "T ..."],
    next_values: Float[Tensor, "T ..."],
    terminated: Bool[Tensor, "T ..."],
    ended: Bool[Tensor, "T ..."],
    *,
    discount: float,
    gae_lambda: float,
) -> Float[Tensor, "T ..."]:
    """Generalised advantage estimates (Schulman et al. 2016, eq. 16).

    δ_t = r_t + γ V(s_{t+1}) − V(s_t) and A_t = δ_t + γ λ A_{t+1}. `next_values[t]` is the value of what step t led to,
    before any autoreset. It is ignored if the step terminated, and the sum stops at a step that `ended` its episode, so
    a truncated episode bootstraps from its true last observation. For a value function of finite-horizon returns, pass
    `terminated=ended`.
    """
    deltas = rewards + discount * next_values * (~terminated) - values
    return discounted_returns(deltas, ended, discount * gae_lambda)


def standardize(
    values: Float[Tensor, "..."],
    mask: Bool[Tensor, "..."] | None = None,
    dim: int | tuple[int, ...] | None = None,
    ranks: Ranks | None = None,
) -> Float[Tensor, "..."]:
    """(x − mean) / standard deviation over the entries in `mask` along `dim` (default: all); the others become 0.

    With `ranks`, mean and standard deviation are those of the entries of all ranks.

    If the variance overflows, the result is NaN: dividing by infinity would turn the values into zeros unseen.
    """
    if dim is None:
        dim = tuple(range(values.ndim))
    weight = torch.ones_like(values) if mask is None else mask.to(values.dtype)
    ranks = ranks or Ranks()
    count = ranks.sum(weight.sum(dim, keepdim=True)).clamp(min=1)
    centred = (values - ranks.sum((values * weight).sum(dim, keepdim=True)) / count) * weight
    deviation = (ranks.sum(centred.square().sum(dim, keepdim=True)) / count).sqrt()
    return centred / (deviation + 1e-8).masked_fill(deviation.isinf(), torch.nan)
