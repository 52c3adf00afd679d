"""A run that is killed again and again: each attempt is a fork of one process that has imported all, trained nothing.

`python kill_rig.py KIND OUTPUT KILLS SEED [full]` prints how often the run was killed, or stopped by a full disk, and
leaves it finished in OUTPUT. The seed chooses the moments:

- at the n-th time that the run opens, renames, truncates or deletes a file of its folder, or waits for the disk, where
  a half-written checkpoint lies on the disk;
- as soon as a temporary file of a checkpoint is seen from outside;
- when metrics.jsonl has grown by n bytes, which may be in the middle of a line;
- at any time of the run, after n milliseconds.

With `full`, OUTPUT lies on a small disk of its own, which is filled up for good as its metrics have grown by n bytes.
"""

import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import metarl
import metarl.fewshot
from metarl.errors import StorageFault

sys.path.insert(0, str(Path(__file__).parent))
STOPPED, FINISHED = 3, 0
TINY = {"num_tasks": 2, "envs_per_task": 2, "hidden": (4,)}
OPTIONS = {
    "maml": TINY,
    "rl2": TINY | {"hidden": 4},
    "pearl": TINY | {"train_tasks": 4, "updates": 2, "initial_episodes": 1, "batch_size": 8, "replay_capacity": 300},
}


def make_config(kind: str, output: Path) -> metarl.TrainConfig | metarl.fewshot.FewShotConfig:
    if kind == "fewshot":
        options = {"iterations": 900, "hidden": (4,), "num_tasks": 2}
        return metarl.fewshot.FewShotConfig(
            "protonet",
            "biased",
            learner_options=options,
            episodes=3,
            seed=3,
            checkpoint_every=5,
            row_every=1,
            output=output,
        )
    return metarl.TrainConfig(
        kind,
        "PointNavigation-v0",
        {"horizon": 4},
        agent_options=OPTIONS[kind],
        iterations=300,
        seed=3,
        checkpoint_every=3,
        output=output,
    )


def attempt(kind: str, output: Path) -> None:
    """Begins the run, or goes on with it."""
    if (output / "config.yaml").exists():
        metarl.resume(output, progress=False)
    else:
        metarl.train(make_config(kind, output), progress=False)


def fork(kind: str, output: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """The process that makes an attempt."""
    child = os.fork()
    if child:
        return child
    code = STOPPED
    try:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        prepare()
        attempt(kind, output)
        code = FINISHED
    except StorageFault:
        pass
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
        code = 1
    finally:
        os._exit(code)


def die_at(count: int, output: Path) -> None:
    """Kills this process at its `count`-th change of a file in the folder."""
    left, real, inside = [count], os.fsync, str(output)

    def count_down() -> None:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple) -> None:
        changes = event in ("os.rename", "os.remove", "os.truncate") or (event == "open" and arguments[1] != "r")
        if changes and str(arguments[0]).startswith(inside):
            count_down()

    def fsync(descriptor: int) -> None:
        count_down()
        real(descriptor)

    sys.addaudithook(hook)
    os.fsync = fsync


def size(output: Path) -> int:
    file = output / "metrics.jsonl"
    return file.stat().st_size if file.exists() else 0


def has_ended(child: int) -> int | None:
    """The child's status if it has ended."""
    found, status = os.waitpid(child, os.WNOHANG)
    return status if found else None


def wait_until(child: int, comes: Callable[[], bool]) -> int | None:
    """Waits until something comes, or the child has ended, whose status is then returned."""
    while not comes():
        status = has_ended(child)
        if status is not None:
            return status
        time.sleep(0.0005)
    return None


def kill_once(kind: str, output: Path, draw: random.Random) -> int:
    """Makes an attempt and kills it; returns the status it ended with."""
    how = draw.choice(["files", "files", "temporary", "bytes", "time"])
    if how == "files":
        count = draw.randrange(1, 40)
        return os.waitpid(fork(kind, output, lambda: die_at(count, output)), 0)[1]
    before, child = size(output), fork(kind, output)
    if how == "time":
        end = time.monotonic() + draw.uniform(0.0, 1.5)
        status = wait_until(child, lambda: time.monotonic() > end)
    elif how == "bytes":
        grown = before + draw.randrange(1, 3000)
        status = wait_until(child, lambda: size(output) > grown)
    else:
        status = wait_until(child, lambda: any(output.glob("checkpoints/.*.tmp")))
    if status is not None:
        return status
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def fill_once(kind: str, output: Path, draw: random.Random) -> int:
    """Makes an attempt and fills its disk; returns the status it ended with."""
    ballast = output.parent / "ballast"
    grown = size(output) + draw.randrange(300, 3000)
    child = fork(kind, output)
    status = wait_until(child, lambda: size(output) > grown)
    with ballast.open("wb", buffering=0) as file:
        for count in (1 << 16, 1 << 10, 1):
            try:
                while True:
                    file.write(bytes(count))
            except OSError:
                continue
    status = os.waitpid(child, 0)[1] if status is None else status
    ballast.unlink()
    return status


def main() -> None:
    kind, output, wanted, seed, *full = sys.argv[1:]
    run, draw, stops, attempts = Path(output), random.Random(int(seed)), 0, 0
    stop_once = fill_once if full else kill_once
    while stops < int(wanted):
        attempts += 1
        status = stop_once(kind, run, draw)
        if os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == STOPPED:
            stops += 1
        else:
            assert os.waitstatus_to_exitcode(status) == FINISHED, f"attempt {attempts} failed"
            break
        if run.exists() and not (run / "config.yaml").exists():
            shutil.rmtree(run)  # killed before there was a run: begun anew, as its owner would
    assert os.waitpid(fork(kind, run), 0)[1] == 0
    print(stops)


if __name__ == "__main__":
    main()
