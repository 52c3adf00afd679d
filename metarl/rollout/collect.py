"""The rollout engine's loop: the only place in the project that calls `env.step`."""

from collections.abc import Callable

import torch
from torch import Tensor

from metarl.rollout.policy import FunctionPolicy, Policy, PolicyStep
from metarl.rollout.trajectories import Trajectories
from metarl.tasks import check_count
from metarl.vector_env import TaskVectorEnv


@torch.no_grad()
def collect(
    env: TaskVectorEnv,
    policy: Policy | Callable[[Tensor], Tensor],
    num_steps: int,
    *,
    seed: int | None = None,
) -> Trajectories:
    """Resets `env` and takes `num_steps` steps with `policy` in all of its environments.

    `policy` is a `Policy`, or a plain function from flat observations `[B, D]` to actions `[B, A]` (or `[B]`).
    `seed` goes to the reset; without one the environments' own random streams go on.
    """
    check_count("number of steps", num_steps)
    actor = policy if isinstance(policy, Policy) else FunctionPolicy(policy)
    shape = (env.num_tasks, env.envs_per_task)
    observations, _ = env.reset(seed=seed)
    starts = torch.ones(shape, dtype=torch.bool, device=env.device)
    steps = []
    for _ in range(num_steps):
        step = actor.act(observations.unflatten(0, shape))
        next_observations, rewards, terminated, truncated, info = env.step(step.actions.flatten(0, 1))
        record = {
            "observations": observations,
            "rewards": rewards,
            "terminated": terminated,
            "truncated": truncated,
            "final_observations": info["final_obs"],
        }
        record |= {name: info[name] for name in ("success", "fault") if name in info}
        record = {name: value.unflatten(0, shape) for name, value in record.items()}
        actor.observe(record["rewards"], record["terminated"], record["truncated"])
        steps.append((step, record | {"episode_starts": starts}))
        starts = record["terminated"] | record["truncated"]
        observations = next_observations
    return _stack(steps)


def _stack(steps: list[tuple[PolicyStep, dict[str, Tensor]]]) -> Trajectories:
    first, record = steps[0]
    log_probs = [step.log_probs for step, _ in steps if step.log_probs is not None]
    return Trajectories(
        actions=torch.stack([step.actions for step, _ in steps]),
        log_probs=torch.stack(log_probs) if log_probs else None,
        extras={name: torch.stack([step.extras[name] for step, _ in steps]) for name in first.extras},
        **{name: torch.stack([values[name] for _, values in steps]) for name in record},
    )
