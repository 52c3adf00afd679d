"""Meta-World's benchmarks on the environments of its official package, `metaworld`."""

import functools
import pickle
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Float64

from metarl.envs.gymnasium_env import GymnasiumDistribution
from metarl.envs.gymnasium_worker import read_mujoco, write_mujoco
from metarl.envs.metaworld.names import SETS, TASKS
from metarl.errors import UsageError
from metarl.tasks import TaskDistribution, Tasks, check_count, check_split

GOALS_PER_TASK = 50
RANDOM_VECTOR_SIZE = 6
"""The widest random vector of the fifty tasks; the narrower ones are padded with zeros."""
MAX_HORIZON = 500
"""The package's environments refuse to go on after 500 steps."""

_HAND_LOW, _HAND_HIGH = [-0.525, 0.348, -0.0525], [0.525, 1.025, 0.7]
_FRAME_LOW = [*_HAND_LOW, -1.0, *[-np.inf] * 14]
_FRAME_HIGH = [*_HAND_HIGH, 1.0, *[np.inf] * 14]
OBSERVATION_SPACE = gym.spaces.Box(
    np.array([*_FRAME_LOW, *_FRAME_LOW, 0, 0, 0], np.float32),
    np.array([*_FRAME_HIGH, *_FRAME_HIGH, 0, 0, 0], np.float32),
)
"""Hand (3), gripper (1) and objects (14), now and one step before; the goal (3) is hidden, zeros."""
ACTION_SPACE = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)


class MetaWorld(GymnasiumDistribution):
    """A set of Meta-World tasks with 50 goals each, of which the agent sees neither name nor goal.

    Observation `[39]`, action `[4]` (hand displacement in cm and gripper effort), the package's reward v2 (0 … 10) and
    `info["success"]`. Task parameters: `task_index`, the task's place among the names of the train split and then of
    the test split, and `rand_vec` `[6]`, which places fixture, object and goal. `goals_seed` is what
    `metaworld.ML1(name, seed)` and its like take; the goals are theirs, in their order.

    A task is where things are placed, so a new one under way puts the scene back to its start at the next step; the
    time in the episode goes on. Resets depend on the task alone, not on any seed.

    The package counts `basketball-v3` among both splits of ML25; so does this family, and warns when test tasks of it
    are asked for.
    """

    def __init__(
        self,
        id: str,
        train: Sequence[str],
        test: Sequence[str],
        goals_seed: int = 0,
        horizon: int = MAX_HORIZON,
        vectorization: str = "async",
        workers: int | None = None,
    ):
        check_count("horizon", horizon)
        if horizon > MAX_HORIZON:
            raise UsageError(f"horizon must be at most {MAX_HORIZON}, the package's own limit, got {horizon}")
        if not isinstance(goals_seed, int) or not 0 <= goals_seed < 2**32 - 1:
            raise UsageError(f"goals_seed must be a whole number in [0, 2**32 - 2], got {goals_seed!r}")
        self.goals_seed = goals_seed
        self.split_names = {"train": tuple(train), "test": tuple(test)}
        same = self.split_names["train"] == self.split_names["test"]
        self.names = self.split_names["train"] if same else self.split_names["train"] + self.split_names["test"]
        super().__init__(
            id,
            functools.partial(OfficialEnv, self.names),
            parameters={
                "task_index": gym.spaces.Box(0, len(self.names) - 1, (), np.int64),
                "rand_vec": gym.spaces.Box(-1.0, 1.0, (RANDOM_VECTOR_SIZE,), np.float64),
            },
            apply=lambda env, task: env.unwrapped.set_task(task["task_index"], task["rand_vec"]),
            horizon=horizon,
            vectorization=vectorization,
            workers=workers,
            has_success=True,
            state=(lambda env: env.unwrapped.read_state(), lambda env, state: env.unwrapped.write_state(state)),
            spaces=(OBSERVATION_SPACE, ACTION_SPACE),
        )

    def all_tasks(self, split: str) -> Tasks:
        """The 50 goals of each task of `split`, task by task in the package's order."""
        check_split(split)
        names = self.split_names[split]
        shared = set(self.split_names["train"]) & set(self.split_names["test"])
        if split == "test" and len(names) > 1 and shared:
            warnings.warn(f"{self.id}: {', '.join(sorted(shared))} is in both splits, as in the package", stacklevel=2)
        # ML1 has the same task in both splits and draws its test goals with the next seed.
        one_task = self.split_names["train"] == self.split_names["test"]
        seed = self.goals_seed + 1 if one_task and split == "test" else self.goals_seed
        offset = 0 if one_task or split == "train" else len(self.split_names["train"])
        indices = torch.arange(offset, offset + len(names)).repeat_interleave(GOALS_PER_TASK)
        return Tasks({"task_index": indices, "rand_vec": torch.from_numpy(draw_goals(names, seed).copy())})

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
        return TaskDistribution._sample(self, num_tasks, split, generator)  # from all_tasks, not from ranges


def ml1(
    name: str,
    *,
    goals_seed: int = 0,
    horizon: int = MAX_HORIZON,
    vectorization: str = "async",
    workers: int | None = None,
) -> MetaWorld:
    """One task; its goals differ between train and test."""
    return MetaWorld(f"ML1-{name}", [name], [name], goals_seed, horizon, vectorization, workers)


def ml_set(
    name: str,
    *,
    goals_seed: int = 0,
    horizon: int = MAX_HORIZON,
    vectorization: str = "async",
    workers: int | None = None,
) -> MetaWorld:
    """ML10, ML25 or ML45: the tasks differ between train and test."""
    splits = SETS[name]
    return MetaWorld(f"{name}-v3", splits["train"], splits["test"], goals_seed, horizon, vectorization, workers)


