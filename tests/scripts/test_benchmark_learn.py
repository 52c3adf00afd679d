"""`metarl benchmark learn`: its parts add up, its bounds are what they are called, and what it starts ends with it."""

import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import metarl
from metarl import UsageError
from metarl.agents.rl2 import RL2Config
from metarl.scripts import benchmark_learn, learn_bounds
from metarl.scripts.benchmark_learn import SETTINGS, Arguments, Setting, run
from metarl.scripts.learn_bounds import RecurrentShapes, products_seconds
from metarl.scripts.learn_worker import ACTING, LOGGING, PHYSICS, SCORING, UPDATE, Stopwatch
from metarl.scripts.workers import Worker, neighbours

TINY = {
    "robot": Setting("rl2", "HalfCheetahVel-v0", {"num_tasks": 2, "epochs": 1}, {"horizon": 5}),
    "scenes": Setting("rl2", "ML10-v3", {"num_tasks": 10, "epochs": 1}, {"horizon": 5}),
    "point": Setting("maml", "PointNavigation-v0", {"num_tasks": 2, "envs_per_task": 2}, {"horizon": 5}),
    "sines": Setting("maml", "sinusoid", {"num_tasks": 2}, kind="few-shot", count=3),
}


class Clock:
    """Shows the time that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_every_moment_belongs_to_the_innermost_part():
    clock = Clock()
    watch = Stopwatch(clock)
    clock.now = 1
    with watch.part(UPDATE):
        clock.now = 3
        with watch.part(ACTING):
            clock.now = 7
        clock.now = 8
    clock.now = 10
    assert watch.read() == {LOGGING: 3, UPDATE: 3, ACTING: 4}
    watch.restart()
    clock.now = 11
    assert watch.read() == {LOGGING: 1}


def test_physics_is_the_time_in_which_any_thread_simulates():
    clock = Clock()
    watch = Stopwatch(clock)
    with watch.part(SCORING):
        clock.now = 1
        started, ended = threading.Event(), threading.Event()

        def simulate() -> None:
            with watch.physics():
                started.set()
                ended.wait()

        thread = threading.Thread(target=simulate)
        thread.start()
        started.wait()
        clock.now = 2
        with watch.physics():
            clock.now = 4
        clock.now = 5
        ended.set()
        thread.join()
        clock.now = 7
    with watch.physics():  # outside of a step
        clock.now = 8
    assert watch.read() == {LOGGING: 1, SCORING: 3, PHYSICS: 4}


def test_products_are_those_of_one_update():
    config = RL2Config(num_tasks=8, episodes_per_trial=2, hidden=16)
    shapes = RecurrentShapes.of(metarl.make("PointNavigation-v0", horizon=3), config)
    assert (shapes.steps, shapes.columns, shapes.inputs, shapes.heads) == (6, 8, 2 + 2 + 2, 3)
    with FlopCounterMode(display=False) as counter:
        for product in learn_bounds._minibatch_products(shapes):
            product()
    assert counter.get_total_flops() * config.epochs * config.minibatches == shapes.flops
    layer = torch.nn.GRU(shapes.inputs, 16)
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.linear(torch.ones(shapes.columns, shapes.inputs), layer.weight_ih_l0)
        torch.nn.functional.linear(torch.ones(shapes.columns, 16), layer.weight_hh_l0)
        torch.nn.functional.linear(torch.ones(shapes.columns, 16), torch.ones(shapes.heads, 16))
    assert shapes.flops == 3 * config.epochs * shapes.steps * counter.get_total_flops()  # backward is twice forward
    assert products_seconds(shapes, None, 1) > 0


@pytest.mark.parametrize(("id", "options"), [("HalfCheetahVel-v0", {}), ("ML10-v3", {})])
def test_physics_alone_takes_the_steps_that_the_engine_took(id: str, options: dict, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(learn_bounds, "RECORDED_STEPS", 4)
    family = metarl.make(id, **options)
    env = family.make_env(10, 1)
    env.set_tasks(family.sample(10, seed=0))
    worlds = learn_bounds._record(env, family)
    reached = [row for engine in env.engines for row in engine.qpos.numpy()]
    for world in worlds:
        world.restart()
        world.run()
    env.close()
    assert len(worlds) == len(reached) == 10
    for world, qpos in zip(worlds, reached, strict=True):
        np.testing.assert_allclose(world.data.qpos, qpos, atol=1e-4)


def test_dynamics_in_torch_have_no_physics_to_measure():
    assert learn_bounds.physics_speed(metarl.make("PointNavigation-v0"), 1, 1, 1) is None


@pytest.mark.parametrize("name", ["robot", "sines"])
def test_the_parts_of_an_iteration_add_up(name: str, tmp_path: Path):
    setting = TINY[name]
    request = dataclasses.asdict(setting.request(None, str(tmp_path)))
    with closing(Worker(sys.executable, benchmark_learn.WORKER)) as worker:
        answers = [worker.ask(request), worker.ask(None)]
    for answer in answers:
        assert sum(answer["parts"].values()) == pytest.approx(answer["seconds"])
        assert all(seconds > 0 for seconds in answer["parts"].values())
        assert answer["amount"] == (2 * 2 * 5 if name == "robot" else 2)
        assert answer["memory_mib"] > 50
        assert answer["threads"] == 1


@pytest.mark.slow
def test_all_that_it_can_measure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name, setting in TINY.items():
        monkeypatch.setitem(SETTINGS, name, setting)
    python = Path(sys.executable)
    figures = run(Arguments(settings=tuple(TINY), repeats=2, neighbours=1, together=2, python=python))
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "learn.json").write_text(json.dumps(figures))
    (tmp_path / "benchmarks" / "peers.json").write_text(json.dumps({"seconds": {}}))
    for name, row in figures["settings"].items():
        assert sum(row["parts"].values()) == pytest.approx(row["seconds"])
        assert row["neighbours"]["this"]["ratio"] > 0
        assert row["together"]["ratio"] > 0
        assert 0.5 < row["other"]["memory_ratio"] < 2
        assert ("physics_per_second" in row["bounds"]) == (name in ("robot", "scenes"))
        assert ("products_seconds" in row["bounds"]) == (name in ("robot", "scenes"))
    tables = speed_tables(monkeypatch, tmp_path)
    assert tables.learn().count("\n") == tables.learn_beside().count("\n") == 1 + len(TINY)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": ("rl2-cheeta",)}, "unknown setting 'rl2-cheeta'; did you mean rl2-cheetah"),
        ({"settings": ()}, "--settings names none of rl2-cheetah"),
        ({"repeats": 0}, "repeats must be .*1"),
        ({"neighbours": 0}, "neighbours must be .*1"),
        ({"threads": 0}, "threads must be .*1"),
        ({"together": 1}, "--together takes 2 trainings or more, got 1"),
        ({"python": Path("nowhere")}, "--python nowhere: there is no such program"),
    ],
)
def test_bad_options_are_one_line(options: dict, message: str):
    with pytest.raises(UsageError, match=message):
        run(Arguments(**options))


def test_a_version_that_cannot_measure_is_named(tmp_path: Path):
    script = tmp_path / "worker.py"
    script.write_text("")
    with closing(Worker(sys.executable, script)) as worker, pytest.raises(UsageError, match="cannot measure 'it'"):
        worker.ask("it")


def test_neighbours_end_with_the_block_also_after_an_error():
    with pytest.raises(KeyboardInterrupt), neighbours(2) as processes:
        assert [process.popen.poll() for process in processes] == [None, None]
        raise KeyboardInterrupt
    assert [process.popen.poll() for process in processes] == [-signal.SIGKILL] * 2


def test_neighbours_end_when_the_benchmark_is_killed():
    program = (
        "from metarl.scripts.workers import neighbours\n"
        "import time\n"
        "with neighbours(1) as (process,):\n"
        "    print(process.popen.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    benchmark = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert benchmark.stdout is not None
    neighbour = int(benchmark.stdout.readline())
    benchmark.kill()
    benchmark.wait()
    benchmark.stdout.close()
    while is_running(neighbour):
        time.sleep(0.01)


def test_the_tables_show_figures_beside_their_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "benchmarks").mkdir()
    row = {
        "seconds": 2.0,
        "parts": {"physics": 0.5, "update": 1.5},
        "per_second": 10_000.0,
        "unit": "env steps",
        "memory_mib": 512.3,
        "bounds": {"physics_per_second": 40_000.0, "update_over_products": 1.9},
        "other": {"times_faster": {"iteration": 1.5, "update": 2.0}, "memory_ratio": 0.99},
        "neighbours": {"count": 2, "this": {"ratio": 0.6}},
        "together": {"count": 3, "ratio": 0.9},
        "peers": {"RecurrentPPO": {"ratio": 5.2}},
    }
    drawn = {"seconds": 1.0, "parts": {"drawing": 0.1, "update": 0.9}, "per_second": 5.0, "unit": "tasks"}
    settings = {"rl2-cheetah": row, "maml-point": drawn | {"memory_mib": 9.0, "bounds": {}}}
    content = {"settings": settings, "machine": {"cpus": 2}}
    (tmp_path / "benchmarks" / "learn.json").write_text(json.dumps(content))
    (tmp_path / "benchmarks" / "peers.json").write_text(json.dumps({"seconds": {"pytorch-maml-rl": 3.0}}))
    tables = speed_tables(monkeypatch, tmp_path)
    learn = tables.learn().splitlines()
    assert learn[2] == (
        "| `rl2-cheetah` | 10,000 env steps | 40,000 | – | 25.0% | – | – | – | 75.0% | – | – | 1.90 × | 512 |"
    )
    assert learn[3] == "| `maml-point` | 5 tasks | – | 10.0% | – | – | – | – | 90.0% | – | – | – | 9 |"
    beside = tables.learn_beside().splitlines()
    assert beside[2] == "| `rl2-cheetah` | 1.50 × | 2.00 × | 0.99 × | 0.60 | 0.90 | RecurrentPPO 5.2 × |"
    assert beside[3] == "| `maml-point` | – | – | – | – | – | pytorch-maml-rl 3.0 × |"


def speed_tables(monkeypatch: pytest.MonkeyPatch, folder: Path):
    """The tables of speed in docs/, made from the JSON files of `folder`."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent.parent / "docs" / "tables")
    monkeypatch.setattr(importlib.import_module("sources"), "DOCS", folder)
    return importlib.import_module("speed_tables")


def is_running(pid: int) -> bool:
    """Whether a process computes: it may have ended, and nobody has asked how."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
