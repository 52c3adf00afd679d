"""What `benchmark_before` runs in a process of each version; it uses only what all versions have.

It reads lines `["rollout HalfCheetahVel-v0", seconds]` and answers each with a line `{"figure": …}`: environment steps
per second, or for memory the peak of the process in MiB.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import torch

import metarl
from metarl.agents.maml import MAML, MAMLConfig

STEPS = 50
NUM_TASKS = 16
ENVS_PER_TASK = 16


def rollout(id: str) -> tuple[Callable[[], Any], int]:
    """A rollout of random actions in 256 environments, and its number of steps."""
    family = metarl.make(id)
    env = family.make_env(NUM_TASKS, ENVS_PER_TASK)
    env.set_tasks(family.sample(NUM_TASKS, seed=0))
    policy = random_policy(family.action_space)
    return lambda: metarl.collect(env, policy, STEPS), STEPS * NUM_TASKS * ENVS_PER_TASK


def maml(id: str) -> tuple[Callable[[], Any], int]:
    """A training iteration of 20 tasks × 20 episodes, before and after adaptation, and its number of steps."""
    family = metarl.make(id)
    agent = MAML(MAMLConfig(), metarl.EnvSpec.of(family))
    env = family.make_env(agent.config.num_tasks, agent.config.envs_per_task)
    env.set_tasks(family.sample(agent.config.num_tasks, seed=0))
    steps = 2 * env.num_envs * family.horizon
    return lambda: agent.improve(env, seed=0), steps


def memory(id: str) -> float:
    """Peak resident memory in MiB of a process that collects 20 × 20 environments × 200 steps."""
    family = metarl.make(id)
    env = family.make_env(20, 20)
    env.set_tasks(family.sample(20, seed=0))
    metarl.collect(env, random_policy(family.action_space), 200, seed=0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def random_policy(space: gym.spaces.Box) -> Callable[[torch.Tensor], torch.Tensor]:
    """Uniform actions, the same in every version."""
    low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
    generator = torch.Generator().manual_seed(0)

    def act(observations: torch.Tensor) -> torch.Tensor:
        return low + (high - low) * torch.rand(len(observations), *space.shape, generator=generator)

    return act


def main() -> None:
    """Answers line by line until the input ends."""
    known: dict[str, tuple[Callable[[], Any], int]] = {}
    for line in sys.stdin:
        measure, seconds = json.loads(line)
        kind, _, id = measure.partition(" ")
        if kind == "memory":
            figure = memory(id)
        else:
            if measure not in known:
                known[measure] = {"rollout": rollout, "maml": maml}[kind](id)
            action, steps = known[measure]
            start, count = time.perf_counter(), 0
            while time.perf_counter() - start < seconds:
                action()
                count += 1
            figure = count * steps / (time.perf_counter() - start)
        print(json.dumps({"figure": figure}), flush=True)


if __name__ == "__main__":
    main()
