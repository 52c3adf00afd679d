"""The parameters of tasks as the numbers that the oracle reads, and which of them it can tell apart."""

from collections.abc import Mapping

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.errors import UsageError
from metarl.task_spaces import Choice, bounds, is_bounded
from metarl.tasks import Tasks
from metarl.vector_env import TaskFamily

LARGEST = 1e18
"""The variance of larger numbers is beyond float32."""
FINEST = 1e-6
"""Numbers whose standard deviation is smaller count as constant (`metarl.nn.normalization.RunningNorm`)."""
STEPS = 100
"""Different numbers that float32 must have between the ends of a range."""
MOST_NAMES = 10_000
"""The most things of which a one-hot names one."""
_READS = f"since it reads float32 numbers up to {LARGEST:.0e}"


def check_readable(task_space: Mapping[str, gym.Space]) -> None:
    """Raises `UsageError` for parameters that would look the same in all tasks, or nearly so, without a word.

    >>> from metarl.agents.task_features import check_readable
    >>> check_readable({"friction": metarl.LogUniform(0.01, 1.0)})
    """
    for name, space in task_space.items():
        if _names_things(name, space):
            if feature_width(name, space) > MOST_NAMES:
                raise UsageError(
                    f"the oracle reads a number for each value of task parameter {name!r}, which has "
                    f"{feature_width(name, space)}: make it a Box of numbers, or of fewer values"
                )
            continue
        if not isinstance(space, Choice) and not is_bounded(space):
            continue  # the numbers themselves are checked, as they come
        low, high = _ends(space)
        largest, width = np.maximum(np.abs(low), np.abs(high)), high - low
        fine = np.maximum(FINEST * np.sqrt(12), STEPS * np.finfo(np.float32).eps * largest)
        wrong = (largest > LARGEST) | ((width > 0) & (width <= fine))
        if wrong.any():
            first = np.flatnonzero(wrong.ravel())[0]
            raise UsageError(
                f"the oracle cannot tell values of task parameter {name!r} from {low.flat[first]:.9g} to "
                f"{high.flat[first]:.9g} apart, {_READS} with steps of {FINEST:g} or more: shift or scale it"
            )


def task_features(task_space: Mapping[str, gym.Space], tasks: Tasks) -> Float[Tensor, "M E"]:
    """The parameters of each task side by side: numbers as they are, and one-hot if they name one of several things.

    Raises `UsageError` for numbers that are not finite or beyond `LARGEST`.

    >>> from metarl.agents.task_features import task_features
    >>> family = metarl.make("ML10-v3")
    >>> task_features(family.task_space, family.sample(2, seed=0)).shape  # 15 tasks, and a random vector of 6
    torch.Size([2, 21])
    """
    features = []
    for name, space in task_space.items():
        value = tasks.parameters[name].reshape(len(tasks), -1)
        if _names_things(name, space):
            value = torch.nn.functional.one_hot(value[:, 0].long() - _first(space), feature_width(name, space))
        features.append(value.float())
        wrong = ~(features[-1].abs() <= LARGEST)  # NaN is not
        if bool(wrong.any()):
            found = value[wrong].flatten()[0].item()
            raise UsageError(f"the oracle cannot read {found:g} of task parameter {name!r}, {_READS}: scale it")
    return torch.cat(features, dim=1)


def check_parameters(trained: Mapping[str, gym.Space], family: TaskFamily) -> None:
    """Raises `UsageError` unless tasks of `family` have the parameters of `trained`, whatever their bounds."""

    def traits(task_space: Mapping[str, gym.Space]) -> dict[str, tuple]:
        return {
            n: (s.shape, feature_width(n, s), s.values if _is_named(s) else (), _first(s) if _names_things(n, s) else 0)
            for n, s in task_space.items()
        }

    def text(task_space: Mapping[str, gym.Space]) -> str:
        return ", ".join(f"{name} [{_size(name, space)}]" for name, space in task_space.items())

    if traits(family.task_space) != traits(trained):
        raise UsageError(
            f"{family.id} has tasks with {text(family.task_space)}, the oracle was trained on tasks with "
            f"{text(trained)}: test it on tasks with the same parameters"
        )


def _size(name: str, space: gym.Space) -> str:
    """How many numbers stand for a parameter, and from which one its values count if not from 0."""
    first = _first(space) if _names_things(name, space) else 0
    return f"{feature_width(name, space)}" + (f", from {first} on" if first else "")


def _is_named(space: gym.Space) -> bool:
    return isinstance(space, Choice) and space.named


def _names_things(name: str, space: gym.Space) -> bool:
    return not space.shape and (_is_named(space) or isinstance(space, gym.spaces.Discrete) or name == "task_index")


def _first(space: gym.Space) -> int:
    return 0 if isinstance(space, Choice) else int(bounds(space)[0])


def feature_width(name: str, space: gym.Space) -> int:
    """The numbers that stand for a parameter."""
    if not _names_things(name, space):
        return int(np.prod(space.shape, dtype=np.int64))
    return len(space.values) if isinstance(space, Choice) else int(bounds(space)[1]) - _first(space) + 1


def _ends(space: gym.Space) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest value of each number."""
    rows = (space.rows.min(0), space.rows.max(0)) if isinstance(space, Choice) else bounds(space)
    low, high = (np.asarray(end, np.float64) for end in rows)
    return low, high
