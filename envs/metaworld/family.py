"""Meta-World's task sets as task distributions: ML1, ML10, ML25, ML45, MT1, MT10, MT50 and sets of one's own."""

import functools
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Float64

from metarl.distribution import TaskDistribution
from metarl.envs.metaworld.family_options import ACTION_SPACE, FamilyOptions
from metarl.envs.metaworld.goals import GOALS_PER_TASK, RANDOM_VECTOR_SIZE, draw_goals, padded
from metarl.envs.metaworld.official import official_distribution
from metarl.envs.metaworld.package import check_versions
from metarl.envs.metaworld.protocol import first_to_finish
from metarl.envs.metaworld.task_sets import MULTITASK_SETS, SETS, TASKS
from metarl.envs.metaworld.tasks import definition
from metarl.errors import UsageError
from metarl.tasks import Tasks, check_count, check_split
from metarl.vector_env import TaskVectorEnv

MAX_HORIZON = 500
"""The package's environments refuse to go on after 500 steps."""


class MetaWorld(TaskDistribution):
    """A set of Meta-World tasks with 50 goals each (Yu et al. 2019, McLean et al. 2025).

    Observation `[39]`: hand (3), gripper (1) and objects (14), now and one step before, and the goal (3), zeros unless
    `goal_observable`; with `one_hot`, the one-hot index of the task among the names follows. Action `[4]`: displacement
    of the hand (cm) and closing effort of the gripper. Reward: the package's `"v2"` (0 … 10) or `"v1"`.
    `info["success"]` and the package's other numbers come with every step; `terminate_on_success` ends the episode at
    the first success.

    Task parameters: `task_index`, the task's index among the names of the train split and then of the test split, and
    `rand_vec` `[6]`, which places fixture, object and goal. `goals_seed` is what `metaworld.ML1(name, seed)` and its
    like take; the goals are theirs, in their order. The benchmarks have 50 goals of each task, few enough to be learned
    by heart. `goals_per_task` draws more (or fewer) in the same way, as the package's option `num_goals` does. Tasks
    are sampled evenly from the names.

    Backends: `"mujoco"` and `"warp"` step all tasks in batches; `"gymnasium"` runs the package's own environments, with
    `vectorization` and `workers` as `metarl.envs.gymnasium_env` has them. The package counts `basketball-v3` among both
    splits of ML25; so does this family, and warns when test tasks of it are asked for.

    >>> family = metarl.make("ML10-v3", goals_seed=7)
    >>> tasks = family.sample(20, split="train", seed=0)
    """

    backends = ("mujoco", "warp", "gymnasium")
    action_space = ACTION_SPACE
    has_success = True
    protocols = MappingProxyType({**TaskDistribution.protocols, "metaworld": first_to_finish})
    _test_seed_offset = 1

    def __init__(
        self,
        id: str,
        train: Sequence[str],
        test: Sequence[str],
        *,
        goals_seed: int = 0,
        goals_per_task: int = GOALS_PER_TASK,
        horizon: int = MAX_HORIZON,
        reward: str = "v2",
        goal_observable: bool = False,
        terminate_on_success: bool = False,
        one_hot: bool = False,
        vectorization: str = "async",
        workers: int | None = None,
    ):
        check_versions()
        check_count("horizon", horizon)
        if horizon > MAX_HORIZON:
            raise UsageError(f"horizon must be at most {MAX_HORIZON}, the package's own limit, got {horizon}")
        if not isinstance(goals_seed, int) or not 0 <= goals_seed < 2**32 - 1:
            raise UsageError(f"goals_seed must be a whole number in [0, 2**32 - 2], got {goals_seed!r}")
        self.id = id
        self.horizon = horizon
        check_count("goals_per_task", goals_per_task)
        self.goals_seed, self.goals_per_task = goals_seed, goals_per_task
        self.vectorization, self.workers = vectorization, workers
        self.split_names = {"train": tuple(train), "test": tuple(test)}
        self._same_names = self.split_names["train"] == self.split_names["test"]
        names = self.split_names["train"] if self._same_names else (*train, *test)
        self.options = FamilyOptions(tuple(names), reward, goal_observable, terminate_on_success, one_hot)
        self.observation_space = self.options.observation_space
        self.task_space = {
            "task_index": gym.spaces.Box(0, len(names) - 1, (), np.int64),
            "rand_vec": gym.spaces.Box(-1.0, 1.0, (RANDOM_VECTOR_SIZE,), np.float64),
        }
        self._official = official_distribution(
            id, self.options, task_space=self.task_space, horizon=horizon, vectorization=vectorization, workers=workers
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks in the order of `task_index`."""
        return self.options.names

    def all_tasks(self, split: str) -> Tasks:
        """The goals of each task of `split`, task by task in the package's order."""
        check_split(split)
        names = self.split_names[split]
        shared = set(self.split_names["train"]) & set(self.split_names["test"])
        if split == "test" and not self._same_names and shared:
            warnings.warn(f"{self.id}: {', '.join(sorted(shared))} is in both splits, as in the package", stacklevel=2)
        # ML1 has the same task in both splits and draws its test goals with the next seed.
        next_seed = self._test_seed_offset if self._same_names and split == "test" else 0
        offset = 0 if self._same_names or split == "train" else len(self.split_names["train"])
        indices = torch.arange(offset, offset + len(names)).repeat_interleave(self.goals_per_task)
        vectors = draw_goals(names, self.goals_seed + next_seed, self.goals_per_task)
        return Tasks({"task_index": indices, "rand_vec": torch.from_numpy(vectors.copy())})

    def validate(self, tasks: Tasks) -> None:
        super().validate(tasks)
        indices = tasks.parameters["task_index"].tolist()
        for index, vector in zip(indices, tasks.parameters["rand_vec"].cpu().numpy(), strict=True):
            low, high = random_space(self.names[index])
            if not ((low <= vector) & (vector <= high)).all():
                raise UsageError(
                    f"task parameter 'rand_vec': {vector.tolist()} is out of range for {self.names[index]}, "
                    f"want {low.tolist()} to {high.tolist()}"
                )

    def _sample(self, num_tasks: int, split: str, generator: torch.Generator) -> Mapping[str, torch.Tensor]:
        """Goals in random order, a goal of every name before the next of any."""
        tasks = self.all_tasks(split)
        count, goals_each = len(self.split_names[split]), self.goals_per_task
        rows: list[torch.Tensor] = []
        while goals_each * count * len(rows) < num_tasks:
            goals = torch.stack([torch.randperm(goals_each, generator=generator) for _ in range(count)])
            order = torch.stack([torch.randperm(count, generator=generator) for _ in range(goals_each)])
            rows.append((order * goals_each + goals.T.gather(1, order)).flatten())
        return tasks[torch.cat(rows)[:num_tasks]].parameters

    def _preferred_backend(self, device: torch.device) -> str:
        return "warp" if device.type == "cuda" else "mujoco"

    def _make_env(
        self,
        num_tasks: int,
        envs_per_task: int,
        backend: str,
        device: torch.device,
        seed: int,
        render_mode: str | None,
    ) -> TaskVectorEnv:
        if backend == "gymnasium":
            return self._official.make_env(num_tasks, envs_per_task, device=device, seed=seed, render_mode=render_mode)
        from metarl.envs.metaworld.env import MetaWorldEnv  # imports MuJoCo, which a list of families does not need

        return MetaWorldEnv(
            self, self.options, num_tasks, envs_per_task, backend=backend, device=device, render_mode=render_mode
        )


@functools.cache
def random_space(name: str) -> tuple[Float64[np.ndarray, "6"], Float64[np.ndarray, "6"]]:
    """Bounds of the random vectors of the task `name`, padded with zeros."""
    task = definition(name)
    return padded(np.array(task.random_low)), padded(np.array(task.random_high))


class MultiTask(MetaWorld):
    """Tasks to be learned together: the test split is the train split, goals included, as the package has no other.

    >>> family = metarl.make("MT10-v3")
    """

    _test_seed_offset = 0


def custom(
    *, train: Sequence[str] = SETS["ML10"]["train"], test: Sequence[str] = SETS["ML10"]["test"], **options: Any
) -> MetaWorld:
    """A set of one's own: the names of the tasks to train on and of those held out, and `MetaWorld`'s options.

    Raises `UsageError` for an unknown name or one named twice, for an empty list and if the two overlap.
    """
    for split, names in (("train", train), ("test", test)):
        if isinstance(names, str) or not names:
            raise UsageError(f"{split} must be a list of Meta-World task names, got {names!r}")
        for name in names:
            definition(name)
            if list(names).count(name) > 1:
                raise UsageError(f"{name} is named twice in {split}")
    shared = sorted(set(train) & set(test))
    if shared:
        raise UsageError(f"{', '.join(shared)} is in both train and test: a held-out task must not be trained on")
    return MetaWorld("ML-custom", train, test, **options)


def factories() -> dict[str, Any]:
    """Every registered id with its factory."""
    families: dict[str, Any] = {f"ML1-{name}": partial(MetaWorld, f"ML1-{name}", (name,), (name,)) for name in TASKS}
    families |= {f"{name}-v3": partial(MetaWorld, f"{name}-v3", *splits.values()) for name, splits in SETS.items()}
    for name in TASKS:
        families[f"MT1-{name}"] = partial(MultiTask, f"MT1-{name}", (name,), (name,), goal_observable=True)
    for name, names in MULTITASK_SETS.items():
        families[f"{name}-v3"] = partial(MultiTask, f"{name}-v3", names, names, goal_observable=True, one_hot=True)
    return families | {"ML-custom": custom}