def factories() -> dict[str, Any]:
    """Every registered id with its factory."""
    families: dict[str, Any] = {f"ML1-{name}": functools.partial(ml1, name) for name in TASKS}
    return families | {f"{name}-v3": functools.partial(ml_set, name) for name in SETS}


# The package ---------------------------------------------------------------------------------------------------------


def _task_class(name: str) -> Any:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS  # seconds long: only who makes an environment waits for it

    return ALL_V3_ENVIRONMENTS[name]


@functools.cache
def random_space(name: str) -> tuple[Float64[np.ndarray, "6"], Float64[np.ndarray, "6"]]:
    """Bounds of the random vectors of the task `name`, padded with zeros."""
    env = _task_class(name)()
    try:
        space = env._random_reset_space
        return _padded(space.low), _padded(space.high)
    finally:
        env.close()


@functools.cache
def draw_goals(names: tuple, seed: int) -> Float64[np.ndarray, "goals 6"]:
    """The random vectors that `metaworld`'s benchmarks draw for `names` with `seed`, padded with zeros.

    The package draws from NumPy's global generator while it resets its environments, and settles the arm at each reset.
    Here the numbers come from a generator of the same kind and nothing moves: the arm has no part in the draw.
    """
    random = np.random.RandomState(seed)
    goals = []
    for name in names:
        env = _task_class(name)()
        env._set_task_called = True
        env._get_state_rand_vec = functools.partial(_draw, env, random)
        env.do_simulation = functools.partial(_stand_still, env)
        for _ in range(GOALS_PER_TASK):
            env.reset()
            goals.append(_padded(env._last_rand_vec))
        env.close()
    return np.stack(goals)


def _draw(env: Any, random: np.random.RandomState) -> np.ndarray:
    space = env._random_reset_space
    env._last_rand_vec = random.uniform(space.low, space.high, size=space.low.size)
    return env._last_rand_vec


def _stand_still(env: Any, ctrl: Any, n_frames: int) -> None:
    import mujoco

    mujoco.mj_forward(env.model, env.data)  # tasks read the positions


def _padded(vector: np.ndarray) -> Float64[np.ndarray, "6"]:
    return np.pad(np.asarray(vector, np.float64), (0, RANDOM_VECTOR_SIZE - len(vector)))


class OfficialEnv(gym.Env):
    """One place of a batch: the package's environment of whatever task it is given, goal hidden.

    Another task class means another environment. MuJoCo keeps the meshes that it has read, so building one takes some
    10 ms, less than a reset.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}
    observation_space = OBSERVATION_SPACE
    action_space = ACTION_SPACE

    def __init__(self, names: Sequence[str], render_mode: str | None = None):
        self._names = names
        self._name: str | None = None
        self._rand_vec = np.zeros(RANDOM_VECTOR_SIZE)
        self._env: Any = None
        self._placed = False
        self.render_mode = render_mode

    def set_task(self, task_index: int, rand_vec: np.ndarray) -> None:
        from metaworld.types import Task

        name = self._names[task_index]
        if name == self._name and np.array_equal(rand_vec, self._rand_vec):
            return
        if name != self._name:
            self.close()
            self._env = _task_class(name)(render_mode=self.render_mode)
        size = self._env._random_reset_space.low.size
        data = {"rand_vec": rand_vec[:size].copy(), "env_cls": type(self._env), "partially_observable": True}
        self._env.set_task(Task(name, pickle.dumps(data)))
        self._name, self._rand_vec, self._placed = name, rand_vec, False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._placed = True
        return self._env.reset()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._place()
        obs, reward, *rest = self._env.step(action)
        return obs, float(reward), *rest

    def render(self) -> Any:
        self._place()
        return self._env.render()

    def close(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None

    def read_state(self) -> dict[str, Any]:
        """MuJoCo's state and `memory`, the numbers that the package's class keeps between steps."""
        self._place()
        memory = [_numbers(getattr(self._env, name)) for name in self._memory_names()]
        return read_mujoco(self._env) | {"memory": np.concatenate(memory)}

    def write_state(self, state: Mapping[str, np.ndarray]) -> None:
        self._place()
        write_mujoco(self._env, state)
        position = 0
        for name in self._memory_names():
            old = getattr(self._env, name)
            size = _numbers(old).size
            values = state["memory"][position : position + size]
            position += size
            if isinstance(old, np.ndarray) and not old.flags.owndata:
                old[...] = values.reshape(old.shape)  # some attributes are views of MuJoCo's arrays: keep them so
            elif isinstance(old, np.ndarray):
                setattr(self._env, name, values.reshape(old.shape).astype(old.dtype))
            else:
                setattr(self._env, name, None if np.isnan(values[0]) else type(old or 0.0)(values[0]))

    def _place(self) -> None:
        if not self._placed:
            self.reset()

    def _memory_names(self) -> list[str]:
        """The numeric attributes, constants among them. A reset defines them all; None stands for one to come."""
        kinds = (bool, int, float, np.generic, np.ndarray, type(None))
        return [
            name
            for name, value in sorted(vars(self._env).items())
            if isinstance(value, kinds) and name not in ("_last_stable_obs", "render_mode", "_np_random")
        ]


def _numbers(value: Any) -> np.ndarray:
    return np.array([np.nan]) if value is None else np.ravel(value).astype(np.float64)
