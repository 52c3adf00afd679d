"""Rules about a distribution without its environments: attributes, spaces and sampled tasks."""

from collections import Counter
from collections.abc import Iterator

import gymnasium as gym
import torch

from metarl.contract.examination import Examination, global_random_states, refusal
from metarl.distribution import TaskDistribution
from metarl.errors import UsageError
from metarl.spaces import check_action_space, check_observation_space
from metarl.task_spaces import INTEGERS, Choice
from metarl.tasks import SPLITS, Tasks

SAMPLE_SIZE = 16


def attributes(exam: Examination) -> Iterator[str]:
    family = exam.distribution
    if not isinstance(family, TaskDistribution):
        yield f"type: expected a metarl.TaskDistribution, found {type(family).__name__}"
    if not (isinstance(family.id, str) and family.id):
        yield f"id: expected a name, found {family.id!r}"
    if isinstance(family.horizon, bool) or not isinstance(family.horizon, int) or family.horizon < 1:
        yield f"horizon: expected a whole number of at least 1, found {family.horizon!r}"
    if not (isinstance(family.backends, tuple) and family.backends):
        yield f"backends: expected a tuple of one name or more, found {family.backends!r}"
    for name in ("has_success", "has_dense_reward"):
        if not isinstance(getattr(family, name), bool):
            yield f"{name}: expected True or False, found {getattr(family, name)!r}"


def spaces(exam: Examination) -> Iterator[str]:
    for check, name in ((check_observation_space, "observation_space"), (check_action_space, "action_space")):
        try:
            check(getattr(exam.distribution, name), name)
        except UsageError as error:
            yield str(error)
    if not exam.distribution.task_space:
        yield "task_space: expected one parameter or more, found none"
    for name, space in exam.distribution.task_space.items():
        if not isinstance(space, gym.spaces.Box | INTEGERS | Choice):
            yield f"task_space: expected a Box, a Discrete-like space or a Choice for {name!r}, found {space}"


def sampling(exam: Examination) -> Iterator[str]:
    def sample(split: str, seed: int) -> Tasks:
        return exam.distribution.sample(SAMPLE_SIZE, split=split, seed=seed)

    before = global_random_states()
    train, test = sample("train", exam.seed), sample("test", exam.seed)
    for library, state in global_random_states().items():
        if state != before[library]:
            yield f"sampling: expected it to leave {library}'s global random state alone, found it changed"
    for split, tasks in (("train", train), ("test", test)):
        if len(tasks) != SAMPLE_SIZE:
            yield f"sampling: expected {SAMPLE_SIZE} {split} tasks, found {len(tasks)}"
        if sample(split, exam.seed) != tasks:
            yield f"sampling: expected the same {split} tasks for the same seed, found others"
        if _varied(tasks) and sample(split, exam.seed + 1) == tasks:
            yield f"sampling: expected other {split} tasks for another seed, found the same"
    if train == test and (_varied(train) or not _is_listed(exam.distribution)):
        yield "sampling: expected different tasks in train and test, found the same"
    if found := refusal(lambda: exam.distribution.sample(0, seed=0)):
        yield f"sampling: expected a UsageError for 0 tasks, found {found}"
    if found := refusal(lambda: sample("no-such-split", 0)):
        yield f"sampling: expected a UsageError for the split 'no-such-split', found {found}"


def _varied(tasks: Tasks) -> bool:
    """Whether there are so many different tasks that two drawings are not the same by chance."""
    return len(set(_rows(tasks))) > 2


def _is_listed(family: TaskDistribution) -> bool:
    try:
        return all(len(family.all_tasks(split)) for split in SPLITS)
    except UsageError:  # infinitely many
        return False


def task_parameters(exam: Examination) -> Iterator[str]:
    family = exam.distribution
    for split in SPLITS:
        tasks = family.sample(SAMPLE_SIZE, split=split, seed=exam.seed)
        try:
            family.validate(tasks)
        except UsageError as error:
            yield f"tasks: expected sampled {split} tasks to be valid, found {error}"
        if Tasks.from_json(tasks.to_json()) != tasks:
            yield f"tasks: expected {split} tasks to survive JSON, found others"
    unknown = Tasks({**tasks.parameters, "no-such-parameter": torch.zeros(SAMPLE_SIZE)})
    if found := refusal(lambda: family.validate(unknown)):
        yield f"tasks: expected a UsageError for an unknown parameter, found {found}"


def finitely_many_tasks(exam: Examination) -> Iterator[str]:
    family = exam.distribution
    for split in SPLITS:
        try:
            every = family.all_tasks(split)
        except UsageError:  # infinitely many
            continue
        family.validate(every)
        if family.all_tasks(split) != every:
            yield f"all_tasks: expected {split} tasks in a fixed order, found another on the second call"
        drawn = family.sample(len(every), split=split, seed=exam.seed)
        if missing := Counter(_rows(every)) - Counter(_rows(drawn)):
            yield (
                f"sampling: expected each of the {len(every)} {split} tasks once among {len(every)} samples, "
                f"found {missing.total()} missing"
            )


def _rows(tasks: Tasks) -> list[tuple]:
    """Each task as a hashable value."""
    columns = [value.cpu().numpy() for value in tasks.parameters.values()]
    return [tuple(column[i].tobytes() for column in columns) for i in range(len(tasks))]


CHECKS = (attributes, spaces, sampling, task_parameters, finitely_many_tasks)
