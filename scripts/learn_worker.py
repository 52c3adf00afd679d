"""What `benchmark_learn` runs in a process of each version; it uses only what all versions have.

The first line of input is a `Request` as JSON. It and each further line are answered by a line with the next
measurement: `count` iterations of `metarl train` or `metarl fewshot` as they run, with their logs and checkpoints.

    {"seconds": …, "parts": {part: seconds}, "amount": …, "count": …, "memory_mib": …, "threads": …}

The parts add up to `seconds`, and both are for one iteration, as is `amount`: environment steps, or few-shot tasks.
"""

import functools
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import metarl
from metarl.experiment import engine
from metarl.experiment.run_folder import create_run_folder
from metarl.fewshot.run import FewShotConfig

RESET, PHYSICS, SCORING, ACTING = "reset", "physics", "observation and reward", "acting"
RETURNS, UPDATE, LOGGING, REST = "returns", "update", "checkpoint and log", "the rest"
DRAWING = "drawing"
AGENT_PARTS = (RESET, PHYSICS, SCORING, ACTING, RETURNS, UPDATE, LOGGING, REST)
FEWSHOT_PARTS = (DRAWING, UPDATE, LOGGING, REST)
RETURNS_METHODS = ("_columns", "_batch")
"""The methods of RL² and of MAML that make what is learned from out of trajectories: values or baseline, returns."""


@dataclass(frozen=True)
class Request:
    """What to measure: `who` is an agent or a few-shot learner, `on` a task distribution or a data set."""

    kind: str
    who: str
    on: str
    options: Mapping[str, Any]
    """Of the agent or learner."""
    env_options: Mapping[str, Any]
    count: int
    """Iterations in one measurement."""
    threads: int | None
    folder: str
    """Where the run folder is made."""


class Stopwatch:
    """Splits time into parts without gaps and overlaps: each moment belongs to the innermost part that is open.

    Physics may run in threads while the main thread waits or does something else. It gets the time in which at least
    one of them steps, at the cost of `SCORING`, within which it happens.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self._open = [LOGGING]
        self._lock = threading.Lock()
        self._stepping = 0
        self.restart()

    def restart(self) -> None:
        """Forgets what was measured."""
        self._spent: dict[str, float] = {}
        self._since = self._clock()

    def read(self) -> dict[str, float]:
        """The seconds of each part since the last restart."""
        self._note()
        spent = dict(self._spent)
        if PHYSICS in spent:
            spent[SCORING] -= spent[PHYSICS]
        return spent

    def enter(self, name: str) -> None:
        """Opens a part."""
        self._note()
        self._open.append(name)

    def leave(self) -> None:
        """Closes the part that was opened last."""
        self._note()
        self._open.pop()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    @contextmanager
    def physics(self) -> Iterator[None]:
        """Around a step of an engine, in any thread."""
        if self._open[-1] != SCORING:  # a reset that simulates
            yield
            return
        with self._lock:
            self._stepping += 1
            if self._stepping == 1:
                self._stepping_since = self._clock()
        try:
            yield
        finally:
            with self._lock:
                self._stepping -= 1
                if self._stepping == 0:
                    self._spent[PHYSICS] = self._spent.get(PHYSICS, 0.0) + self._clock() - self._stepping_since

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Counts calls of `owner.method` in the main thread as a part."""
        plain, main = getattr(owner, method), threading.current_thread()

        @functools.wraps(plain)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread() is not main:
                return plain(*args, **kwargs)
            with self.part(name):
                return plain(*args, **kwargs)

        setattr(owner, method, timed)

    def _note(self) -> None:
        now = self._clock()
        self._spent[self._open[-1]] = self._spent.get(self._open[-1], 0.0) + now - self._since
        self._since = now


def watch_agent(training: Any, watch: Stopwatch) -> None:
    """Times the parts of an agent's iteration."""
    env, agent = training.env, training.agent
    env.set_tasks(training.experiment.distribution.sample(env.num_tasks, seed=0))  # which may load an engine
    watch.watch(agent, "improve", UPDATE)  # what is in none of the following
    for module in {sys.modules[cls.__module__] for cls in type(agent).__mro__}:
        if hasattr(module, "collect"):
            watch.watch(module, "collect", REST)
    for name in [name for name in RETURNS_METHODS if hasattr(agent, name)]:
        watch.watch(agent, name, RETURNS)
    for name, part in (("set_tasks", RESET), ("reset", RESET), ("step", SCORING), ("_start_episodes", RESET)):
        if hasattr(env, name):
            watch.watch(env, name, part)
    for policy in _subclasses(metarl.Policy):
        for name in vars(policy).keys() & {"act", "begin_rollout", "observe", "begin_trial"}:
            watch.watch(policy, name, ACTING)
    physics = sys.modules.get("metarl.envs.physics.engine")
    for engine_class in [] if physics is None else _subclasses(physics.Physics):
        if "step" in vars(engine_class):
            _watch_physics(engine_class, watch)


