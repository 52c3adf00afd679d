"""A model that Stable-Baselines3 (SB3) has trained as a policy of metarl, for `collect` and `evaluate`."""

from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecNormalize, VecTransposeImage

from metarl.agents.sb3_models import SB3Policy
from metarl.errors import UsageError
from metarl.registry import Family, make
from metarl.sb3 import SB3Actions, sb3_observations


def from_sb3(model: Any, family: Family) -> SB3Policy:
    """`model`, of one of SB3's algorithms, as a policy for environments of `family`.

    It takes the most likely action, as SB3's `evaluate_policy` does. The model was trained on `metarl.to_sb3`, with
    `rescale_actions` or without: which of the two, its action space tells. If its environment is in a `VecNormalize`,
    observations are normalised by the statistics at hand. The file of a model has none: whoever loads one loads them
    too, as its `env`. A recurrent model's memory lasts for an episode. Later training of the model changes the policy.

    Raises `UsageError` if spaces of the model are not those of the family as SB3 sees them, as with stacked frames, and
    for a model that was loaded without its `VecNormalize`. Off-policy models do not show that: one without an
    environment, which would say, is refused.

    >>> from stable_baselines3 import PPO
    >>> family = metarl.make("PointNavigation-v0", horizon=5)
    >>> env = family.make_env(num_tasks=2, envs_per_task=3)
    >>> env.set_tasks(family.sample(2, seed=0))
    >>> model = PPO("MlpPolicy", metarl.to_sb3(env, rescale_actions=True), n_steps=8, batch_size=48).learn(48)
    >>> policy = metarl.from_sb3(model, family)
    >>> metarl.collect(env, policy, episodes=1).actions.shape
    torch.Size([5, 2, 3, 2])
    >>> metarl.evaluate(policy, family, num_tasks=5).episodes_used
    [0]
    """
    if not isinstance(model, BaseAlgorithm):
        raise UsageError(f"from_sb3 takes a model of Stable-Baselines3, got {type(model).__name__}")
    distribution = make(family)
    seen = sb3_observations(distribution.observation_space)
    if not _same_observations(seen, model.observation_space):
        raise UsageError(f"{distribution.id} has the observations {seen}, the model takes {model.observation_space}")
    actions = [SB3Actions(distribution.action_space, rescale=rescale) for rescale in (False, True)]
    fitting = [one for one in actions if one.space == model.action_space]
    if not fitting:
        raise UsageError(f"{distribution.id} has the actions {actions[0].space}, the model gives {model.action_space}")
    normalizer = model.get_vec_normalize_env()
    if normalizer is None:
        _check_normalizer(model)
        return SB3Policy([model.policy], fitting[0])
    return SB3Policy([_NormalizingNetwork(model.policy, normalizer)], fitting[0])


def _check_normalizer(model: BaseAlgorithm) -> None:
    """Raises `UsageError` for a model that has learnt in `VecNormalize`, or may have, and has no environment by now.

    An on-policy model keeps observations before they were normalised, and has none otherwise. An off-policy one keeps
    some in either case: whoever gives it an environment says which of the two it is.
    """
    load = f"{type(model).__name__}.load(FILE, env="
    lost = (
        "the statistics of VecNormalize are not in the model's file: load it with "
        f"{load}VecNormalize.load(STATISTICS, metarl.to_sb3(env)))"
    )
    learns_on = model.env is not None and model._last_obs is not None
    if isinstance(model, OnPolicyAlgorithm):
        if model._last_original_obs is not None and not learns_on:
            raise UsageError(f"the model was trained in VecNormalize; {lost}")
    elif model.env is None:
        raise UsageError(
            "the model has no environment, and does not show by itself if it was trained in VecNormalize: if not, load "
            f"it with {load}metarl.to_sb3(env)); if so, {lost}"
        )


class _NormalizingNetwork:
    """A network of SB3 that is shown what `VecNormalize` makes of observations."""

    def __init__(self, network: Any, normalizer: VecNormalize):
        self.network, self.normalizer = network, normalizer

    @torch.no_grad()
    def predict(self, observations: Any, *arguments: Any, **options: Any) -> Any:
        return self.network.predict(self.normalizer.normalize_obs(observations), *arguments, **options)


def _same_observations(wanted: gym.Space, got: gym.Space) -> bool:
    """Whether two observation spaces of SB3 differ in nothing but bounds and where pictures have their channels."""
    if isinstance(wanted, gym.spaces.Dict):
        same_names = isinstance(got, gym.spaces.Dict) and wanted.spaces.keys() == got.spaces.keys()
        return same_names and all(_same_observations(wanted[name], got[name]) for name in wanted)
    if is_image_space(wanted) and wanted.shape != got.shape:
        wanted = VecTransposeImage.transpose_space(wanted)
    return (type(wanted), wanted.shape, wanted.dtype) == (type(got), got.shape, got.dtype)
