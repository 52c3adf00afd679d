"""Any Gymnasium environment as a family of tasks, run by Gymnasium's own vector environments."""

import contextlib
import functools
import inspect
import multiprocessing
import os
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import connection
from typing import Any, TypeVar

import cloudpickle
import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.vector.async_vector_env import AsyncState
from torch import Tensor

from metarl.distribution import TaskDistribution
from metarl.envs.gymnasium_worker import Apply, Failure, Recipe, StateAccess, known_state, open_chunk
from metarl.errors import UsageError
from metarl.task_parameters import Parameters, Sampler, TaskParameters
from metarl.task_spaces import decode
from metarl.tasks import Tasks, check_count
from metarl.vector_env import StepResult, TaskVectorEnv, step_info

VECTORIZATIONS = ("async", "sync")
Answer = TypeVar("Answer")


class GymnasiumDistribution(TaskDistribution):
    """A Gymnasium environment whose named parameters make the task.

    `env` is a Gymnasium id or a factory without required arguments; a factory that takes `render_mode` can be rendered.
    `parameters` maps a name to a range `(low, high)`, a list of values and so on, and `sample` may draw them: see
    `metarl.TaskParameters`. `apply(env, values)` gives one environment its task, names as strings, numbers as Python's,
    whenever `set_tasks` is called, also in the middle of an episode; resets must leave what it sets alone.
    Observations are flattened to `[D]` float32 (`FlattenObservation`), actions may be discrete or a float box `[A]`.
    `horizon` is the specification's where it has one.

    `vectorization="async"` spreads the environments over `workers` processes (one a CPU by default), `"sync"` runs them
    here: better where a step takes microseconds. The numbers do not depend on either. `has_success`: each step's `info`
    has a `"success"`. `state` is a pair of functions that read and write the state of an environment for `get_state`
    and `set_state`; those of Gymnasium's classic-control and MuJoCo environments are known. With `spaces`, its
    observation and action space, and `horizon`, no environment is built before `make_env`.

    Raises `UsageError` for an unknown id, unusable spaces, ranges or options, and where there is no horizon.
    """

    backends = ("gymnasium",)

    def __init__(
        self,
        id: str,
        env: str | Callable[..., gym.Env],
        *,
        parameters: Parameters,
        apply: Apply,
        sample: Sampler | None = None,
        horizon: int | None = None,
        vectorization: str = "async",
        workers: int | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
        has_success: bool = False,
        state: StateAccess | None = None,
        spaces: tuple[gym.spaces.Box, gym.Space] | None = None,
    ):
        if vectorization not in VECTORIZATIONS:
            raise UsageError(f"unknown vectorization {vectorization!r}: choose from {', '.join(VECTORIZATIONS)}")
        for name, value in (("horizon", horizon), ("number of workers", workers)):
            if value is not None:
                check_count(name, value)
        self.id = id
        self.vectorization = vectorization
        self.workers = workers
        self.has_success = has_success
        self.task_space = TaskParameters.of(parameters, sample=sample)
        self._env = env
        self._env_kwargs = dict(env_kwargs or {})
        self._apply = functools.partial(_apply_values, apply, dict(self.task_space))
        self._state = state
        if spaces is None or horizon is None:
            spaces, horizon = self._probe(horizon)
        self.observation_space = _float32_box(spaces[0])
        self.action_space = _usable_action_space(id, spaces[1])
        self.horizon = horizon

    def _probe(self, horizon: int | None) -> tuple[tuple[gym.spaces.Box, gym.Space], int]:
        """Spaces and horizon by building one environment, which also tells whether its state is known."""
        try:
            env = _make_one(self._env, self._env_kwargs, None)
        except gym.error.Error as error:
            raise UsageError(f"{self.id}: {' '.join(str(error).split())}") from error
        try:
            if not isinstance(env.observation_space, gym.spaces.Box):
                raise UsageError(f"{self.id}: observations in {env.observation_space} cannot be flattened to a vector")
            if horizon is None and env.spec is not None:
                horizon = env.spec.max_episode_steps
            if horizon is None and isinstance(self._env, str):
                horizon = gym.spec(self._env).max_episode_steps
            if horizon is None:
                raise UsageError(f"{self.id}: the environment has no time limit: pass horizon=")
            self._state = self._state or known_state(env)
            return (env.observation_space, env.action_space), horizon
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
            functools.partial(_make_one, self._env, self._env_kwargs, render_mode),
            self._apply,
            self._state,
            self.observation_space,
            self.action_space,
            self.horizon,
        )
        return GymnasiumEnv(self, recipe, num_tasks, envs_per_task, device=device, seed=seed, render_mode=render_mode)


