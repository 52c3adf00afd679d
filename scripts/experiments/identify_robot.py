"""Identifies a robot's parameters from how an agent adapts: mass and friction are read off the memory of RL².

python scripts/experiments/identify_robot.py runs/arm        (which adapt_to_own_task.py trains)
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

import metarl
from metarl.agents.recurrent import RecurrentPolicy
from metarl.scripts.experiments.arm import ArmTasks
from metarl.scripts.experiments.experiment import run, save

PARAMETERS = {"mass": "kg", "friction": "N·m·s"}


def remember(agent: metarl.Agent, num_tasks: int, episodes: int, seed: int) -> tuple[Tensor, Tensor]:
    """What the agent remembers after `episodes` of each task, and a one, `[M, H + 1]`; the parameters `[M, 2]`."""
    family = ArmTasks()
    tasks, env = family.sample(num_tasks, split="test", seed=seed), family.make_env(num_tasks)
    env.set_tasks(tasks)
    policy = agent.adapt(env, episodes, seed=seed)
    env.close()
    if not isinstance(policy, RecurrentPolicy) or policy.memory is None:
        raise metarl.UsageError("this experiment reads the memory of rl2: name a run of it")
    memory = policy.memory.hidden[0].double()
    truth = torch.stack([tasks.parameters[name].double() for name in PARAMETERS], dim=1)
    return torch.cat([memory, torch.ones_like(memory[:, :1])], dim=1), truth


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder of an agent with a memory, trained on the arm")
    parser.add_argument("--tasks", type=int, default=1000, help="robots to learn the reading from; 500 others test it")
    parser.add_argument("--output", type=Path, default=Path("runs/identify_robot"))
    options = parser.parse_args(arguments)
    agent, explained = metarl.load_agent(options.run), dict[int, dict[str, float]]()
    for episodes in (1, 2):
        memory, truth = remember(agent, options.tasks, episodes, seed=0)
        unseen, wanted = remember(agent, 500, episodes, seed=1)
        ridge = 1e-3 * len(memory) * torch.eye(memory.shape[1], dtype=torch.float64)
        found = unseen @ torch.linalg.solve(memory.T @ memory + ridge, memory.T @ truth)
        share = 1 - (found - wanted).square().mean(0) / wanted.var(0, correction=0)
        explained[episodes] = dict(zip(PARAMETERS, share.tolist(), strict=True))
        print(f"share of the variance explained after {episodes} episodes:", explained[episodes])
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    for number, (axes, name) in enumerate(zip(figure.subplots(1, 2), PARAMETERS, strict=True)):
        axes.scatter(wanted[:, number], found[:, number], s=6)
        axes.axline([float(wanted[:, number].mean())] * 2, slope=1, color="black", linewidth=0.8)
        axes.set(xlabel=f"{name} ({PARAMETERS[name]})", ylabel="read off the memory")
    save(options, {"explained": explained}, figure)


if __name__ == "__main__":
    run(main)
