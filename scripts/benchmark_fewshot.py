"""`metarl benchmark fewshot`: a training step of the few-shot core, compared with a loop over tasks and with peers.

The loop does what reference implementations do: it adapts one task after the other, with the same arithmetic on the
same episodes. `higher` and `learn2learn` are measured if they are installed.
"""

import dataclasses
import functools
import importlib.util
import itertools
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from metarl.adaptation import Parameters
from metarl.fewshot.data import DataConfig, LabelledData, open_data
from metarl.fewshot.episodes import Episodes, EpisodeShape, Pool
from metarl.fewshot.learners.maml import MAMLLearner as MAML
from metarl.fewshot.objectives.plain import task_loss
from metarl.fewshot.preprocessing import Preprocessing
from metarl.scripts.benchmark import Output
from metarl.scripts.evaluate import print_table
from metarl.tasks import check_count


@dataclass
class Arguments(Output):
    """Measures a second-order MAML training step on sine waves (5 inner steps) and 28 × 28 images (5-way, 1 step)."""

    tasks: int = 25
    """Sine waves per step."""
    image_tasks: int = 32
    """Image episodes per step."""
    shots: int = 1
    """Support images of each class."""
    queries: int = 5
    """Query images of each class."""
    width: int = 64
    """Filters of the convolutional network."""
    repeats: int = 5
    """Steps to measure. The results are medians."""


class _Noise(LabelledData):
    """Random images with the number and size of Omniglot's training characters, without its files."""

    def __init__(self) -> None:
        super().__init__(DataConfig())
        self.preprocessing = Preprocessing((1, 28, 28))
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (4800 * 20, 1, 28, 28), dtype=torch.uint8, generator=generator)
        self.pools = {"train": Pool(images, torch.arange(4800).repeat_interleave(20))}


def run(arguments: Arguments) -> dict[str, Any]:
    """Measures, prints a table and returns the results."""
    for name in ("tasks", "image_tasks", "shots", "queries", "width", "repeats"):
        check_count(name, getattr(arguments, name))
    results = {"sinusoid": _sinusoid(arguments), "images": _images(arguments)}
    for name, rows in results.items():
        table = Table()
        for column in ("", "ms", "× of metarl"):
            table.add_column(column, justify="left" if not column else "right")
        for label, value in rows.items():
            table.add_row(label, f"{value:.2f}", f"{value / rows['metarl']:.2f}")
        print_table(f"{name}: one training step of MAML, second order", table)
    machine = {"cpus": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    return {
        "arguments": {k: v for k, v in dataclasses.asdict(arguments).items() if k != "json"},
        "milliseconds": results,
        "times_faster": {
            name: {label: value / rows["metarl"] for label, value in rows.items() if label != "drawing"}
            for name, rows in results.items()
        },
        "drawing_share": {name: rows["drawing"] / (rows["drawing"] + rows["metarl"]) for name, rows in results.items()},
        "machine": {**machine, "platform": platform.platform()},
    }


def _sinusoid(arguments: Arguments) -> dict[str, float]:
    data = open_data("sinusoid")
    spec = data.spec(EpisodeShape(ways=1, shots=10, queries=10))
    config = dataclasses.replace(MAML.default_config(spec), inner_steps=5, num_tasks=arguments.tasks)
    learner = MAML(config, spec)
    return _measure(learner, lambda: data.episodes("train", arguments.tasks, spec.shape, seed=0), arguments.repeats)


def _images(arguments: Arguments) -> dict[str, float]:
    data = _Noise()
    spec = data.spec(EpisodeShape(ways=5, shots=arguments.shots, queries=arguments.queries))
    config = dataclasses.replace(MAML.default_config(spec), width=arguments.width, num_tasks=arguments.image_tasks)
    learner = MAML(config, spec)
    return _measure(
        learner, lambda: data.episodes("train", arguments.image_tasks, spec.shape, seed=0), arguments.repeats
    )


def _measure(learner: MAML, draw: Callable[[], Episodes], repeats: int) -> dict[str, float]:
    """Milliseconds of each variant. They take turns, so that a busy machine affects all alike."""
    episodes = draw()
    ways: dict[str, Callable[[], Any]] = {
        "metarl": lambda: learner.fit(episodes, seed=0),
        "loop over tasks": lambda: _loop_step(learner, episodes),
    }
    for peer, step in (("higher", _higher_step), ("learn2learn", _learn2learn_step)):
        if importlib.util.find_spec(peer) is not None:
            ways[peer] = functools.partial(step, learner, _peer_module(learner), episodes)
    ways["drawing"] = draw
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):  # the first warms up
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if repeat:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def _loop_step(learner: MAML, episodes: Episodes) -> None:
    """MAML's training step, one task after the other, with ordinary torch layers."""
    optimizer, config = learner.optimizer, learner.config
    optimizer.zero_grad()
    for task in range(len(episodes)):
        one = episodes[task : task + 1]
        fast: Parameters = learner.parameters
        for _ in range(config.inner_steps):
            loss = task_loss(_forward(learner, fast, one.support.x), one.support).sum()
            gradients = torch.autograd.grad(loss, list(fast.values()), create_graph=True)
            fast = {
                name: value - config.inner_lr * gradient
                for (name, value), gradient in zip(fast.items(), gradients, strict=True)
            }
        (task_loss(_forward(learner, fast, one.query.x), one.query).sum() / len(episodes)).backward()
    optimizer.step()


