"""Chunks of Gymnasium environments behind one interface: in worker processes that share memory, or in this process."""

import contextlib
import functools
import multiprocessing
import os
import sys
import types
from collections.abc import Iterator
from multiprocessing import connection
from multiprocessing.context import BaseContext
from typing import Any

import cloudpickle

from metarl.envs.gymnasium_actions import ActionCodec
from metarl.envs.gymnasium_buffers import Buffers
from metarl.envs.gymnasium_make import Registry
from metarl.envs.gymnasium_observations import ObservationCodec
from metarl.envs.gymnasium_signals import DONE, MESSAGE, STEP, get, is_ready, put
from metarl.envs.gymnasium_worker import Chunk, Failure, Parcel, Recipe, serve
from metarl.errors import EnvironmentFault, UsageError
from metarl.plain_warnings import Remarked, are_plain

PATIENCE = 600.0
"""Seconds that a worker may take for an answer."""
_SECONDS_TO_CLOSE = 10


class WorkerDied(EnvironmentFault):
    """A worker process ended without an answer."""


class WorkerStalled(EnvironmentFault):
    """A worker process gave no answer for as long as it may take."""


class LocalPool:
    """All environments of a batch in this process.

    >>> pool = LocalPool(recipe, num_envs=4, envs_per_task=2)
    >>> pool.call("reset", [0, 1, 2, 3], {})
    """

    processes: tuple = ()

    def __init__(self, recipe: Recipe, num_envs: int, envs_per_task: int):
        codecs = recipe.observations, recipe.actions
        self.buffers = Buffers.in_memory(*codecs, num_envs, bytearray(Buffers.size(*codecs, num_envs)))
        self._chunk = Chunk(recipe, self.buffers, first=0, envs_per_task=envs_per_task)

    def call(self, method: str, *arguments: Any) -> list[Any]:
        """What `method` of each chunk returns. Errors of environments come out as they are."""
        return [getattr(self._chunk, method)(*arguments)]

    def step(self) -> None:
        """Steps all environments with the actions in the buffers, where the results then are."""
        self._chunk.step()

    def close(self) -> None:
        self._chunk.close()

    def terminate(self) -> None:
        """Closes what can be closed after an error."""
        with contextlib.suppress(Exception):  # the error that brought us here is the one to show
            self._chunk.close()


