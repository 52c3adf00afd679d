"""Adapts a trained agent to a robot task of one's own: RL² holds a load heavier than any of its training.

python scripts/experiments/adapt_to_own_task.py --target 0.7 0.2 --mass 3
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

import metarl
from metarl.scripts.experiments.arm import ArmTasks
from metarl.scripts.experiments.experiment import run, save, trained_agent


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/arm"), help="run folder, trained if need be")
    parser.add_argument("--steps", type=int, default=1_000_000, help="environment steps of that training")
    parser.add_argument("--target", type=float, nargs=2, default=(0.7, 0.2), help="where to hold the load (m)")
    parser.add_argument("--mass", type=float, default=3.0, help="of the load (kg); 0.2 to 2.2 in training")
    parser.add_argument("--friction", type=float, default=14.0, help="of the joints (N·m·s); 2 to 12 in training")
    parser.add_argument("--output", type=Path, default=Path("runs/adapt_to_own_task"))
    options = parser.parse_args(arguments)
    sizes = {"num_tasks": 50, "initial_std": 0.5}
    config = metarl.TrainConfig("rl2", ArmTasks, steps=options.steps, output=options.run, agent_options=sizes)
    family = ArmTasks()
    own = family.task(target=options.target, mass=options.mass, friction=options.friction)  # may be refused
    agent = trained_agent(config)
    results, distances = dict[str, list[float]](), dict[str, Tensor]()
    for name, tasks, copies in (("unseen tasks", family.sample(100, split="test", seed=1), 1), ("own task", own, 100)):
        env = family.make_env(len(tasks), copies)
        env.set_tasks(tasks)
        # The memory of RL² is what adapts: a policy that nobody resets goes on learning from episode to episode.
        trajectories = metarl.collect(env, agent.adapt(env, episodes=0), episodes=3, seed=2)
        env.close()
        results[name] = [float(trajectories.episode_returns(episode).mean()) for episode in range(3)]
        distances[name] = -trajectories.rewards.mean((1, 2))
        print(name, "return of episodes 1 to 3:", *(f"{value:.1f}" for value in results[name]))
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, distance in distances.items():
        axes.plot(distance, label=name)
    axes.set(xlabel="steps of the trial, three episodes", ylabel="distance to the target (m)", ylim=(0, None))
    axes.legend()
    save(options, {"returns": results}, figure)


if __name__ == "__main__":
    run(main)