def watch_fewshot(training: Any, watch: Stopwatch) -> None:
    """Times the parts of a few-shot learner's step."""
    watch.watch(training.data, "episodes", DRAWING)
    watch.watch(training.learner, "fit", UPDATE)


def _watch_physics(engine_class: type, watch: Stopwatch) -> None:
    plain: Callable[..., None] = vars(engine_class)["step"]

    @functools.wraps(plain)
    def timed(*args: Any, **kwargs: Any) -> None:
        with watch.physics():
            plain(*args, **kwargs)

    setattr(engine_class, "step", timed)  # noqa: B010 - mypy knows no class that may change


def _subclasses(cls: Any) -> Iterator[type]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


class Measurements:
    """Answers the first request, and then one line of input after the other, with the next iterations of a training."""

    def __init__(self, training: Any, request: Request):
        self._training, self._count = training, request.count
        self._iterate = training.iterate
        self._amount = 0.0
        # A checkpoint is written once in each measurement, and counted as often as in a run.
        self._saves = request.count / training.checkpoint_every
        self._watch = Stopwatch()
        training.checkpoint_every = request.count
        training.iterate = self.iterate
        self._watch.watch(engine._Loop, "_save", "saving")
        (watch_agent if request.kind == "agent" else watch_fewshot)(training, self._watch)
        self._most_threads = 1
        self._set_threads = torch.set_num_threads
        setattr(torch, "set_num_threads", self._note_threads)  # noqa: B010 - as above

    def iterate(self, iteration: int) -> Mapping[str, int | float]:
        self._watch.enter(REST)  # first, so that none of what follows counts as a log
        done = iteration - 1
        if done % self._count == 0:
            self._watch.leave()
            if done:
                self._answer()
                if not sys.stdin.readline():
                    sys.exit()
            self._most_threads, self._amount = torch.get_num_threads(), 0.0
            self._watch.restart()
            self._watch.enter(REST)
        metrics = self._iterate(iteration)
        self._amount += metrics.get("env_steps", 0)
        self._watch.leave()
        return metrics

    def _answer(self) -> None:
        parts = self._watch.read()
        parts[LOGGING] += parts.pop("saving") * self._saves
        fewshot = hasattr(self._training, "learner")
        if not fewshot and PHYSICS not in parts and hasattr(self._training.env, "engines"):
            raise RuntimeError("the engine was never seen to step: its time would be counted as that of rewards")
        means = {name: parts.pop(name, 0.0) / self._count for name in (FEWSHOT_PARTS if fewshot else AGENT_PARTS)}
        assert not parts, parts
        answer = {
            "seconds": sum(means.values()),
            "parts": means,
            "amount": self._training.learner.config.num_tasks if fewshot else self._amount / self._count,
            "count": self._count,
            "memory_mib": peak_memory(),
            "threads": self._most_threads,
        }
        print(json.dumps(answer), flush=True)

    def _note_threads(self, count: int) -> None:
        self._most_threads = max(self._most_threads, count)
        self._set_threads(count)


def peak_memory() -> float:
    """The largest resident memory that this process has had, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # `getrusage` may answer with the peak of the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 if sys.platform == "linux" else 1024) / 1024


def experiment_of(request: Request) -> Any:
    """The experiment that is measured. It goes on for as long as it is asked to."""
    output = os.path.join(request.folder, str(os.getpid()))
    if request.kind == "agent":
        return metarl.TrainConfig(
            request.who,
            request.on,
            dict(request.env_options),
            dict(request.options),
            iterations=1_000_000,
            threads=request.threads,
            output=output,
        ).resolve()
    config = FewShotConfig(
        request.who, request.on, learner_options=dict(request.options), threads=request.threads, output=output
    )
    return config.resolve()


def main() -> None:
    request = Request(**json.loads(sys.stdin.readline()))
    experiment = experiment_of(request)
    with experiment.training(experiment.make()) as training:
        Measurements(training, request)
        engine.run_training(create_run_folder(experiment), training, None, False)


if __name__ == "__main__":
    main()