class WorkerPool:
    """The environments of a batch in `workers` processes, each with its share, on memory that all of them see.

    Workers are forked from a server that has no threads but has imported this package: a fork of this process would
    copy the locks of torch and CUDA in whatever state their threads left them. Without fork, they are spawned.

    A step costs a few bytes through a pipe in each direction; actions and results stay in the shared memory.

    >>> pool = WorkerPool(recipe, num_envs=4, envs_per_task=2, workers=2)
    >>> pool.call("reset", [0, 1, 2, 3], {})
    """

    def __init__(
        self, recipe: Recipe, num_envs: int, envs_per_task: int, workers: int, patience: float | None = PATIENCE
    ):
        self._id, self._envs_per_task = recipe.id, envs_per_task
        self._patience: float | None = None  # making an environment may take any time
        parcel = Parcel(_pickled(recipe), Registry.read(), dict(os.environ), keeps_warnings=are_plain())
        context = _context()
        codecs = recipe.observations, recipe.actions
        memory = context.RawArray("B", max(1, Buffers.size(*codecs, num_envs)))
        self.buffers = Buffers.in_memory(*codecs, num_envs, memory)
        rows = self._rows = -(-num_envs // min(workers, num_envs))
        self.pipes: list[connection.Connection] = []
        self.processes: list[Any] = []
        with _main_module_hidden():
            for first in range(0, num_envs, rows):
                pipe, far_end = context.Pipe()
                share = functools.partial(_rows, memory, codecs, num_envs, first, min(rows, num_envs - first))
                process = context.Process(  # type: ignore[attr-defined]
                    target=serve,
                    args=(far_end, parcel, share, {"first": first, "envs_per_task": envs_per_task}),
                    name=f"metarl {recipe.id} {first}",
                    daemon=True,
                )
                self.processes.append(process)
                self.pipes.append(pipe)
                process.start()
                far_end.close()
        try:
            self._answers()
        except BaseException:
            self.terminate()
            raise
        self._patience = patience

    def call(self, method: str, *arguments: Any) -> list[Any]:
        """What `method` of each chunk returns. Raises what an environment raised in a worker, or `WorkerDied`.

        After an error, Ctrl-C included, the pipes are out of step: call `terminate`.
        """
        message = cloudpickle.dumps((method, arguments))
        try:
            for pipe in self.pipes:
                put(pipe, MESSAGE)
                pipe.send_bytes(message)
        except ConnectionError as error:
            raise self._death() from error
        return self._answers()

    def step(self) -> None:
        """Steps all environments with the actions in the buffers, where the results then are."""
        try:
            for pipe in self.pipes:
                put(pipe, STEP)
        except ConnectionError as error:
            raise self._death() from error
        self._answers()

    def close(self) -> None:
        """Lets the workers close their environments and waits for their end."""
        if self.pipes[0].closed:  # terminated
            return
        try:
            self.call("close")
            for process in self.processes:
                process.join(_SECONDS_TO_CLOSE)
        except WorkerDied:  # the others may not have heard
            pass
        finally:
            self.terminate()

    def terminate(self) -> None:
        """Ends the workers without another word to them."""
        for process in self.processes:
            if process.is_alive():
                process.terminate()
        for process in self.processes:
            process.join(_SECONDS_TO_CLOSE)
            if process.is_alive():  # it does not listen
                process.kill()
                process.join()
        for pipe in self.pipes:
            pipe.close()

    def _answers(self) -> list[Any]:
        try:
            answers = [self._answer(pipe) for pipe in self.pipes]
        except (EOFError, ConnectionError) as error:
            raise self._death() from error
        for answer in answers:
            if isinstance(answer, Failure):
                raise answer.error
        return answers

    def _answer(self, pipe: connection.Connection) -> Any:
        if self._patience is not None and not is_ready(pipe, self._patience):
            raise self._stall(pipe)
        answer = None if get(pipe) == DONE else pipe.recv()
        return answer.read() if isinstance(answer, Remarked) else answer

    def _stall(self, pipe: connection.Connection) -> WorkerStalled:
        first = self.pipes.index(pipe) * self._rows
        last = min(first + self._rows, len(self.buffers.rewards)) - 1
        tasks = f"tasks {first // self._envs_per_task} to {last // self._envs_per_task}"
        return WorkerStalled(
            f"{self._id}: the worker of environments {first} to {last} ({tasks}) gave no answer for "
            f"{self._patience:g} s: one of them hangs, or pass patience= if a step may take longer"
        )

    def _death(self) -> WorkerDied:
        connection.wait([process.sentinel for process in self.processes], timeout=1)  # for the exit code
        codes = [process.exitcode for process in self.processes if process.exitcode is not None]
        return WorkerDied(f"a worker of {self._id} died (exit code {codes}): killed for memory, or a native crash?")


def _rows(memory: Any, codecs: tuple[ObservationCodec, ActionCodec], num_envs: int, first: int, count: int) -> Buffers:
    """A worker's part of the shared memory, as it is made over there."""
    return Buffers.in_memory(codecs[0], codecs[1], num_envs, memory).part(first, count)


def _pickled(recipe: Recipe) -> bytes:
    try:
        return cloudpickle.dumps(recipe)
    except Exception as error:  # whatever the user's objects raise
        raise UsageError(f"{recipe.id}: cannot be sent to workers ({error}); use vectorization='sync'") from error


def _context() -> BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["metarl.envs.gymnasium_worker"])
    return context


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
