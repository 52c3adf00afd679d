"""The meta-test protocol: how well an agent does on tasks it has never seen, after how many episodes of them."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.agent import Agent
from metarl.errors import UsageError
from metarl.randomness import derive_seed
from metarl.registry import make
from metarl.rollout import Policy, Trajectories, collect
from metarl.statistics import interquartile_mean, stratified_bootstrap_interval
from metarl.tasks import TaskDistribution, Tasks, check_count
from metarl.vector_env import TaskVectorEnv

PROTOCOLS = ("per-task", "metaworld")
FIRST_EPISODES = 3
"""How many episodes of each name `metaworld.evaluation.metalearning_evaluation` counts."""


@dataclass(frozen=True)
class Evaluation:
    """Scores of `M` tasks at `S` stages of adaptation; under the protocol `"metaworld"` of `M` names of tasks."""

    returns: Float[Tensor, "M S"]
    """Undiscounted return of an episode, averaged over the environments that ran the task."""
    success: Float[Tensor, "M S"] | None
    """Share of those episodes that succeeded at any step; None where the family defines no success."""
    episodes_used: list[int]
    """Episodes of the test task spent on adaptation before each stage: 0 is zero-shot."""
    tasks: Tasks
    """Under the protocol `"metaworld"` a goal of each name."""
    protocol: str = "per-task"

    def summary(self) -> list[dict[str, Any]]:
        """One row a stage: mean, inter-quartile mean and 95 % stratified-bootstrap interval of the mean over tasks.

        Keys: `episodes_used`, `return_mean`, `return_iqm`, `return_low`, `return_high`, and the same for `success`
        where there is one. Strata are the values of the task parameter `task_index`, if the family has it and there is
        more than one task of each.
        """
        rows: list[dict[str, Any]] = [{"episodes_used": used} for used in self.episodes_used]
        strata = np.zeros(len(self.tasks), dtype=np.int64)
        if "task_index" in self.tasks.parameters:
            index = self.tasks.parameters["task_index"].cpu().numpy().astype(np.int64).reshape(len(self.tasks))
            strata = index if len(np.unique(index)) < len(index) else strata
        for name, values in (("return", self.returns), ("success", self.success)):
            if values is None:
                continue
            scores = values.double().cpu().numpy()
            low, high = stratified_bootstrap_interval(scores, strata)
            iqm = interquartile_mean(scores.T)
            for stage, row in enumerate(rows):
                row[f"{name}_mean"] = float(scores[:, stage].mean())
                row[f"{name}_iqm"] = float(iqm[stage])
                row[f"{name}_low"] = float(low[stage])
                row[f"{name}_high"] = float(high[stage])
        return rows

    def to_json(self) -> str:
        """A JSON text with the keys `returns`, `success`, `episodes_used`, `tasks`, `protocol` and `summary`."""
        return json.dumps(
            {
                "returns": self.returns.tolist(),
                "success": None if self.success is None else self.success.tolist(),
                "episodes_used": self.episodes_used,
                "tasks": json.loads(self.tasks.to_json()),
                "protocol": self.protocol,
                "summary": self.summary(),
            },
            indent=2,
        )

    @classmethod
    def from_json(cls, text: str) -> "Evaluation":
        data = json.loads(text)
        success = None if data["success"] is None else torch.tensor(data["success"])
        tasks = Tasks.from_json(data["tasks"])
        protocol = data.get("protocol", "per-task")
        return cls(torch.tensor(data["returns"]), success, data["episodes_used"], tasks, protocol)


def evaluate(
    agent: Agent,
    distribution: TaskDistribution | str,
    *,
    num_tasks: int = 40,
    episodes: int | None = None,
    split: str = "test",
    seed: int = 0,
    backend: str = "auto",
    device: torch.device | str | None = None,
    envs_per_task: int | None = None,
    tasks: Tasks | None = None,
    protocol: str = "per-task",
) -> Evaluation:
    """Adapts `agent` to `num_tasks` tasks of `split`, or to `tasks`, and measures it at the stages of its adaptation.

    `episodes` is the budget of each task; the agent says at which parts of it measuring makes sense (`Agent.stages`).
    At each stage the return of one fresh episode is measured in every environment; those episodes teach the agent
    nothing. `device` is the agent's by default, `envs_per_task` that of its training.

    `protocol`: `"per-task"`, in which every task counts once, or `"metaworld"`, the one of `metaworld.evaluation`, for
    comparison with published numbers (`first_to_finish`). Raises `UsageError` where the family does not offer it.
    """
    if protocol not in PROTOCOLS:
        raise UsageError(f"unknown protocol {protocol!r}: choose from {', '.join(PROTOCOLS)}")
    if episodes is not None:
        check_count("number of episodes", episodes)
    if isinstance(distribution, str):
        distribution = make(distribution)
    if tasks is None:
        tasks = distribution.sample(num_tasks, split=split, seed=seed)
    env = distribution.make_env(
        len(tasks),
        agent.config.envs_per_task if envs_per_task is None else envs_per_task,
        backend=backend,
        device=agent.device if device is None else device,
        seed=derive_seed("evaluation", seed),
    )
    stages = agent.stages(episodes)
    returns: list[Tensor] = []
    success: list[Tensor] = []
    try:
        env.set_tasks(tasks)
        policy, spent = None, 0
        for stage, budget in enumerate(stages):
            seeds = [derive_seed("evaluation", seed, stage, part) for part in ("adapt", "act", "reset")]
            policy = agent.adapt(env, budget - spent, seed=seeds[0], policy=policy)
            probe = agent.adapt(env, 0, seed=seeds[1], policy=policy)
            score, succeeded = _measure(env, probe, protocol, seeds[2])
            returns.append(score.cpu())
            if succeeded is not None:
                success.append(succeeded.float().cpu())
            spent = budget
    finally:
        env.close()
    return Evaluation(
        returns=torch.stack(returns, dim=1),
        success=torch.stack(success, dim=1) if success else None,
        episodes_used=stages,
        tasks=tasks if protocol == "per-task" else tasks[_first_of_each(tasks.parameters["task_index"])],
        protocol=protocol,
    )


def _measure(
    env: TaskVectorEnv, policy: Policy, protocol: str, seed: int
) -> tuple[Float[Tensor, "K"], Float[Tensor, "K"] | None]:
    """Mean return and share of successes of each task, or of each name of tasks."""
    horizon = env.distribution.horizon
    if protocol == "per-task":
        trajectories = collect(env, policy, horizon, seed=seed)
        succeeded = trajectories.episode_success()
        return trajectories.episode_returns().mean(1), None if succeeded is None else succeeded.float().mean(1)
    if "task_index" not in env.tasks.parameters or not hasattr(env, "terminate_on_success"):
        raise UsageError(
            f"protocol 'metaworld' is for Meta-World's families under backends mujoco and warp, "
            f"not for {env.distribution.id} under {env.backend}"
        )
    names = env.tasks.parameters["task_index"]
    fewest = int(names.unique(return_counts=True)[1].min()) * env.envs_per_task
    before, env.terminate_on_success = env.terminate_on_success, True
    try:
        trajectories = collect(env, policy, horizon * -(-FIRST_EPISODES // fewest), seed=seed)
    finally:
        env.terminate_on_success = before
    return first_to_finish(trajectories, names)


def first_to_finish(
    trajectories: Trajectories, names: Int[Tensor, "M"], count: int = FIRST_EPISODES
) -> tuple[Float[Tensor, "K"], Float[Tensor, "K"]]:
    """Mean return and share of successes of the first `count` episodes to finish among all tasks of one name.

    So `metaworld.evaluation` counts (version 3.0), with episodes that end at their first success: a goal that is
    reached soon is tried again and may count `count` times, and goals that take long may not count at all. `names`
    `[M]`: the number of each task's name; the results follow `names.unique()`.
    """
    ends = trajectories.ended.flatten(1)
    # Returns of the episodes that end at each step: what has been paid since the episode before.
    paid = trajectories.rewards.flatten(1).double().cumsum(0)
    succeeded = trajectories.success.flatten(1) if trajectories.success is not None else torch.zeros_like(ends)
    owner = names.repeat_interleave(trajectories.rewards.shape[2])
    scores = []
    for name in names.unique():
        chosen = (owner == name).nonzero()[:, 0]
        finished = ends[:, chosen].nonzero()[:count]  # in the order of time, then of environments
        step, env = finished[:, 0], chosen[finished[:, 1]]
        earlier = ends[:, env] & (torch.arange(len(ends), device=ends.device)[:, None] < step)
        previous = torch.where(earlier, paid[:, env], 0.0)
        last = (earlier * torch.arange(1, len(ends) + 1, device=ends.device)[:, None]).argmax(0)
        returns = paid[step, env] - previous[last, torch.arange(len(env), device=ends.device)]
        scores.append(torch.stack([returns.mean(), succeeded[step, env].double().mean()]))
    result = torch.stack(scores).float()
    return result[:, 0], result[:, 1]


def _first_of_each(index: Int[Tensor, "M"]) -> Int[Tensor, "K"]:
    """Where each value comes first, in the order of the values."""
    return torch.stack([(index == value).nonzero()[0, 0] for value in index.unique()])
