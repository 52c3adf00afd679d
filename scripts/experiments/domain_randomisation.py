"""A sweep of domain randomisation: how wide to vary a hopper's dynamics in training so that it bears a heavier body.

python scripts/experiments/domain_randomisation.py --widths 0.1 1 3 --steps 500000
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

import metarl
from metarl.scripts.experiments.experiment import run, save, trained_agent

FAMILY = "HopperRandParams-v0"


def heavier_hoppers(family: metarl.TaskDistribution, factors: torch.Tensor) -> metarl.Tasks:
    """Tasks that are Gymnasium's hopper but for all of its masses, times each of `factors`."""
    parameters = {name: torch.ones(len(factors), *space.shape) for name, space in family.task_space.items()}
    return metarl.Tasks(parameters | {"body_mass": factors[:, None] * parameters["body_mass"]})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agent", default="multitask", help="PPO without memory by default: robust, not adaptive")
    parser.add_argument("--widths", type=float, nargs="+", default=[0.1, 1.0, 3.0], help="log_scale_limit in training")
    parser.add_argument("--steps", type=int, default=500_000, help="environment steps that each trains for")
    parser.add_argument("--factors", type=float, nargs="+", default=[0.4, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0, 2.6])
    parser.add_argument("--output", type=Path, default=Path("runs/domain_randomisation"))
    options = parser.parse_args(arguments)
    widest = metarl.make(FAMILY, log_scale_limit=4.0)  # allows whatever is to be tested
    hoppers = heavier_hoppers(widest, torch.tensor(options.factors))
    widest.validate(hoppers)  # before hours of training
    figure, returns = Figure(figsize=(7, 4), layout="constrained"), dict[float, list[float]]()
    axes = figure.subplots()
    for width in options.widths:
        config = metarl.TrainConfig(
            agent=options.agent,
            env=FAMILY,
            env_options={"log_scale_limit": width},
            steps=options.steps,
            output=options.output / f"width{width:g}",
        )
        evaluation = metarl.evaluate(trained_agent(config), widest, tasks=hoppers, envs_per_task=20, seed=1)
        returns[width] = evaluation.returns[:, -1].tolist()
        print(f"width {width:g}:", *(f"{value:.0f}" for value in returns[width]))
        axes.plot(options.factors, returns[width], "o-", label=f"trained within 1.5 to the power of ±{width:g}")
    axes.set(xlabel="masses, times the original's", ylabel="return of an episode")
    axes.legend()
    save(options, {"returns": returns}, figure)


if __name__ == "__main__":
    run(main)
