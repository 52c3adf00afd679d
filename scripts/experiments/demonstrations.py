"""Meta-World's scripted policies as demonstrations and as an upper bound: a small network learns to do as they do.

python scripts/experiments/demonstrations.py --tasks reach-v3 push-v3 door-open-v3
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import metarl
from metarl.scripts.experiments.experiment import run, save
from metarl.scripts.scripted_policies import ScriptedPolicies


def clone(seen: Tensor, actions: Tensor, epochs: int, seed: int) -> Callable[[Tensor], Tensor]:
    """A network that gives `actions` `[K, 4]` for the observations `seen` `[K, D]`, by least squares."""
    mean, std = seen.mean(0), seen.std(0).clamp_min(1e-3)
    inputs = (seen - mean) / std
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(inputs.shape[1], 256), nn.Tanh(), nn.Linear(256, 4))
    optimizer, generator = torch.optim.Adam(network.parameters(), lr=1e-3), torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(actions), generator=generator).split(256):
            optimizer.zero_grad()
            nn.functional.mse_loss(network(inputs[rows]), actions[rows]).backward()
            optimizer.step()
    return lambda rows: network((rows - mean) / std)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=["reach-v3", "push-v3", "door-open-v3"])
    parser.add_argument("--horizon", type=int, default=200, help="steps of an episode")
    parser.add_argument("--epochs", type=int, default=30, help="passes over the demonstrations of 50 goals")
    parser.add_argument("--output", type=Path, default=Path("runs/demonstrations"))
    options = parser.parse_args(arguments)
    results, noise = dict[str, dict[str, dict[str, float]]](), torch.Generator().manual_seed(0)
    for task in options.tasks:
        family = metarl.make(f"ML1-{task}", horizon=options.horizon, goal_observable=True)
        env = family.make_env(num_tasks=50)
        env.set_tasks(family.all_tasks("train"))
        shown = metarl.collect(env, ScriptedPolicies([task] * 50), episodes=1, seed=0)
        seen = torch.as_tensor(shown.observations).flatten(0, 2)
        cloned = clone(seen, shown.actions.flatten(0, 2), options.epochs, seed=0)
        policies: dict[str, metarl.Policy | Callable[[Tensor], Tensor]] = {
            "scripted": ScriptedPolicies([task] * 50),
            "cloned": cloned,
            "random": lambda rows: 2 * torch.rand(len(rows), 4, generator=noise) - 1,
        }
        env.set_tasks(family.all_tasks("test"))  # 50 goals that were not demonstrated
        for name, policy in policies.items():
            tried = metarl.collect(env, policy, episodes=1, seed=1)
            success = float(torch.as_tensor(tried.episode_success()).float().mean())
            results.setdefault(task, {})[name] = {"return": float(tried.episode_returns().mean()), "success": success}
        env.close()
        print(task, results[task])
    save(options, {"results": results})


if __name__ == "__main__":
    run(main)
