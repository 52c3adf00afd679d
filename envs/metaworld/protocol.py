"""The package's own way to measure adapted policies (`metaworld.evaluation`, version 3.0)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.errors import UsageError
from metarl.protocols import Probe, Scores
from metarl.randomness import derive_seed
from metarl.rollout import collect
from metarl.vector_env import TaskVectorEnv

FIRST_EPISODES = 3
"""How many episodes of each name `metaworld.evaluation.metalearning_evaluation` counts."""


@runtime_checkable
class EndsAtSuccess(Protocol):
    """An environment that can be told to end episodes at their first success: `MetaWorldEnv` can.

    >>> env.terminate_on_success = True
    """

    terminate_on_success: bool


@dataclass(frozen=True)
class Round:
    """One episode in each environment of `M` tasks times `N`.

    >>> Round(episode.lengths, episode.returns, episode.success)
    """

    lengths: Int[Tensor, "M N"]
    returns: Float[Tensor, "M N"]
    success: Bool[Tensor, "M N"]


def first_to_finish(env: TaskVectorEnv, probe: Probe, seed: int) -> Scores:
    """Mean return and share of successes of the first three episodes to finish of each task *name*, whatever the goal.

    Episodes end at their first success, and the next one of the same goal begins: a goal that is reached soon may count
    three times, one that takes long not at all. Rows are the names in the order of `task_index`.

    Deviation: the package lets a recurrent policy's memory go on from one of these episodes to the next. Here each
    starts from what adaptation has taught, since episodes of the test must not teach.

    Raises `UsageError` for another backend than mujoco and warp.
    """
    if not isinstance(env, EndsAtSuccess):
        raise UsageError(f"protocol 'metaworld' needs backend mujoco or warp, not {env.backend}")
    names = env.tasks.parameters["task_index"]
    rounds: list[Round] = []
    before, env.terminate_on_success = env.terminate_on_success, True
    try:
        while not _settled(rounds, names):
            number = len(rounds)
            episode = collect(env, probe(number), episodes=1, seed=derive_seed(seed, number))
            success = episode.episode_success()
            assert success is not None
            rounds.append(Round((episode.episode_index == 0).sum(0), episode.episode_returns(), success))
    finally:
        env.terminate_on_success = before
    return count_first(rounds, names)


def count_first(rounds: Sequence[Round], names: Int[Tensor, "M"], count: int = FIRST_EPISODES) -> Scores:
    """The scores of the first `count` episodes to finish of each name, as if each environment ran its episodes of
    `rounds` one after another."""
    finish = torch.stack([part.lengths for part in rounds]).cumsum(0)
    returns = torch.stack([part.returns for part in rounds]).double()
    success = torch.stack([part.success for part in rounds]).double()
    rows = []
    for name in names.unique():
        times, paid, succeeded = (values[:, names == name].flatten(1) for values in (finish, returns, success))
        # In the order of time, then of environments.
        order = times.T.flatten().argsort(stable=True)[:count]
        rows.append([float(values.T.flatten()[order].mean()) for values in (paid, succeeded)])
    scores = torch.tensor(rows)
    first = [int((names == name).nonzero()[0, 0]) for name in names.unique()]
    return Scores(scores[:, 0], scores[:, 1], torch.tensor(first))


def _settled(rounds: Sequence[Round], names: Int[Tensor, "M"]) -> bool:
    """Whether no further episode could be among the first of its name."""
    if not rounds:
        return False
    finish = torch.stack([part.lengths for part in rounds]).cumsum(0)
    for name in names.unique():
        times = finish[:, names == name]
        if times.numel() < FIRST_EPISODES or times.flatten().kthvalue(FIRST_EPISODES).values > times[-1].min():
            return False
    return True