def _make_one(env: str | Callable[..., gym.Env], kwargs: Mapping[str, Any], render_mode: str | None) -> gym.Env:
    """One environment with flat observations; `Chunk` keeps the time, so an id's own time limit is left out."""
    if isinstance(env, str):
        made = gym.make(env, render_mode=render_mode, max_episode_steps=-1, disable_env_checker=True, **kwargs)
    elif render_mode is None:
        made = env(**kwargs)
    else:
        takes = inspect.signature(env).parameters
        if "render_mode" not in takes and all(p.kind is not p.VAR_KEYWORD for p in takes.values()):
            raise UsageError("this environment cannot be rendered: its factory takes no render_mode")
        made = env(render_mode=render_mode, **kwargs)
    flat = isinstance(made.observation_space, gym.spaces.Box) and len(made.observation_space.shape) == 1
    return made if flat else gym.wrappers.FlattenObservation(made)


def _apply_values(apply: Apply, spaces: Mapping[str, gym.Space], env: gym.Env, row: Mapping[str, Any]) -> None:
    apply(env, decode(spaces, row))


def _float32_box(box: gym.spaces.Box) -> gym.spaces.Box:
    with np.errstate(over="ignore"):  # the largest float64 becomes infinity, as it should
        return gym.spaces.Box(box.low.astype(np.float32), box.high.astype(np.float32), dtype=np.float32)


def _usable_action_space(id: str, space: gym.Space) -> gym.spaces.Box | gym.spaces.Discrete:
    if isinstance(space, gym.spaces.Discrete):
        return space
    if isinstance(space, gym.spaces.Box) and len(space.shape) == 1 and space.dtype.kind == "f":
        return _float32_box(space)
    raise UsageError(f"{id}: actions must be Discrete or a Box of floats of shape [A], not {space}")


class GymnasiumEnv(TaskVectorEnv):
    """Environments in chunks: one `Chunk` for each worker of an `AsyncVectorEnv`, or one in a `SyncVectorEnv`.

    When an environment raises, in a worker or here, all workers are shut down and its exception comes out of the call
    that met it; the worker has printed the traceback.
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
        self._has_state = recipe.state is not None
        workers = (distribution.workers or _num_cpus()) if distribution.vectorization == "async" else 1
        self._rows = -(-self.num_envs // min(workers, self.num_envs))
        starts = range(0, self.num_envs, self._rows)
        layouts = [{"first": i, "count": min(self._rows, self.num_envs - i), "rows": self._rows} for i in starts]
        is_async = distribution.vectorization == "async"
        parcel = _pickled(recipe, distribution.id) if is_async else recipe
        chunks: list[Callable[[], gym.Env]] = [
            functools.partial(open_chunk, parcel, os.getpid(), envs_per_task=envs_per_task, **layout)
            for layout in layouts
        ]
        self._vector = (_open_async if is_async else _open_sync)(chunks)
        self._perform("build")

    def get_state(self) -> dict[str, Tensor]:
        """The environment's own entries (MuJoCo: `qpos`, `qvel`, …), `elapsed_steps` and `rng`, each `[B, ...]`.

        Entries whose size differs between the tasks are padded with zeros.
        """
        if not self._has_state:
            return super().get_state()
        if not self._started:
            raise UsageError("call reset before get_state")
        rows = [row for chunk in self._perform("read_state") for row in chunk]
        return {name: torch.from_numpy(_stack([row[name] for row in rows])).to(self.device) for name in rows[0]}

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Restores what `get_state` returned under the same tasks."""
        if not self._has_state:
            return super().set_state(state)
        _ = self.tasks  # raises where there are none
        wrong = [name for name, value in state.items() if len(value) != self.num_envs]
        if wrong or not {"elapsed_steps", "rng"} <= state.keys():
            raise UsageError(f"this is not the state of {self.num_envs} environments of {self.distribution.id}")
        self._perform("write_state", {name: value.cpu().numpy() for name, value in state.items()})
        self._first_seed = None
        self._started = True

    def render(self) -> tuple[Any, ...] | None:
        if self.render_mode is None:
            return super().render()
        return tuple(frame for chunk in self._perform("frames") for frame in chunk)

    def close_extras(self, **kwargs: Any) -> None:
        """Ends the workers; `close` comes here once."""
        if not hasattr(self, "_vector"):  # it could not be opened
            return
        try:
            self._vector.close()
        except (EOFError, ConnectionError):  # a worker is gone already
            self._vector.close(terminate=True)

    def _set_tasks(self, tasks: Tasks) -> None:
        self._perform("assign", {name: value.cpu().numpy() for name, value in tasks.parameters.items()})

    def _reset(self, seed: int | None) -> tuple[Tensor, dict[str, Any]]:
        seed, self._first_seed = (self._first_seed if seed is None else seed), None
        seeds = [None if seed is None else seed + i for i in range(self.num_envs)]
        out, info = self._ask(lambda: self._vector.reset(options={"seeds": seeds}))
        self._raise_failures(info.get("failure", ()))
        return self._tensor(out["obs"]), {}

    def _step(self, actions: Tensor) -> StepResult:
        space = self.single_action_space
        padded = np.zeros((self._vector.num_envs * self._rows, *space.shape), space.dtype)
        chosen = actions.cpu().numpy()
        padded[: self.num_envs] = np.clip(chosen, space.low, space.high) if space.shape else chosen
        padded[self.num_envs :] = 0 if space.shape else space.start
        padded = padded.reshape(self._vector.num_envs, self._rows, *space.shape)
        out, *_, info = self._ask(lambda: self._vector.step(padded))
        self._raise_failures(info.get("failure", ()))
        terminated, truncated = self._tensor(out["terminated"]).bool(), self._tensor(out["truncated"]).bool()
        success = {"success": self._tensor(out["success"]).bool()} if self.distribution.has_success else {}
        step = step_info(self._tensor(out["final_obs"]), terminated | truncated, **success)
        return self._tensor(out["obs"]), self._tensor(out["reward"]), terminated, truncated, step

    def _tensor(self, chunks: np.ndarray) -> Tensor:
        """Rows `[B, ...]` of the chunks' shared arrays `[chunks, rows, ...]`, as a copy on the device."""
        flat = chunks.reshape(-1, *chunks.shape[2:])[: self.num_envs]
        return torch.from_numpy(flat.copy()).to(self.device)

    def _perform(self, method: str, *arguments: Any) -> tuple[Any, ...]:
        answers = self._ask(lambda: self._vector.call("perform", method, *arguments))
        self._raise_failures(answers)
        return answers

    def _ask(self, question: Callable[[], Answer]) -> Answer:
        """Puts `question` to the workers; if it is broken off (Ctrl-C, a dead worker), their pipes are out of step."""
        if self.closed:
            raise UsageError("this environment is closed: make another")
        try:
            return question()
        except (EOFError, ConnectionError) as error:
            connection.wait([process.sentinel for process in self._vector.processes], timeout=1)
            codes = [process.exitcode for process in self._vector.processes if process.exitcode is not None]
            self._abort()
            raise RuntimeError(
                f"a worker of {self.distribution.id} died (exit code {codes}): killed for memory, or a native crash?"
            ) from error
        except BaseException:
            self._abort()
            raise

    def _raise_failures(self, answers: Any) -> None:
        failures = [answer for answer in answers if isinstance(answer, Failure)]
        if failures:
            self.close()
            raise failures[0].error

    def _abort(self) -> None:
        """Ends the workers without another word to them."""
        if isinstance(self._vector, AsyncVectorEnv):
            self._vector._state = AsyncState.DEFAULT  # else close would wait for the answer
            self._vector.close(terminate=True)
        self.close()


