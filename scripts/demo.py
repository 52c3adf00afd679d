"""`make demo`: trains MAML on point navigation for about a minute and shows how it adapts to unseen goals."""

import sys
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from metarl.agent import Agent
from metarl.distribution import TaskDistribution
from metarl.errors import UsageError
from metarl.experiment import AgentRun, TrainConfig, load_run, train
from metarl.rollout import Trajectories, collect
from metarl.scripts import evaluate

ITERATIONS = 120
EPISODES_SHOWN = 3
STAGES = {0: "before adaptation", 1: "after 1 gradient step", 3: "after 3 gradient steps"}


def main() -> int:
    """Trains, evaluates on 40 held-out goals and draws paths; returns the exit code."""
    config = TrainConfig(
        agent="maml",
        env="PointNavigation-v0",
        iterations=ITERATIONS,
        agent_options={"curvature_fraction": 0.25},
    )
    print(f"Training MAML on {config.env}: {ITERATIONS} iterations of 20 tasks × 20 episodes.\n", flush=True)
    try:
        path = train(config)
        print("\nEpisodes on 40 goals that training never saw, after 0 to 3 gradient steps of 20 episodes each:\n")
        evaluate.main([str(path)])
    except UsageError as error:
        print("metarl: error:", error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    run = load_run(path)
    assert isinstance(run, AgentRun)
    picture = path / "plots" / "paths.png"
    draw_paths(run.agent, run.distribution, picture)
    print(f"\nPaths before and after adaptation: {picture}\nThe whole run: {path}")
    return 0


def draw_paths(agent: Agent, distribution: TaskDistribution, picture: Path, num_tasks: int = 6, seed: int = 2) -> None:
    """Draws the agent's paths to held-out goals, with a panel for each of `STAGES`, and saves them as `picture`."""
    tasks = distribution.sample(num_tasks, split="test", seed=seed)
    batch = agent.config.envs_per_task
    env = distribution.make_env(num_tasks, batch, device=agent.device)
    env.set_tasks(tasks)
    goals = tasks.parameters["goal"].numpy()
    figure = Figure(figsize=(12, 4.3), layout="constrained")
    for axes, (steps, title) in zip(
        figure.subplots(1, len(STAGES), sharex=True, sharey=True), STAGES.items(), strict=True
    ):
        policy = agent.adapt(env, steps * batch, seed=seed)
        paths = _first_episodes(env.num_tasks, collect(env, policy, episodes=1, seed=seed))
        for task, (goal, episodes) in enumerate(zip(goals, paths, strict=True)):
            colour = f"C{task}"
            for episode in episodes:
                axes.plot(*episode.T, color=colour, alpha=0.6, linewidth=1)
            axes.plot(*goal, marker="*", markersize=15, color=colour, markeredgecolor="black", linestyle="none")
        axes.plot(0, 0, marker="o", color="black")
        ticks = (-0.5, 0, 0.5)
        axes.set(title=title, aspect="equal", xlim=(-0.75, 0.75), ylim=(-0.75, 0.75), xticks=ticks, yticks=ticks)
        axes.grid(alpha=0.3)
    env.close()
    figure.savefig(picture, dpi=120)


def _first_episodes(num_tasks: int, trajectories: Trajectories) -> list[list[Float[np.ndarray, "t 2"]]]:
    """For each task, the positions visited in the first episode of its first few environments."""
    first = trajectories.episode_index == 0
    seen, reached = trajectories.observations, trajectories.final_observations
    assert isinstance(seen, Tensor)
    assert isinstance(reached, Tensor)
    return [
        [
            torch.cat([seen[0, task, env][None], reached[first[:, task, env], task, env]]).cpu().numpy()
            for env in range(EPISODES_SHOWN)
        ]
        for task in range(num_tasks)
    ]


if __name__ == "__main__":
    sys.exit(main())
