"""Plans in the batched engine by random shooting, beside an adapted policy that has to find out its task.

python scripts/experiments/plan_by_shooting.py runs/arm      (which adapt_to_own_task.py trains)
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import metarl
from metarl.scripts.experiments.arm import ArmTasks
from metarl.scripts.experiments.experiment import run, save


class RandomShooting(metarl.Policy):
    """Tries `candidates` pairs of random actions from where each robot is; takes the first action of the best pair.

    It looks into the simulator, so it knows mass, friction and target, which an agent has to find out.
    """

    def __init__(self, env: metarl.TaskVectorEnv, candidates: int, depth: int):
        self.env, self.depth, self.generator = env, depth, torch.Generator().manual_seed(0)
        self.imagined = ArmTasks().make_env(env.num_tasks, candidates)
        self.imagined.set_tasks(env.tasks)

    def act(self, observations: Any) -> metarl.PolicyStep:
        worlds, candidates = self.imagined, self.imagined.envs_per_task
        space = worlds.single_action_space
        unit = torch.rand(2, worlds.num_envs, *space.shape, generator=self.generator)
        first, second = torch.as_tensor(space.low) + torch.as_tensor(space.high - space.low) * unit
        worlds.set_state({name: rows.repeat_interleave(candidates, 0) for name, rows in self.env.get_state().items()})
        total, going_on = torch.zeros(worlds.num_envs), torch.ones(worlds.num_envs)
        for step in range(self.depth):  # each action is held for half of the time
            _, reward, terminated, truncated, _ = worlds.step(first if 2 * step < self.depth else second)
            total, going_on = total + going_on * reward, going_on * ~(terminated | truncated)
        best = total.view(-1, candidates).argmax(1) + candidates * torch.arange(worlds.num_tasks)
        return metarl.PolicyStep(first[best][:, None])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder of an agent trained on the arm")
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--candidates", type=int, nargs="+", default=[8, 32, 128], help="pairs tried at each step")
    parser.add_argument("--depth", type=int, default=8, help="steps looked ahead")
    parser.add_argument("--output", type=Path, default=Path("runs/plan_by_shooting"))
    options = parser.parse_args(arguments)
    family, agent, returns = ArmTasks(), metarl.load_agent(options.run), dict[str, float]()
    env = family.make_env(options.tasks)
    env.set_tasks(family.sample(options.tasks, split="test", seed=1))
    policies: dict[str, metarl.Policy] = {f"agent after {count} episodes": agent.adapt(env, count) for count in (0, 2)}
    for count in options.candidates:
        policies[f"shooting, {count} candidates"] = RandomShooting(env, count, options.depth)
    for name, policy in policies.items():
        returns[name] = float(metarl.collect(env, policy, episodes=1, seed=2).episode_returns().mean())
        print(f"{name}: {returns[name]:.1f}")
    save(options, {"returns": returns})


if __name__ == "__main__":
    run(main)
