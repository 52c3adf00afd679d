"""The distribution over actions that fits an action space."""

import gymnasium as gym
import torch

from metarl.nn.action_distribution import Head, Phi
from metarl.nn.categorical import CategoricalHead, FactoredCategoricalHead
from metarl.nn.gaussian import GaussianHead
from metarl.nn.product import ProductHead
from metarl.spaces import check_action_space

__all__ = ["CategoricalHead", "FactoredCategoricalHead", "GaussianHead", "Head", "Phi", "ProductHead", "head_for"]


def head_for(action_space: gym.Space) -> Head:
    """The head for `action_space`; raises `UsageError` for a space that is none of the contract's action spaces.

    Gaussians for a `Box` of any shape, a categorical distribution for `Discrete`, independent ones for `MultiDiscrete`
    and `MultiBinary`, and the product of the parts' heads for a `Tuple`.
    """
    check_action_space(action_space, "no policy for this action space")
    return _head(action_space)


def _head(space: gym.Space) -> Head:
    if isinstance(space, gym.spaces.Tuple):
        return ProductHead([_head(part) for part in space.spaces])
    if isinstance(space, gym.spaces.Discrete):
        return CategoricalHead(int(space.n), int(space.start))
    if isinstance(space, gym.spaces.MultiDiscrete):
        return FactoredCategoricalHead(space.nvec.tolist(), space.start.tolist())
    if isinstance(space, gym.spaces.MultiBinary):
        return FactoredCategoricalHead([2] * space.shape[0])
    assert isinstance(space, gym.spaces.Box)
    return GaussianHead(space.shape, torch.as_tensor(space.low), torch.as_tensor(space.high))