def _forward(learner: MAML, parameters: Parameters, inputs: Tensor) -> Tensor:
    """An ordinary forward pass with the parameters of one task, not stacked."""
    return learner.network(parameters, inputs)


def _peer_module(learner: MAML) -> torch.nn.Module:
    """The same network as torch modules."""
    layers: list[torch.nn.Module] = []
    shape, width = learner.spec.input_shape, learner.config.width
    if len(shape) == 3:
        for block in range(4):
            layers.append(torch.nn.Conv2d(shape[0] if block == 0 else width, width, 3, stride=2, padding=1, bias=False))
            layers += [torch.nn.BatchNorm2d(width, track_running_stats=False), torch.nn.ReLU()]
        layers += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
        return torch.nn.Sequential(*layers, torch.nn.Linear(width, learner.spec.outputs))
    sizes = (*shape, *learner.config.hidden)
    for before, after in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(before, after), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(sizes[-1], learner.spec.outputs))


def _higher_step(learner: MAML, module: torch.nn.Module, episodes: Episodes) -> None:
    import higher

    outer = torch.optim.Adam(module.parameters(), lr=learner.config.learning_rate)
    inner = torch.optim.SGD(module.parameters(), lr=learner.config.inner_lr)
    outer.zero_grad()
    for task in range(len(episodes)):
        one = episodes[task : task + 1]
        with higher.innerloop_ctx(module, inner, copy_initial_weights=False) as (fast, descent):
            for _ in range(learner.config.inner_steps):
                loss = task_loss(fast(one.support.x[0])[None], one.support).sum()
                descent.step(loss)
            (task_loss(fast(one.query.x[0])[None], one.query).sum() / len(episodes)).backward()
    outer.step()


def _learn2learn_step(learner: MAML, module: torch.nn.Module, episodes: Episodes) -> None:
    import learn2learn

    maml = learn2learn.algorithms.MAML(module, lr=learner.config.inner_lr, first_order=False)
    outer = torch.optim.Adam(maml.parameters(), lr=learner.config.learning_rate)
    outer.zero_grad()
    for task in range(len(episodes)):
        one = episodes[task : task + 1]
        fast = maml.clone()
        for _ in range(learner.config.inner_steps):
            fast.adapt(task_loss(fast(one.support.x[0])[None], one.support).sum())
        (task_loss(fast(one.query.x[0])[None], one.query).sum() / len(episodes)).backward()
    outer.step()
