"""What no training can beat: the physics of an iteration alone, and the matrix products of an update alone."""

import concurrent.futures
import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

import metarl
from metarl.agents.random import RandomPolicy
from metarl.devices import num_cpus
from metarl.distribution import TaskDistribution
from metarl.envs.physics.callbacks import SetAside
from metarl.errors import UsageError
from metarl.randomness import make_generator
from metarl.threads import torch_threads

RECORDED_STEPS = 50
GATES = {"gru": 3, "lstm": 4}
"""Matrices of a recurrent core with as many columns as it has units."""


@dataclass
class World:
    """A simulated world, its state at the beginning, and what was asked of it in each step."""

    model: mujoco.MjModel
    data: mujoco.MjData
    frames: int
    state: dict[str, np.ndarray]
    controls: list[dict[str, np.ndarray]]

    def restart(self) -> None:
        mujoco.mj_resetData(self.model, self.data)
        for name, values in self.state.items():
            getattr(self.data, name)[:] = values.reshape(getattr(self.data, name).shape)

    def run(self) -> None:
        """All steps, by `mj_step` and nothing else."""
        fields = [[(getattr(self.data, name), value) for name, value in given.items()] for given in self.controls]
        for given in fields:
            for target, value in given:
                target[:] = value
            mujoco.mj_step(self.model, self.data, self.frames)


class PhysicsAlone:
    """The physics of a rollout of random actions, once more, by `mj_step` and nothing else.

    A rollout of `RECORDED_STEPS` steps is recorded, in which each world has its own state and controls. `run` takes the
    same steps world by world, on as many threads as the engine has: no readings, observations, rewards, nor threads
    that wait for each other, and none of the callbacks that the engine does without.

    >>> from metarl.scripts.learn_bounds import PhysicsAlone
    >>> physics = PhysicsAlone(metarl.make("HalfCheetahVel-v0"), num_tasks=2, envs_per_task=2)
    >>> physics.run()
    """

    def __init__(self, family: TaskDistribution, num_tasks: int, envs_per_task: int):
        """Raises `UsageError` for a family that MuJoCo does not step."""
        env = family.make_env(num_tasks, envs_per_task)
        try:
            env.set_tasks(family.sample(num_tasks, seed=0))
            if not hasattr(env, "engines"):
                raise UsageError(f"{family.id} has no physics that could run alone")
            self._worlds = _record(env, family)
        finally:
            env.close()
        self._pool = concurrent.futures.ThreadPoolExecutor(num_cpus())

    def run(self) -> None:
        """All steps of all worlds, from where they began."""
        for world in self._worlds:
            world.restart()
        with SetAside():
            list(self._pool.map(World.run, self._worlds))

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown()


def physics_speed(family: TaskDistribution, num_tasks: int, envs_per_task: int, repeats: int) -> float | None:
    """Environment steps per second of `PhysicsAlone`: the median of `repeats`.

    None for a family that MuJoCo does not step.
    """
    if "mujoco" not in family.backends:
        return None
    speeds = []
    with contextlib.closing(PhysicsAlone(family, num_tasks, envs_per_task)) as physics:
        for _ in range(repeats + 1):  # the first warms up
            start = time.perf_counter()
            physics.run()
            speeds.append(num_tasks * envs_per_task * RECORDED_STEPS / (time.perf_counter() - start))
    return statistics.median(speeds[1:])


def _record(env: Any, family: TaskDistribution) -> list[World]:
    """The worlds of `env`, with `RECORDED_STEPS` steps of random actions each."""
    recorders = [_Recorder(engine) for engine in env.engines]
    policy = RandomPolicy(family.action_space, make_generator("benchmark", device="cpu"))
    metarl.collect(env, policy, RECORDED_STEPS, seed=0)
    for recorder in recorders:
        if len(recorder.steps) != RECORDED_STEPS:
            raise UsageError(f"{family.id}: an engine took {len(recorder.steps)} of {RECORDED_STEPS} steps")
    return list(itertools.chain.from_iterable(recorder.worlds() for recorder in recorders))


