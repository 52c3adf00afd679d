"""Any Gymnasium environment as a family of tasks."""

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from metarl.devices import num_cpus
from metarl.distribution import TaskDistribution
from metarl.envs.gymnasium_actions import ActionCodec
from metarl.envs.gymnasium_answers import WrongAnswer, require_keyword
from metarl.envs.gymnasium_apply import Apply
from metarl.envs.gymnasium_make import Maker, Source, Wrap, time_limit
from metarl.envs.gymnasium_observations import ObservationCodec, Rows
from metarl.envs.gymnasium_pool import PATIENCE, LocalPool, WorkerPool
from metarl.envs.gymnasium_state import StateAccess, known_state
from metarl.envs.gymnasium_traits import name_of, readable
from metarl.envs.gymnasium_worker import Recipe
from metarl.errors import UsageError, noted
from metarl.spaces import Observations, map_tensors
from metarl.task_parameters import Parameters, Sampler, TaskParameters
from metarl.task_spaces import decode
from metarl.tasks import Tasks, check_count
from metarl.vector_env import StepResult, TaskVectorEnv

VECTORIZATIONS = ("async", "sync")
DEFAULT_HORIZON = 1000
SUCCESS_KEYS = ("success", "is_success")
Answer = TypeVar("Answer")


class GymnasiumDistribution(TaskDistribution):
    """A Gymnasium environment whose named parameters make the task.

    `env` is whatever `gymnasium.make` accepts (an id, `module:Id`, an `EnvSpec`) or a factory, with `env_kwargs`; a
    factory that takes `render_mode` can be rendered. `wrappers` are functions from environment to environment, applied
    in their order. `parameters` maps a name to a range `(low, high)`, a list of values and so on, and `sample` may draw
    them: see `metarl.TaskParameters`. `apply(env, values)` gives one environment its task, names as strings, numbers as
    Python's, whenever `set_tasks` is called, also in the middle of an episode; resets must leave what it sets alone.

    `ObservationCodec` and `ActionCodec` say what becomes of the environment's spaces: vectors, pictures, dictionaries
    of these; actions of any kind. `horizon` is the time limit of the id or of a wrapper if there is one, else 1000
    steps, with a warning. What environments return is checked, and a number that is not finite is a fault, as
    `metarl.TaskVectorEnv` defines it. All environments must have the same spaces, except for bounds of observations.

    `vectorization="async"` spreads the environments over `workers` processes (one a CPU by default), `"sync"` runs them
    here: better if a step takes microseconds. The numbers do not depend on either. A worker that gives no answer for
    `patience` seconds (None: forever) ends the training with `EnvironmentFault`. With `has_success`, the `info` of a
    step tells success under `"success"` or `"is_success"`, or under `success_key`, as True or False, 1 or 0; a step
    without the key has none. Without `has_success`, success that is told is not read, with a warning.
    `reset_options` go to every reset. `state` is a pair of functions that read and write the state of an environment
    for `get_state` and `set_state`; those of Gymnasium's classic-control and MuJoCo environments are known. With
    `spaces`, its observation and action space, and `horizon`, no environment is built before `make_env`.

    Raises `UsageError` for an unknown id, an environment that cannot be made, unusable spaces, ranges or options.

    >>> family = GymnasiumDistribution(
    ...     "PendulumGravity-v0",
    ...     "Pendulum-v1",
    ...     parameters={"g": (5.0, 15.0)},
    ...     apply=lambda env, task: setattr(env.unwrapped, "g", task["g"]),
    ... )
    >>> family.horizon
    200
    """

    backends = ("gymnasium",)

    def __init__(
        self,
        id: str,
        env: Source,
        *,
        parameters: Parameters,
        apply: Apply,
        sample: Sampler | None = None,
        horizon: int | None = None,
        vectorization: str = "async",
        workers: int | None = None,
        patience: float | None = PATIENCE,
        env_kwargs: Mapping[str, Any] | None = None,
        wrappers: Sequence[Wrap] = (),
        has_success: bool = False,
        success_key: str | None = None,
        reset_options: Mapping[str, Any] | None = None,
        state: StateAccess | None = None,
        spaces: tuple[gym.Space, gym.Space] | None = None,
    ):
        if vectorization not in VECTORIZATIONS:
            raise UsageError(f"unknown vectorization {vectorization!r}: choose from {', '.join(VECTORIZATIONS)}")
        for name, value in (("horizon", horizon), ("number of workers", workers)):
            if value is not None:
                check_count(name, value)
        if patience is not None and not (isinstance(patience, int | float) and patience > 0):
            raise UsageError(f"{id}: patience must be a number of seconds above 0, or None, got {patience!r}")
        if not isinstance(wrappers, Sequence) or not all(callable(wrap) for wrap in wrappers):
            raise UsageError(f"wrappers must be a list of functions from environment to environment, got {wrappers!r}")
        if not callable(apply):
            raise UsageError(f"{id}: apply must be a function of an environment and a task, got {apply!r}")
        if success_key is not None and not isinstance(success_key, str):
            raise UsageError(f"{id}: success_key must be the name of an entry of info, got {success_key!r}")
        self.id = id
        self.vectorization = vectorization
        self.workers = workers
        self.patience = patience
        self.has_success = has_success or success_key is not None
        self.task_space = TaskParameters.of(parameters, sample=sample)
        self._success_keys = SUCCESS_KEYS if success_key is None else (success_key,)
        self._reset_options = _by_name(id, "reset_options", reset_options)
        self._maker = Maker(id, env, _by_name(id, "env_kwargs", env_kwargs), tuple(wrappers)).resolved()
        self._apply = functools.partial(_apply_values, apply, dict(self.task_space))
        self._state = _pair(id, "state", "functions, one that reads and one that writes", callable, state)
        spaces = _pair(id, "spaces", "gymnasium spaces, of observations and of actions", _is_space, spaces)
        if spaces is None or horizon is None:
            spaces, horizon = self._probe(horizon)
        self._observations = ObservationCodec(spaces[0], id)
        self._actions = ActionCodec(spaces[1], id)
        self.observation_space = self._observations.space
        self.action_space = self._actions.space
        self.horizon = horizon

    @property
    def traits(self) -> dict[str, Any]:
        """What it is put together from, by name: a run folder keeps it, and says if it has changed."""
        apply = self._apply.args[0]
        return self._maker.traits | {
            "apply": name_of(apply),
            "reset_options": readable(self._reset_options),
            "success_key": " or ".join(self._success_keys) if self.has_success else None,
        }

    def make_one(self) -> gym.Env:
        """One of the environments with its own spaces and without a task, truncated after `horizon` steps."""
        return gym.wrappers.TimeLimit(self._maker(), self.horizon)

    def _probe(self, horizon: int | None) -> tuple[tuple[gym.Space, gym.Space], int]:
        """Spaces and horizon by building one environment, which also tells whether its state is known."""
        with noted(f"raised as an environment of {self.id} was made"):
            env = self._maker()
        try:
            for name in ("seed", *(("options",) if self._reset_options else ())):
                require_keyword(env, name)
            if horizon is None:
                horizon = time_limit(env, self._maker.source)
            if horizon is None:
                horizon = DEFAULT_HORIZON
                warnings.warn(
                    f"{self.id}: no time limit of this environment is known, so its episodes are truncated after "
                    f"{horizon} steps: pass horizon= to choose",
                    stacklevel=3,
                )
            self._state = self._state or known_state(env)
            return (env.observation_space, env.action_space), horizon
        except WrongAnswer as error:
            raise UsageError(f"{self.id}: {type(env.unwrapped).__name__}.{error}") from None
        finally:
            env.close()

    def _make_env(
        self,
        num_tasks: int,
        envs_per_task: int,
        backend: str,
        device: torch.device,
        seed: int,
        render_mode: str | None,
    ) -> "GymnasiumEnv":
        recipe = Recipe(
            self.id,
            self._maker.rendering(render_mode),
            self._apply,
            self._state,
            self._observations,
            self._actions,
            self.horizon,
            self._success_keys,
            self.has_success,
            self._reset_options,
        )
        return GymnasiumEnv(self, recipe, num_tasks, envs_per_task, device=device, seed=seed, render_mode=render_mode)


