"""The part of the Gymnasium backend that runs where the environments are: in the worker processes, or in this one."""

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import cloudpickle
import gymnasium as gym
import numpy as np

from metarl.envs.gymnasium_actions import ActionCodec
from metarl.envs.gymnasium_answers import (
    WrongAnswer,
    check_reset,
    check_step,
    find_success,
    is_bad,
    layers,
    require_keyword,
    tells_success,
)
from metarl.envs.gymnasium_apply import Apply, apply_task
from metarl.envs.gymnasium_buffers import Buffers
from metarl.envs.gymnasium_make import Maker, Registry, in_a_line
from metarl.envs.gymnasium_observations import ObservationCodec
from metarl.envs.gymnasium_seeding import seeding_faults
from metarl.envs.gymnasium_signals import DONE, MESSAGE, STEP, get, put
from metarl.envs.gymnasium_state import Arrays, StateAccess, read_rng, write_rng
from metarl.errors import EnvironmentFault, RenderingUnavailable, UsageError, noted
from metarl.own_frames import RemoteTraceback
from metarl.parsing import printable
from metarl.plain_warnings import Remarked, kept_warnings


@dataclass(frozen=True)
class Recipe:
    """How to make and handle one environment; it travels to the workers by cloudpickle, so lambdas will do."""

    id: str
    make: Maker
    apply: Apply
    state: StateAccess | None
    observations: ObservationCodec
    actions: ActionCodec
    horizon: int
    success_keys: tuple[str, ...] = ()
    has_success: bool = False
    reset_options: Mapping[str, Any] = field(default_factory=dict)


class Failure:
    """An exception on its way to the process that asked: pickled as itself, or as a `RuntimeError` if it cannot be.

    Its traceback, which does not travel, goes along as its cause.
    """

    def __init__(self, error: Exception, remote: RemoteTraceback | None = None):
        self.error = error
        self._remote = remote

    def __reduce__(self) -> tuple:
        notes = getattr(self.error, "__notes__", [])
        plain = RuntimeError(f"{type(self.error).__name__}: {self.error}")
        for note in notes:
            plain.add_note(note)
        data = cloudpickle.dumps(plain)
        try:
            exact = cloudpickle.dumps(self.error)
            cloudpickle.loads(exact)
        except Exception:  # an exception holds whatever its author put in, and rebuilds itself as it likes
            return Failure.load, (data, self._remote)
        return Failure.load, (exact, self._remote)

    @classmethod
    def load(cls, data: bytes, remote: RemoteTraceback | None) -> "Failure":
        error = cloudpickle.loads(data)
        error.__cause__ = remote
        return cls(error)


