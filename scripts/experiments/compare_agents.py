"""Compares agents on a family of one's own, at equal environment steps of training: return on tasks never seen.

python scripts/experiments/compare_agents.py --agents maml rl2 multitask --steps 600000
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import metarl
from metarl.scripts.experiments.arm import ArmTasks
from metarl.scripts.experiments.experiment import run, save, trained_agent

OPTIONS: dict[str, dict[str, int | float]] = {
    "maml": {"num_tasks": 20, "envs_per_task": 10, "initial_std": 0.5, "curvature_fraction": 0.25},
    "rl2": {"num_tasks": 50, "initial_std": 0.5},
    "multitask": {"num_tasks": 100, "initial_std": 0.5},
}
"""Options by agent; agents that are not named here get their defaults."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", nargs="+", default=list(OPTIONS), help="ids that metarl.list_agents() knows")
    parser.add_argument("--steps", type=int, default=600_000, help="environment steps that each agent trains for")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="a training for each")
    parser.add_argument("--output", type=Path, default=Path("runs/compare_agents"))
    options = parser.parse_args(arguments)
    figure, summaries = Figure(figsize=(7, 4), layout="constrained"), dict[str, list[Any]]()
    axes = figure.subplots()
    for number, agent in enumerate(options.agents):
        for seed in options.seeds:
            output, sizes = options.output / f"{agent}-seed{seed}", OPTIONS.get(agent, {})
            config = metarl.TrainConfig(
                agent, ArmTasks, steps=options.steps, seed=seed, agent_options=sizes, output=output
            )
            summary = metarl.evaluate(trained_agent(config), ArmTasks(), num_tasks=100, seed=1).summary()
            summaries.setdefault(agent, []).append(summary)
            used, mean, low, high = (
                [row[name] for row in summary] for name in ("episodes_used", "return_mean", "return_low", "return_high")
            )
            print(f"{agent}, seed {seed}:", ", ".join(f"{m:.1f} after {k}" for k, m in zip(used, mean, strict=True)))
            axes.plot(used, mean, "o-", color=f"C{number}", label=agent if seed == options.seeds[0] else None)
            axes.fill_between(used, low, high, color=f"C{number}", alpha=0.25)
    axes.set(xlabel="episodes of the new task", ylabel="return, 95 % interval over tasks", xscale="symlog")
    axes.legend()
    save(options, {"summaries": summaries}, figure)


if __name__ == "__main__":
    run(main)
