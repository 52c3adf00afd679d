"""The meta-test protocol: how well an agent does on tasks it has never seen, after how many episodes of them."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.agent import Agent
from metarl.randomness import derive_seed
from metarl.registry import make
from metarl.rollout import collect
from metarl.statistics import interquartile_mean, stratified_bootstrap_interval
from metarl.tasks import TaskDistribution, Tasks, check_count


@dataclass(frozen=True)
class Evaluation:
    """Scores of `M` tasks at `S` stages of adaptation."""

    returns: Float[Tensor, "M S"]
    """Undiscounted return of an episode, averaged over the environments that ran the task."""
    success: Float[Tensor, "M S"] | None
    """Share of those episodes that succeeded at any step; None where the family defines no success."""
    episodes_used: list[int]
    """Episodes of the test task spent on adaptation before each stage: 0 is zero-shot."""
    tasks: Tasks

    def summary(self) -> list[dict[str, Any]]:
        """One row a stage: mean, inter-quartile mean and 95 % stratified-bootstrap interval of the mean over tasks.

        Keys: `episodes_used`, `return_mean`, `return_iqm`, `return_low`, `return_high`, and the same for `success`
        where there is one. Strata are the values of the task parameter `task_index`, if the family has it.
        """
        rows: list[dict[str, Any]] = [{"episodes_used": used} for used in self.episodes_used]
        strata = np.zeros(len(self.tasks), dtype=np.int64)
        if "task_index" in self.tasks.parameters:
            strata = self.tasks.parameters["task_index"].cpu().numpy().astype(np.int64).reshape(len(self.tasks))
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
        """A JSON text with the keys `returns`, `success`, `episodes_used`, `tasks` and `summary`."""
        return json.dumps(
            {
                "returns": self.returns.tolist(),
                "success": None if self.success is None else self.success.tolist(),
                "episodes_used": self.episodes_used,
                "tasks": json.loads(self.tasks.to_json()),
                "summary": self.summary(),
            },
            indent=2,
        )

    @classmethod
    def from_json(cls, text: str) -> "Evaluation":
        data = json.loads(text)
        success = None if data["success"] is None else torch.tensor(data["success"])
        tasks = Tasks.from_json(data["tasks"])
        return cls(torch.tensor(data["returns"]), success, data["episodes_used"], tasks)


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
) -> Evaluation:
    """Adapts `agent` to `num_tasks` tasks of `split`, or to `tasks`, and measures it at the stages of its adaptation.

    `episodes` is the budget of each task; the agent says at which parts of it measuring makes sense (`Agent.stages`).
    At each stage the return of one fresh episode is measured in every environment; those episodes teach the agent
    nothing. `device` is the agent's by default, `envs_per_task` that of its training.
    """
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
            trajectories = collect(env, probe, distribution.horizon, seed=seeds[2])
            returns.append(trajectories.episode_returns().mean(1).cpu())
            succeeded = trajectories.episode_success()
            if succeeded is not None:
                success.append(succeeded.float().mean(1).cpu())
            spent = budget
    finally:
        env.close()
    return Evaluation(
        returns=torch.stack(returns, dim=1),
        success=torch.stack(success, dim=1) if success else None,
        episodes_used=stages,
        tasks=tasks,
    )
