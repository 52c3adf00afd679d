"""The rollout engine's loop: the only place in the project that calls `env.step`."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from metarl.errors import UsageError
from metarl.rollout.faults import report_faults
from metarl.rollout.policy import FunctionPolicy, Policy, Transition
from metarl.rollout.storage import RolloutStorage
from metarl.rollout.trajectories import Trajectories
from metarl.spaces import Observations, map_tensors
from metarl.tasks import check_count
from metarl.threads import torch_threads
from metarl.vector_env import TaskVectorEnv

ROOM = 512
"""Steps to allocate memory for at first if their number is not known in advance."""


@torch.no_grad()
def collect(
    env: TaskVectorEnv,
    policy: Policy | Callable[[Tensor], Tensor],
    num_steps: int | None = None,
    *,
    episodes: int | None = None,
    episodes_per_trial: int | None = None,
    seed: int | None = None,
) -> Trajectories:
    """Resets `env` and steps all its environments with `policy`; returns the trajectories, `[T, M, N, ...]`.

    It runs for `num_steps` steps, or until every environment has ended `episodes` episodes. In the second case,
    environments that have ended theirs keep stepping until the last one has: `Transition.active` marks them for the
    policy, `Trajectories.episode_index` for the reader. Episodes have the environment's own horizon.
    On several ranks (`env.ranks`), the last environment is the last one of all ranks.

    `policy` is a `Policy`, or a plain function from flat observations `[B, D]` to actions `[B, A]` (or `[B]`). A policy
    keeps the memory it comes with, and `policy.begin_rollout` tells it of the reset. With `episodes_per_trial`, the
    trial of an environment ends after that many of its episodes, and `policy.begin_trial` is called for the next one.
    `seed` seeds the reset; without it the environments continue their own random streams.

    Raises `UsageError` for a count below one, for both or neither of `num_steps` and `episodes`, and for environments
    whose episodes do not end within their horizon.

    >>> family = metarl.make("PointNavigation-v0", horizon=5)
    >>> env = family.make_env(num_tasks=2, envs_per_task=3)
    >>> env.set_tasks(family.sample(2, seed=0))
    >>> trajectories = metarl.collect(env, lambda observations: -observations, episodes=1, seed=0)
    >>> trajectories.episode_returns().shape
    torch.Size([2, 3])
    """
    with torch_threads():
        return _collect(env, _as_policy(policy), num_steps, episodes, episodes_per_trial, seed)


def _collect(
    env: TaskVectorEnv,
    actor: Policy,
    num_steps: int | None,
    episodes: int | None,
    episodes_per_trial: int | None,
    seed: int | None,
) -> Trajectories:
    limit = _limit(env, num_steps, episodes)
    if episodes_per_trial is not None:
        check_count("episodes_per_trial", episodes_per_trial)
    shape = (env.num_tasks, env.envs_per_task)
    storage = RolloutStorage(min(limit, ROOM) if num_steps is None else limit, shape)
    # A policy that keeps the default, which does nothing, is spared the views.
    listens = getattr(actor.observe, "__func__", actor.observe) is not Policy.observe
    counting = episodes is not None or episodes_per_trial is not None
    finished = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)
    observations, _ = env.reset(seed=seed)
    actor.begin_rollout()
    for t in range(limit):
        step = actor.act(_by_task(observations, shape))
        returned, rewards, terminated, truncated, info = env.step(step.actions.flatten(0, 1))
        ended = terminated | truncated
        storage.put(step, observations, rewards, terminated, truncated, ended, info)
        if listens:
            outcome = (observations, rewards, terminated, truncated, info["final_obs"])
            active = None if episodes is None else finished < episodes
            actor.observe(_transition(shape, step.actions, *outcome, active))
        observations = returned
        if counting:
            finished = finished + ended
        if episodes_per_trial is not None:
            actor.begin_trial((ended & (finished % episodes_per_trial == 0)).unflatten(0, shape))
        if episodes is not None and _all_finished(env, finished, episodes, t + 1):
            break
    trajectories = storage.trajectories(observations, episodes_per_trial)
    report_faults(env, trajectories)
    return trajectories


def _by_task(values: Observations, shape: tuple[int, int]) -> Observations:
    """A flat batch `[B, ...]` as `[M, N, ...]`."""
    return map_tensors(lambda value: value.unflatten(0, shape), values)


def _transition(
    shape: tuple[int, int],
    actions: Shaped[Tensor, "M N ..."],
    observations: Observations,
    rewards: Float[Tensor, "B"],
    terminated: Bool[Tensor, "B"],
    truncated: Bool[Tensor, "B"],
    reached: Observations,
    active: Bool[Tensor, "B"] | None,
) -> Transition:
    """A step of the flat batch as `M` tasks times `N` environments."""
    return Transition(
        observations=_by_task(observations, shape),
        actions=actions,
        rewards=rewards.unflatten(0, shape),
        terminated=terminated.unflatten(0, shape),
        truncated=truncated.unflatten(0, shape),
        next_observations=_by_task(reached, shape),
        active=None if active is None else active.unflatten(0, shape),
    )


def _limit(env: TaskVectorEnv, num_steps: int | None, episodes: int | None) -> int:
    """The largest possible number of steps."""
    if num_steps is not None and episodes is None:
        check_count("number of steps", num_steps)
        return num_steps
    if episodes is not None and num_steps is None:
        check_count("number of episodes", episodes)
        return episodes * env.horizon
    raise UsageError("collect takes either a number of steps or episodes=K")


def _as_policy(policy: Policy | Callable[[Tensor], Tensor]) -> Policy:
    if isinstance(policy, Policy):
        return policy
    if hasattr(policy, "act"):
        raise UsageError(
            f"{type(policy).__name__} lacks methods of a policy: subclass metarl.Policy, which has them all"
        )
    return FunctionPolicy(policy)


def _all_finished(env: TaskVectorEnv, finished: Int[Tensor, "B"], episodes: int, steps: int) -> bool:
    """Whether every environment of all ranks has ended its episodes: they take the same number of steps.

    Waits for a GPU only at multiples of the horizon.
    """
    last = steps == episodes * env.horizon
    if not last and (steps < episodes or (env.device.type != "cpu" and steps % env.horizon)):
        return False
    done = not env.ranks.any(not bool((finished >= episodes).all()))
    if last and not done:
        raise UsageError(
            f"{env.distribution.id}: an environment did not end {episodes} episodes in as many times its horizon, "
            f"{env.horizon} steps: it has to truncate every episode there"
        )
    return done