def _by_name(id: str, argument: str, values: Any) -> dict[str, Any]:
    """The dictionary that was given, empty for None; raises `UsageError` for what is none, or has other keys."""
    if values is None:
        return {}
    if not (isinstance(values, Mapping) and all(isinstance(name, str) for name in values)):
        raise UsageError(f"{id}: {argument} must be a dict from names to values, got {values!r}")
    return dict(values)


def _pair(id: str, argument: str, what: str, fits: Callable[[Any], bool], value: Any) -> Any:
    """The pair that was given, or None; raises `UsageError` unless both of it are fit."""
    if value is None or (isinstance(value, tuple | list) and len(value) == 2 and all(map(fits, value))):
        return value
    raise UsageError(f"{id}: {argument} must be a pair of {what}, got {' '.join(str(value).split())}")


def _is_space(value: Any) -> bool:
    return isinstance(value, gym.Space)


def _apply_values(apply: Apply, spaces: Mapping[str, gym.Space], env: gym.Env, row: Mapping[str, Any]) -> None:
    apply(env, decode(spaces, row))


class GymnasiumEnv(TaskVectorEnv):
    """Environments in chunks: one for each process of a `WorkerPool`, or all in a `LocalPool`.

    When an environment raises, in a worker or here, all workers are shut down and its exception comes out of the call
    that met it, with a note that names class, method, environment, task and step. The cause of one from a worker is a
    `metarl.own_frames.RemoteTraceback`.
    """

    distribution: GymnasiumDistribution

    def __init__(
        self,
        distribution: GymnasiumDistribution,
        recipe: Recipe,
        num_tasks: int,
        envs_per_task: int,
        *,
        device: torch.device,
        seed: int,
        render_mode: str | None = None,
    ):
        super().__init__(
            distribution, num_tasks, envs_per_task, backend="gymnasium", device=device, render_mode=render_mode
        )
        self._first_seed: int | None = seed
        self._on_cpu = device.type == "cpu"
        self._options: dict[str, Any] = {}
        self._has_state = recipe.state is not None
        self._warned = False
        self._pool: LocalPool | WorkerPool
        if distribution.vectorization == "async":
            workers = distribution.workers or num_cpus()
            self._pool = WorkerPool(recipe, self.num_envs, envs_per_task, workers, distribution.patience)
        else:
            self._pool = LocalPool(recipe, self.num_envs, envs_per_task)
        self._buffers = self._pool.buffers
        self._actions_in = torch.from_numpy(self._buffers.actions)

    @property
    def success_seen(self) -> bool:
        return not self.distribution.has_success or bool(self._buffers.success_seen.any())

    def own_faults(self) -> list[str]:
        found = []
        if not self.distribution.has_success and self._buffers.success_seen.any():
            found.append(
                "has_success: expected True, because info tells success under 'success' or 'is_success', found False: "
                "say has_success=True"
            )
        seeding = self._ask(lambda: self._pool.call("seeding_faults", self._options))
        return list(dict.fromkeys([*found, *(fault for chunk in seeding for fault in chunk)]))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Starts an episode in every environment, whose `reset` gets `options`; see `TaskVectorEnv.reset`."""
        self._options = _by_name(self.distribution.id, "options of a reset", options)
        return super().reset(seed=seed)

    def get_state(self) -> dict[str, Tensor]:
        """The environment's own entries (MuJoCo: `qpos`, `qvel`, …), `elapsed_steps`, `rng` and `last_observation`.

        Each is `[B, ...]`. Entries whose size differs between the tasks are padded with zeros.
        """
        if not self._has_state:
            return super().get_state()
        if not self._started:
            raise UsageError("call reset before get_state")
        rows = [row for chunk in self._ask(lambda: self._pool.call("read_state")) for row in chunk]
        return {name: torch.from_numpy(_stack([row[name] for row in rows])).to(self.device) for name in rows[0]}

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Restores what `get_state` returned under the same tasks."""
        if not self._has_state:
            return super().set_state(state)
        _ = self.tasks  # raises where there are none
        wrong = [name for name, value in state.items() if len(value) != self.num_envs]
        needed = {"elapsed_steps", "rng", *self._buffers.last_observations()}
        if wrong or not needed <= state.keys():
            raise UsageError(f"this is not the state of {self.num_envs} environments of {self.distribution.id}")
        rows = {name: value.cpu().numpy() for name, value in state.items()}
        self._ask(lambda: self._pool.call("write_state", rows))
        self._first_seed = None
        self._started = True

    def render(self) -> tuple[Any, ...] | None:
        if self.render_mode is None:
            return super().render()
        return tuple(frame for chunk in self._ask(lambda: self._pool.call("frames")) for frame in chunk)

    def close_extras(self, **kwargs: Any) -> None:
        """Ends the workers; `close` comes here once."""
        if hasattr(self, "_pool"):  # else it could not be opened
            self._pool.close()

    def _set_tasks(self, tasks: Tasks) -> None:
        parameters = {name: value.cpu().numpy() for name, value in tasks.parameters.items()}
        self._ask(lambda: self._pool.call("assign", parameters))

    def _reset(self, seed: int | None) -> tuple[Observations, dict[str, Any]]:
        seed, self._first_seed = (self._first_seed if seed is None else seed), None
        seeds = [None if seed is None else seed + i for i in range(self.num_envs)]
        self._ask(lambda: self._pool.call("reset", seeds, self._options))
        return self._tensors(self._buffers.observations), {}

    def _step(self, actions: Tensor) -> StepResult:
        self._actions_in.copy_(actions)
        self._ask(self._pool.step)
        out, own = self._buffers, self._tensor
        info = {
            "final_obs": self._tensors(out.final_observations),
            "_final_obs": own(out.terminated | out.truncated),
            "fault": own(out.faults),
        }
        if self.distribution.has_success:
            info["success"] = own(out.success)
        if not self._warned:
            self._warn_of_success()
        return self._tensors(out.observations), own(out.rewards), own(out.terminated), own(out.truncated), info

    def _tensors(self, rows: Rows) -> Observations:
        return map_tensors(self._tensor, rows)

    def _tensor(self, shared: np.ndarray) -> Tensor:
        """A copy on the device, made by NumPy, which is faster at small arrays."""
        copy = torch.from_numpy(shared.copy())
        return copy if self._on_cpu else copy.to(self.device)

    def _warn_of_success(self) -> None:
        """Warns once if success is told and not read, or not told by the end of an episode."""
        out, seen = self._buffers, self._buffers.success_seen
        if not self.distribution.has_success:
            self._warned = bool(seen.any())
            if self._warned:
                warnings.warn(
                    f"{self.distribution.id}: info tells success under 'success' or 'is_success', which is not read: "
                    "say has_success=True",
                    stacklevel=4,
                )
            return
        silent = (out.terminated | out.truncated) & ~out.faults & ~seen
        self._warned = bool(silent.any() or seen.all())
        if silent.any():
            keys = " or ".join(repr(key) for key in self.distribution._success_keys)
            warnings.warn(
                f"{self.distribution.id}: an episode ended and no info of its steps had {keys}, so it counts as no "
                "success: name the key with success_key=, or leave has_success out",
                stacklevel=4,
            )

    def _ask(self, question: Callable[[], Answer]) -> Answer:
        """Puts `question` to the environments; whatever is raised (by one of them, or Ctrl-C) closes them all."""
        if self.closed:
            raise UsageError("this environment is closed: make another")
        try:
            return question()
        except BaseException:
            self._pool.terminate()
            self.close()
            raise


def _stack(rows: list[np.ndarray]) -> np.ndarray:
    """`[B, ...]` from rows that may differ in their first size: the shorter ones are padded with zeros."""
    if rows[0].ndim == 0:
        return np.array(rows)
    longest = max(len(row) for row in rows)
    return np.stack([np.pad(row, [(0, longest - len(row))] + [(0, 0)] * (row.ndim - 1)) for row in rows])
