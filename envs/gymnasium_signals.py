"""One byte through a pipe of `multiprocessing`, beside its messages: a step needs no more, and messages cost more."""

import os
import select
import sys
from multiprocessing.connection import Connection

STEP, MESSAGE = b"s", b"m"
"""To a worker: step; read a message."""
DONE = b"d"
"""From a worker: stepped. Its other answers are messages too."""

if sys.platform == "win32":  # a pipe has no file descriptor there

    def put(pipe: Connection, signal: bytes) -> None:
        pipe.send_bytes(signal)

    def get(pipe: Connection) -> bytes:
        return pipe.recv_bytes()

    def is_ready(pipe: Connection, seconds: float) -> bool:
        return pipe.poll(seconds)

else:

    def put(pipe: Connection, signal: bytes) -> None:
        """Sends one byte; raises `ConnectionError` if nobody is there to read it."""
        os.write(pipe.fileno(), signal)

    def get(pipe: Connection) -> bytes:
        """Waits for one byte; raises `EOFError` or `ConnectionError` if the other end is gone."""
        signal = os.read(pipe.fileno(), 1)
        if not signal:
            raise EOFError
        return signal

    def is_ready(pipe: Connection, seconds: float) -> bool:
        """Waits until there is something to read, or the other end is gone; False if that takes longer."""
        poll = select.poll()  # a tenth of the time that `pipe.poll` takes
        poll.register(pipe.fileno(), select.POLLIN)
        return bool(poll.poll(1000 * seconds))
