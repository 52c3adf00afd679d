"""What `metarl precompile` runs in a process for each family: compiles, or looks up, the kernels that it launches.

A process of its own, because the hash of a module with generic kernels depends on what the process has launched before:
kernels are found again by a process that steps this family first.
"""

import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import metarl
from metarl.agents.random import RandomPolicy
from metarl.distribution import TaskDistribution
from metarl.envs.metaworld.family import MetaWorld
from metarl.envs.physics.phantom import pretend_gpu, world_bytes
from metarl.randomness import make_generator


@dataclass(frozen=True)
class Request:
    """Tasks of `split` of the family `env`, for GPUs of compute capability `arch`.

    Without `compiles`, what is missing in the cache is only noted.
    """

    env: str
    split: str
    arch: int
    compiles: bool = True


def splits_to_visit(family: TaskDistribution) -> tuple[str, ...]:
    """The splits whose tasks need kernels of their own: the test tasks of a Meta-World set may have other scenes."""
    if isinstance(family, MetaWorld) and family.split_names["test"] != family.split_names["train"]:
        return ("train", "test")
    return ("train",)


def compile_kernels(request: Request) -> dict[str, Any]:
    """Compiles for `request`; returns the modules, those that are missing, the memory of a world, and the seconds."""
    start = time.perf_counter()
    compilation = pretend_gpu(request.arch, compiles=request.compiles)
    memory = visit(metarl.make(request.env), request.split)
    modules = sorted(compilation.modules.values(), key=lambda module: module.name)
    return {
        "modules": [asdict(module) for module in modules],
        "missing": sorted(compilation.missing),
        "bytes_per_world": memory,
        "seconds": time.perf_counter() - start,
    }


def visit(family: TaskDistribution, split: str) -> float:
    """All that training asks of the engine, on every scene of a set: tasks, a reset, steps, other tasks.

    Returns the bytes of memory of a world, the mean over the scenes.
    """
    num_tasks = len(family.split_names[split]) if isinstance(family, MetaWorld) else 2
    env = family.make_env(num_tasks, 2, backend="warp", device="cpu")
    try:
        for seed in (0, 1):
            env.set_tasks(family.sample(num_tasks, split=split, seed=seed))
            metarl.collect(env, RandomPolicy(family.action_space, make_generator("precompile")), 2)
        return statistics.mean(map(world_bytes, env.engines))
    finally:
        env.close()


def main() -> None:
    request = Request(**json.loads(sys.stdin.readline()))
    try:
        answer = compile_kernels(request)
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