class _Recorder:
    """Notes the state of an engine before its first step, and what it is asked in each step."""

    def __init__(self, engine: Any):
        self._engine, self._step = engine, engine.step
        self.steps: list[dict[str, Tensor]] = []
        engine.step = self.step

    def step(self, control: Tensor, mocap_pos: Tensor | None = None, mocap_quat: Tensor | None = None) -> None:
        if not self.steps:
            state = self._engine.get_state()
            self._state = {name: state[name] for name in ("qpos", "qvel", "mocap_pos", "mocap_quat") if name in state}
        given = {"ctrl": control, "mocap_pos": mocap_pos, "mocap_quat": mocap_quat}
        self.steps.append({name: value.double().clone() for name, value in given.items() if value is not None})
        self._step(control, mocap_pos, mocap_quat)

    def worlds(self) -> list[World]:
        model = self._engine.scene.model
        return [
            World(
                model,
                mujoco.MjData(model),
                self._engine.frames,
                {name: value[row].numpy() for name, value in self._state.items()},
                [{name: value[row].numpy() for name, value in step.items()} for step in self.steps],
            )
            for row in range(self._engine.num_worlds)
        ]


@dataclass(frozen=True)
class RecurrentShapes:
    """The sizes of the matrix products of an update by PPO of a recurrent actor-critic.

    >>> from metarl.scripts.learn_bounds import RecurrentShapes
    >>> RecurrentShapes(steps=2, columns=8, inputs=5, hidden=4, gates=3, heads=3, minibatches=4, epochs=5).flops
    149760
    """

    steps: int
    """Steps of a column (T)."""
    columns: int
    """Columns of all minibatches (B)."""
    inputs: int
    hidden: int
    gates: int
    heads: int
    """Outputs of policy and value together."""
    minibatches: int
    epochs: int

    @property
    def flops(self) -> int:
        """Multiplications and additions of all products."""
        weights = (self.inputs + self.hidden) * self.gates * self.hidden + self.hidden * self.heads
        return 3 * 2 * self.epochs * self.steps * self.columns * weights

    @classmethod
    def of(cls, family: TaskDistribution, config: Any) -> "RecurrentShapes":
        """Those of an `RL2` agent with `config` on a family with vectors of observations and of actions."""
        (observations,), (actions,) = family.observation_space.shape, family.action_space.shape
        return cls(
            steps=config.episodes_per_trial * family.horizon,
            columns=config.num_tasks * config.envs_per_task,
            inputs=observations + actions + 2,
            hidden=config.hidden,
            gates=GATES[config.core],
            heads=actions + 1,
            minibatches=config.minibatches,
            epochs=config.epochs,
        )


def products_seconds(shapes: RecurrentShapes, threads: int | None, repeats: int) -> float:
    """Seconds of the matrix products of one update alone: the median of `repeats`.

    In each minibatch forward one product of the inputs of all steps, one of the state in each step, and one of the
    heads; backward each of them twice, for the gradients of its two operands, where those of a weight are one product
    over all steps. On `threads` of torch, as in the training.
    """
    with torch_threads(threads), torch.no_grad():
        per_minibatch = _minibatch_products(shapes)
        seconds = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            for product in itertools.chain.from_iterable([per_minibatch] * (shapes.epochs * shapes.minibatches)):
                product()
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def _minibatch_products(shapes: RecurrentShapes) -> Sequence[Callable[[], Any]]:
    columns = -(-shapes.columns // shapes.minibatches)
    rows, gated = shapes.steps * columns, shapes.gates * shapes.hidden
    products: list[Callable[[], Any]] = []

    def add(count: int, left: Tensor, right: Tensor) -> None:
        out = torch.empty(left.shape[0], right.shape[1])
        products.extend([lambda: torch.mm(left, right, out=out)] * count)

    def layer(inputs: int, outputs: int, *, each_step: bool) -> None:
        count, batch = (shapes.steps, columns) if each_step else (1, rows)
        weight = torch.randn(outputs, inputs)
        add(count, torch.randn(batch, inputs), weight.T)
        add(count, torch.randn(batch, outputs), weight)
        add(1, torch.randn(rows, outputs).T, torch.randn(rows, inputs))

    layer(shapes.inputs, gated, each_step=False)
    layer(shapes.hidden, gated, each_step=True)
    layer(shapes.hidden, shapes.heads, each_step=False)
    return products
