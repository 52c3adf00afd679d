"""Whether the resets of a Gymnasium environment seed its random numbers as they are told."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym


@dataclass(frozen=True)
class _Start:
    """What a reset did to the generator of its environment."""

    renewed: bool
    """Whether the generator is another object than before, which is how `gymnasium.Env.reset(seed=…)` seeds."""
    seed: int | None
    """What it was seeded with, or -1 if the environment put a generator of its own there."""
    state: Any

    def same_numbers(self, other: "_Start") -> bool:
        """Whether both resets put generators there that give the same numbers."""
        if not (self.renewed and other.renewed):
            return False
        return self.seed == other.seed and (self.seed != -1 or self.state == other.state)

    def __str__(self) -> str:
        return "a constant" if self.seed == -1 else str(self.seed)


def seeding_faults(env: gym.Env, reset: Callable[[int | None], object]) -> list[str]:
    """What is wrong with the seeding of `env`, in the words of the contract; nothing if all is right.

    `reset` starts an episode with a seed, or without one. All environments and episodes of a class that seeds with a
    constant are alike, and nothing else tells. Seeds that are derived from the given one, or from the generator's
    last numbers, are right. An environment with a generator in another place than `np_random` is not judged.

    >>> env = gym.make("CartPole-v1")
    >>> seeding_faults(env, lambda seed: env.reset(seed=seed))
    []
    """
    problem = env.unwrapped
    first, second, third, fourth = (_start(problem, reset, seed) for seed in (6, 7, None, None))
    name = f"{type(problem).__name__}.reset"
    if first.same_numbers(second):
        rule = "expected it to seed its generator with the seed that it is given"
        return [f"{name}: {rule}, found that it seeds its generator with {second} instead of 7"]
    if third.same_numbers(fourth):
        rule = "expected a reset without a seed to go on with the generator"
        return [f"{name}: {rule}, found that it seeds its generator with {fourth} again: all episodes are alike"]
    return []


def _start(env: gym.Env, reset: Callable[[int | None], object], seed: int | None) -> _Start:
    before = env.np_random
    reset(seed)
    after: Any = env.np_random
    bits = getattr(after, "bit_generator", None)  # NumPy's older generators have none
    return _Start(after is not before, env.np_random_seed, after if bits is None else str(bits.state))