def _pickled(recipe: Recipe, id: str) -> bytes:
    try:
        return cloudpickle.dumps(recipe)
    except Exception as error:  # whatever the user's objects raise
        raise UsageError(f"{id}: cannot be sent to workers ({error}); use vectorization='sync'") from error


def _open_sync(chunks: list[Callable[[], gym.Env]]) -> SyncVectorEnv:
    return SyncVectorEnv(chunks, copy=False, autoreset_mode=AutoresetMode.DISABLED)


def _open_async(chunks: list[Callable[[], gym.Env]]) -> AsyncVectorEnv:
    """One worker a chunk, forked from a server that has no thread but has imported this package.

    A fork of this process would copy torch's and CUDA's locks in whatever state their threads left them, and Python
    3.12 warns of it; a spawned worker would import torch again, each for itself.
    """
    methods = multiprocessing.get_all_start_methods()
    context = "forkserver" if "forkserver" in methods else "spawn"
    if context == "forkserver":
        multiprocessing.get_context(context).set_forkserver_preload(["metarl.envs.gymnasium_worker"])
    with _main_module_hidden():
        return AsyncVectorEnv(
            chunks, copy=False, shared_memory=True, context=context, autoreset_mode=AutoresetMode.DISABLED
        )


@contextlib.contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Keeps new processes from running the user's script again, as multiprocessing would have them do.

    They need nothing of it, for cloudpickle sends what is defined in the script by value; and so a script needs no
    `if __name__ == "__main__"`.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _num_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _stack(rows: list[np.ndarray]) -> np.ndarray:
    """`[B, ...]` from rows that may differ in their first size: the shorter ones are padded with zeros."""
    if rows[0].ndim == 0:
        return np.array(rows)
    longest = max(len(row) for row in rows)
    return np.stack([np.pad(row, [(0, longest - len(row))] + [(0, 0)] * (row.ndim - 1)) for row in rows])
