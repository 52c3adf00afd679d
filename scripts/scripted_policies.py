"""Meta-World's own scripted policies, as a policy of a batch."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from metarl.rollout import Policy, PolicyStep


class ScriptedPolicies(Policy):
    """One scripted policy for each environment, by the name of its task; goals have to be observed.

    >>> policy = ScriptedPolicies(["reach-v3"] * env.num_envs)
    """

    def __init__(self, names: Sequence[str]):
        from metaworld.policies import ENV_POLICY_MAP

        policies: Mapping[str, Any] = ENV_POLICY_MAP
        self._policies = [policies[name]() for name in names]

    def act(self, observations: Any) -> PolicyStep:
        rows = observations.flatten(0, 1).double().cpu().numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the environment will clip what they ask for
            actions = [policy.get_action(row) for policy, row in zip(self._policies, rows, strict=True)]
        batch = torch.stack([torch.as_tensor(action, dtype=torch.float32) for action in actions])
        return PolicyStep(batch.clamp(-1, 1).view(*observations.shape[:2], -1).to(observations.device))
