"""`mtcworldmjx` (MTCWorldMJX 0.4): Meta-World's tasks on MJX-Warp, stepped with random actions.

A program of its own, because the package wants other versions of MuJoCo than metarl: `metarl benchmark device` runs it
with the interpreter that has it, a request as JSON being its argument, and reads the last line of its output.
"""

import json
import sys
import time
from typing import Any


def measure(env: str, num_envs: int, steps: int, seconds: float) -> dict[str, Any]:
    """Environment steps per second of its own `rollout`, compiled as a whole; the median of three runs."""
    import importlib.metadata

    import jax
    from MTCWorldMJX import make_mt_envs, rollout

    worlds = make_mt_envs(env, seed=0, num_envs=num_envs)

    def act(observations: Any, key: Any) -> Any:
        return jax.random.uniform(key, (observations.shape[0], 4), minval=-1.0, maxval=1.0)

    run = jax.jit(lambda state, key: rollout(worlds, state, act, key, steps))
    begin = time.perf_counter()
    state = worlds.reset(jax.random.PRNGKey(0))
    state, _ = jax.block_until_ready(run(state, jax.random.PRNGKey(1)))
    first = time.perf_counter() - begin
    speeds = []
    for _ in range(3):
        start, rollouts = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            state, _ = jax.block_until_ready(run(state, jax.random.PRNGKey(2 + rollouts)))
            rollouts += 1
        speeds.append(rollouts * steps * num_envs / (time.perf_counter() - start))
    return {
        "steps_per_second": sorted(speeds)[1],
        "runs": speeds,
        "seconds_to_first_rollout": first,
        "device": str(jax.devices()[0]),
        "versions": {name: importlib.metadata.version(name) for name in ("MTCWorldMJX", "jax", "mujoco", "mujoco-mjx")},
    }


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