class Chunk:
    """Environments `first` … `first + count - 1` of a batch. They write what steps give into their rows of `buffers`.

    What an environment gives is checked before it is written. A number that is not finite ends its episode as a fault:
    reward 0, truncated, and the observation before as the last one.
    """

    def __init__(self, recipe: Recipe, buffers: Buffers, *, first: int, envs_per_task: int):
        self._recipe = recipe
        self._out = buffers
        self._members = range(first, first + buffers.num_envs)
        self._task_of = [i // envs_per_task for i in self._members]
        self._elapsed = [0] * buffers.num_envs
        self._values = [""] * buffers.num_envs
        self._started = False
        self._envs: list[gym.Env] = []
        self._identities: set[int] = set()
        try:
            for i, member in enumerate(self._members):
                with noted(f"raised as environment {member} of {recipe.id} was made"):
                    env = recipe.make()
                self._add(env)
                self._require(i, "seed")
                if recipe.reset_options:
                    self._require(i, "options")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        while self._envs:
            self._envs.pop().close()

    def assign(self, parameters: Arrays) -> None:
        """Gives every environment its task; `parameters` holds the rows of all tasks of the batch."""
        for i, (env, task) in enumerate(zip(self._envs, self._task_of, strict=True)):
            rows = {name: value[task] for name, value in parameters.items()}
            values = {name: row.item() if row.ndim == 0 else row.copy() for name, row in rows.items()}
            self._values[i] = printable(str(values))
            with noted(f"raised by the function apply= of {self._recipe.id} ({self._place(i)}: {self._values[i]})"):
                apply_task(self._recipe.apply, env, values, self._recipe.id)

    def reset(self, seeds: list[int | None], options: Mapping[str, Any]) -> None:
        """Starts episodes; `seeds` has a seed, or None, for each environment of the batch."""
        for i, member in enumerate(self._members):
            if options:
                self._require(i, "options")
            self._start_episode(i, options, seed=seeds[member])
        self._started = True

    def step(self) -> None:
        """Steps every environment with its row of the actions, and starts new episodes where they have ended."""
        out = self._out
        elapsed, horizon = self._elapsed, self._recipe.horizon
        bad, ended, i = [], [], 0
        try:
            actions = self._recipe.actions.decode(out.actions)
            for i, env in enumerate(self._envs):
                elapsed[i] += 1
                observation, reward, terminated, truncated, info = check_step(env.step(actions[i]))
                truncated = truncated or elapsed[i] >= horizon
                if is_bad(reward):
                    bad.append(i)
                    reward = 0.0
                out.rewards[i] = reward
                out.terminated[i] = terminated
                out.truncated[i] = truncated
                self._note_success(i, info)
                self._write(observation, out.final_observations, i)
                if terminated or truncated:
                    ended.append(i)
        except Exception as error:
            self._raise_at(i, error, "step")
        bad += [i for i in out.rows_not_finite(out.final_observations) if i not in bad]
        out.faults[:] = False
        for i in bad:
            out.mark_fault(i)
        out.copy_final()
        for i in sorted({*ended, *bad}):
            self._start_episode(i)

    def frames(self) -> list[Any]:
        """A picture of each environment; raises `RenderingUnavailable`, with the renderer's words, if it fails."""
        frames = []
        for env in self._envs:
            try:
                if _draws_with_mujoco(env):
                    from metarl.envs.physics.opengl import choose_opengl  # here alone: other workers need no MuJoCo

                    choose_opengl()
                frame = env.render()
            except Exception as error:  # a missing package, no display, no OpenGL
                name = type(env.unwrapped).__name__
                raise RenderingUnavailable(f"{self._recipe.id}: {name}.render failed: {in_a_line(error)}") from error
            if not isinstance(frame, np.ndarray):
                raise UsageError(
                    f"{self._recipe.id}: {type(env.unwrapped).__name__}.render returned {type(frame).__name__} "
                    f"instead of a picture: has it the render mode {env.render_mode!r}?"
                )
            frames.append(frame)
        return frames

    def seeding_faults(self, options: Mapping[str, Any]) -> list[str]:
        """What is wrong with the seeding of the first environment, of which it starts episodes."""
        return seeding_faults(self._envs[0], lambda seed: self._start_episode(0, options, seed=seed))

    def read_state(self) -> list[Arrays]:
        """One dictionary an environment: its own state, the time in its episode, its random stream, and what it last
        showed, which a fault in the next step would repeat."""
        assert self._recipe.state is not None
        read, _ = self._recipe.state
        return [
            {name: np.array(value) for name, value in read(env).items()}
            | {"elapsed_steps": np.array(self._elapsed[i]), "rng": read_rng(env)}
            | {name: rows[i].copy() for name, rows in self._out.last_observations().items()}
            for i, env in enumerate(self._envs)
        ]

    def write_state(self, state: Arrays) -> None:
        """Restores rows `[B, ...]` of `read_state`'s entries."""
        assert self._recipe.state is not None
        _, write = self._recipe.state
        if not self._started:  # wrappers, and environments that place things, want a reset first
            self.reset([None] * self._members.stop, {})
        for i, env in enumerate(self._envs):
            own = {name: value[self._members[i]] for name, value in state.items()}
            write_rng(env, own.pop("rng"))
            self._set_elapsed(i, int(own.pop("elapsed_steps")))
            for name, rows in self._out.last_observations().items():
                rows[i] = own.pop(name)
            write(env, own)

    def _start_episode(self, i: int, options: Mapping[str, Any] | None = None, **seed: int | None) -> None:
        """Resets environment `i`, and once more if its first observation is not finite."""
        env = self._envs[i]
        options = {**self._recipe.reset_options, **(options or {})}
        given: dict[str, Any] = {**seed, "options": options} if options else {**seed}
        try:
            for arguments in (given, {**given, "seed": None}):
                observation, _ = check_reset(env.reset(**arguments))
                self._write(observation, self._out.observations, i)
                if not self._out.rows_not_finite(self._out.observations, i):
                    self._elapsed[i] = 0
                    return
        except Exception as error:
            self._raise_at(i, error, "reset")
        raise EnvironmentFault(
            f"{self._recipe.id}: {type(env.unwrapped).__name__}.reset gave an observation that is not finite, twice "
            f"in a row ({self._place(i)})"
        )

    def _write(self, observation: Any, rows: Any, i: int) -> None:
        self._recipe.observations.write(observation, rows, i)

    def _note_success(self, i: int, info: Mapping[str, Any]) -> None:
        """Writes whether environment `i` has succeeded; of a family without success, only whether it would tell."""
        keys, seen = self._recipe.success_keys, self._out.success_seen
        if self._recipe.has_success:
            success = find_success(info, keys)
            self._out.success[i] = bool(success)
            if success is not None:
                seen[i] = True
        elif info and not seen[i]:
            seen[i] = tells_success(info, keys)

    def _add(self, env: gym.Env) -> None:
        """Takes in an environment. Raises `UsageError` for one that is here already, or has not the family's spaces."""
        recipe, name = self._recipe, type(env.unwrapped).__name__
        if id(env.unwrapped) in self._identities:
            raise UsageError(
                f"{recipe.id}: its factory returned the same environment twice ({name}): make a new one in each call"
            )
        self._identities.add(id(env.unwrapped))
        self._envs.append(env)
        wrong = recipe.observations.mismatch(env.observation_space) or recipe.actions.mismatch(env.action_space)
        if wrong:
            raise UsageError(f"{recipe.id}: {name} has {wrong} ({self._place(len(self._envs) - 1)})")

    def _raise_at(self, i: int, error: Exception, method: str) -> NoReturn:
        """Raises `error` with the place where it was met; a wrong answer becomes a `UsageError`."""
        name = type(self._envs[i].unwrapped).__name__
        if isinstance(error, WrongAnswer):
            words = str(error) if str(error).startswith(method) else f"{method} {error}"
            raise UsageError(f"{self._recipe.id}: {name}.{words} ({self._place(i)})") from None
        when = f", in step {self._elapsed[i]} of an episode" if method == "step" else ""
        error.add_note(f"raised by {name}.{method} ({self._place(i)} of {self._recipe.id}: {self._values[i]}){when}")
        raise error

    def _require(self, i: int, keyword: str) -> None:
        try:
            require_keyword(self._envs[i], keyword)
        except WrongAnswer as error:
            self._raise_at(i, error, "reset")

    def _place(self, i: int) -> str:
        return f"environment {self._members[i]}, task {self._task_of[i]}"

    def _set_elapsed(self, i: int, steps: int) -> None:
        self._elapsed[i] = steps
        for layer in layers(self._envs[i]):
            if isinstance(layer, gym.wrappers.TimeLimit):  # a factory may bring its own
                layer._elapsed_steps = steps


# Worker processes -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parcel:
    """What a worker needs to know beside its recipe: what the process that starts it has registered and set."""

    recipe: bytes
    registry: Registry
    environment: Mapping[str, str]
    keeps_warnings: bool = False
    """Whether the worker sends its warnings along with its answers, instead of showing them."""


def attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function` returns, or a `Failure`."""
    try:
        return function(*arguments)
    except Exception as error:
        ours = isinstance(error, UsageError | EnvironmentFault)  # in a line, perhaps for what others raised
        raised = error.__cause__ if ours else error
        return Failure(error, None if raised is None else RemoteTraceback.of(raised))


def serve(pipe: Connection, parcel: Parcel, buffers: Callable[[], Buffers], layout: Mapping[str, int]) -> None:
    """The life of a worker: makes its environments, then answers `(method, arguments)` until it is told to close."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to answer

    warned = kept_warnings() if parcel.keeps_warnings else []

    def open_chunk() -> Chunk:
        os.environ.update(parcel.environment)
        _register(parcel.registry)
        return Chunk(cloudpickle.loads(parcel.recipe), buffers(), **layout)

    with contextlib.suppress(EOFError, ConnectionError):  # the main process is gone
        chunk = attempt(open_chunk)
        _answer(pipe, chunk if isinstance(chunk, Failure) else None, warned)
        method = "open"
        while not isinstance(chunk, Failure) and method != "close":
            if get(pipe) == STEP:
                failure = attempt(chunk.step)
                put(pipe, DONE) if failure is None and not warned else _answer(pipe, failure, warned)
            else:
                method, arguments = pipe.recv()
                _answer(pipe, attempt(getattr(chunk, method), *arguments), warned)


def _answer(pipe: Connection, answer: Any, warned: list[str]) -> None:
    put(pipe, MESSAGE)
    try:
        pipe.send(Remarked(answer, list(warned)) if warned else answer)
        warned.clear()
    except ConnectionError:
        raise
    except Exception as error:  # a state or a picture that cannot be pickled
        pipe.send(Failure(error))


def _register(registry: Registry) -> None:
    main = vars(sys.modules["__main__"])
    for name, data in cloudpickle.loads(registry.names).items():
        main[name] = cloudpickle.loads(data)
    # Packages that are imported from now on register themselves once more.
    warnings.filterwarnings("ignore", ".*Overriding environment .* already in registry", UserWarning)
    for id, data in registry.specs.items():
        with contextlib.suppress(Exception):  # a package that is not for workers; the one in use travels by itself
            gym.registry[id] = cloudpickle.loads(data)


def _draws_with_mujoco(env: gym.Env) -> bool:
    return any(base.__module__ == "gymnasium.envs.mujoco.mujoco_env" for base in type(env.unwrapped).__mro__)
