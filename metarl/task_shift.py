"""Tasks beyond the range of the training: how an agent fares where it was not trained."""

import gymnasium as gym
import torch
from jaxtyping import Bool
from torch import Tensor

from metarl.distribution import TaskDistribution
from metarl.errors import UsageError
from metarl.parsing import printable
from metarl.randomness import derive_seed
from metarl.task_parameters import TaskParameters
from metarl.task_spaces import Choice, bounds
from metarl.tasks import Tasks, check_count

ROUNDS = 100
"""Times that as many tasks are drawn as are wanted, before there seem to be none outside."""


def outside_training_range(trained_on: TaskDistribution, tasks: Tasks) -> Bool[Tensor, "M"]:
    """Which of `tasks` have a parameter outside the range that `trained_on` draws it from for training.

    That is the range of the train split, if the family says it, and else of both splits. Of a list of values, all that
    are not listed are outside. Raises `UsageError` for tasks with other parameters.

    >>> from metarl.task_shift import outside_training_range
    >>> faster = metarl.make("HalfCheetahVel-v0", max_velocity=4.0)
    >>> tasks = metarl.Tasks({"velocity": torch.tensor([1.0, 3.0])})
    >>> outside_training_range(metarl.make("HalfCheetahVel-v0"), tasks)
    tensor([False,  True])
    """
    own = trained_on.task_space
    if tasks.parameters.keys() != own.keys():
        names = printable(", ".join(tasks.parameters))
        raise UsageError(f"{trained_on.id} has the task parameters {', '.join(own)}, not {names}")
    spaces = own.spaces("train") if isinstance(own, TaskParameters) else own
    outside = torch.zeros(len(tasks), dtype=torch.bool)
    for name, space in spaces.items():
        outside |= ~_inside(space, tasks.parameters[name].cpu())
    return outside


def sample_outside(
    trained_on: TaskDistribution, family: TaskDistribution, num_tasks: int, *, split: str = "test", seed: int
) -> Tasks:
    """`num_tasks` tasks of `family` as it draws them, those outside the training range of `trained_on` alone.

    A pure function of its arguments. Raises `UsageError` if `family` draws none such.

    >>> from metarl.task_shift import sample_outside
    >>> slow, fast = metarl.make("HalfCheetahVel-v0"), metarl.make("HalfCheetahVel-v0", max_velocity=4.0)
    >>> bool((sample_outside(slow, fast, 10, seed=0).parameters["velocity"] > 2.0).all())
    True
    """
    check_count("number of tasks", num_tasks)
    found: list[Tasks] = []
    for number in range(ROUNDS):
        drawn = family.sample(num_tasks, split=split, seed=derive_seed("shift", seed, number))
        chosen = outside_training_range(trained_on, drawn)
        if bool(chosen.any()):
            found.append(drawn[chosen])
        if sum(map(len, found)) >= num_tasks:
            names = found[0].parameters
            return Tasks({name: torch.cat([tasks.parameters[name] for tasks in found])[:num_tasks] for name in names})
    raise UsageError(
        f"{sum(map(len, found))} of {ROUNDS * num_tasks} {split} tasks of the shifted {family.id} lie outside the "
        f"range of the training, want {num_tasks}: widen the shift, or use --env-options for what is no range"
    )


def _inside(space: gym.Space, values: Tensor) -> Bool[Tensor, "M"]:
    if isinstance(space, Choice):
        return torch.tensor([space.holds(row) for row in values.numpy()])
    # A parameter may be stored in single precision, and its range in double.
    low, high = (torch.as_tensor(bound).to(values.dtype) for bound in bounds(space))
    return ((values >= low) & (values <= high)).reshape(len(values), -1).all(1)
