"""Processes that a benchmark starts: workers that measure on request, and busy neighbours."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from metarl.errors import UsageError

_BUSY = """
import os, sys
print(flush=True)
while os.getppid() == int(sys.argv[1]):
    for _ in range(1_000_000):
        pass
"""
"""What a neighbour runs: it computes until it is ended, or until the process that started it is gone."""


class Process:
    """A process of its own group: Ctrl-C reaches only the benchmark, which ends what it has started.

    It stays in the session of the benchmark, because Linux may share out the processors among sessions, however many
    processes they have (`man 7 sched`, autogroup): three sessions get a third of a machine each.
    """

    def __init__(self, command: list[str], environment: Mapping[str, str] | None = None, errors: IO[str] | None = None):
        self.popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=None if environment is None else dict(environment),
            text=True,
            process_group=0,
        )

    def wait_for_line(self) -> str:
        """The next line that it prints; empty if it has ended."""
        assert self.popen.stdout is not None
        return self.popen.stdout.readline()

    def write_line(self, text: str) -> None:
        """Gives it a line of input, if it has not ended."""
        assert self.popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.popen.stdin.write(text + "\n")
            self.popen.stdin.flush()

    def kill(self) -> None:
        """Ends the process and all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends the process and all that it has started, waits for it and closes its pipes."""
        self.kill()
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class Worker(Process):
    """A process of one version that runs the measurements of `script` on request, one line of JSON for each.

    `threads` are OpenMP's; None leaves them to `environment`, which is that of this process if not given.
    """

    def __init__(
        self, python: str, script: Path, threads: int | None = None, environment: Mapping[str, str] | None = None
    ):
        self._python = python
        chosen = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
        # -P: modules must not be imported from the folder of the script.
        super().__init__(
            [python, "-P", str(script)], {**(os.environ if environment is None else environment), **chosen}
        )

    def ask(self, request: Any) -> dict[str, Any]:
        """Runs one measurement; returns its result."""
        self.send(request)
        return self.receive()

    def send(self, request: Any) -> None:
        """Starts a measurement."""
        self._request = request
        self.write_line(json.dumps(request))  # `receive` says so if it has ended

    def receive(self) -> dict[str, Any]:
        """Waits for the result of the measurement."""
        answer = self.wait_for_line()
        if not answer:
            raise UsageError(f"{self._python} cannot measure {self._request!r}: see its own message above")
        return json.loads(answer)


@contextlib.contextmanager
def neighbours(count: int) -> Iterator[list[Process]]:
    """Within the block, `count` processes compute all the time, one thread each.

    >>> from metarl.scripts.workers import neighbours
    >>> with neighbours(2):
    ...     beside_two = sum(range(1000))
    """
    command = [sys.executable, "-S", "-c", _BUSY, str(os.getpid())]
    with contextlib.ExitStack() as running:
        processes = [running.enter_context(contextlib.closing(Process(command))) for _ in range(count)]
        for process in processes:
            process.wait_for_line()
        yield processes
