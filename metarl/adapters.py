"""What the adapters to other libraries share: a step for a loop that is not `collect`, and arrays of one's own.

`metarl.collect` checks for faults at the end of a rollout. Another library's loop has no such end, so these check at
every step.
"""

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from metarl.errors import EnvironmentFault, UsageError
from metarl.faults import all_finite
from metarl.parsing import printable
from metarl.spaces import Observations
from metarl.vector_env import StepResult, TaskVectorEnv


@torch.no_grad()
def checked_step(env: TaskVectorEnv, actions: Shaped[Tensor, "B ..."]) -> StepResult:
    """`env.step(actions)`; raises `EnvironmentFault` after a fault that no new episode can follow.

    >>> from metarl.adapters import checked_step
    >>> family = metarl.make("PointNavigation-v0")
    >>> env = family.make_env(2)
    >>> env.set_tasks(family.sample(2, seed=0))
    >>> _ = env.reset(seed=0)
    >>> checked_step(env, torch.zeros(2, 2))[2]
    tensor([False, False])
    """
    result = env.step(actions)
    fault = result[4]["fault"]
    if not env.restarts_faults and bool(fault.any()):
        raise EnvironmentFault(env.describe_fault(int(fault.nonzero()[0]), "a step"))
    check_first_observations(env, result[0])
    return result


def check_first_observations(env: TaskVectorEnv, observations: Observations) -> None:
    """Raises `EnvironmentFault` if `observations`, which `env` returned on a GPU, are not finite.

    On the CPU the environment has checked them itself. A step that was a fault returns the first observations of new
    episodes, so only these can be at fault.
    """
    if env.device.type != "cpu" and not all_finite(observations):
        raise EnvironmentFault(f"{env.distribution.id}: the first observation of an episode is not finite")


def own_array(values: Tensor) -> np.ndarray:
    """A copy of `values` on the CPU: whoever keeps it, or adds to it in place, changes nothing of an environment's."""
    return values.detach().to("cpu", copy=True).numpy()


def as_actions(actions: object, space: gym.Space, count: int) -> Shaped[Tensor, "B ..."]:
    """`actions` `[B, ...]` of `count` environments with the action space `space`, as `TaskVectorEnv` takes them.

    Those of a `Tuple` are a tuple of batches, one for each part. Raises `UsageError` for a wrong number of parts, for
    what is no array of real numbers, and for choices that are not whole numbers; `TaskVectorEnv.step` checks the rest.
    """
    if isinstance(space, gym.spaces.Tuple):
        if not isinstance(actions, tuple) or len(actions) != len(space.spaces):
            raise UsageError(f"actions of {space} are a tuple of {len(space.spaces)} batches, got {actions!r:.60}")
        parts = [as_actions(part, of, count) for part, of in zip(actions, space.spaces, strict=True)]
        return torch.cat([part.float().reshape(count, -1) for part in parts], dim=1)
    try:
        given = np.asarray(actions)
    except ValueError:  # rows of different lengths
        given = np.asarray(None)
    if given.dtype.kind not in "biuf":
        raise UsageError(f"actions of {space} must be an array of numbers, got {printable(repr(actions), 60)}")
    if isinstance(space, gym.spaces.Box):
        return torch.tensor(given, dtype=torch.float32)
    if given.dtype.kind == "b":
        return torch.tensor(given, dtype=torch.int64)
    if given.dtype.kind not in "iu":
        raise UsageError(f"actions of {space} must be whole numbers, got {given.dtype}")
    return torch.tensor(given.astype(np.int64))
