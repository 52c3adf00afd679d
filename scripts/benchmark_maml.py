"""`metarl benchmark maml`: the cost of one iteration of MAML, and its breakdown.

It is compared with the same iteration in the form of reference implementations: a Python loop over tasks, with the
meta-gradient and every Hessian product of the KL computed by differentiating twice with autograd.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from metarl.agent import EnvSpec
from metarl.agents.maml import MAML, MAMLConfig
from metarl.agents.meta_objective import MetaObjective
from metarl.agents.trpo import TrustRegion, trust_region_step
from metarl.distribution import TaskDistribution
from metarl.nn.mlp import Parameters
from metarl.nn.policy import PolicyBatch, StackedPolicy
from metarl.registry import make
from metarl.scripts.benchmark import Output
from metarl.tasks import check_count
from metarl.vector_env import TaskVectorEnv


@dataclass
class Arguments(Output):
    """Measures a MAML iteration on PointNavigation-v0: episodes before and after adaptation, trust-region update."""

    tasks: int = 20
    """Tasks per iteration."""
    episodes: int = 20
    """Episodes per task, before and after adaptation each."""
    hidden: tuple[int, ...] = (64, 64)
    """Units of the policy's layers."""
    repeats: int = 7
    """Iterations to measure. The results are medians."""
    peer: bool = True
    """Also measure the loop over tasks."""


PARTS = ("stepping", "policy", "adaptation", "outer update")


def run(arguments: Arguments) -> dict[str, Any]:
    """Measures, prints a table and returns the results."""
    for name in ("tasks", "episodes", "repeats"):
        check_count(name, getattr(arguments, name))
    rows: dict[str, dict[str, float]] = {}
    for label, fraction in (("exact curvature", 1.0), ("curvature from a quarter", 0.25)):
        rows[label] = _measure(arguments, fraction)
    if arguments.peer:
        rows["loop over tasks, autograd"] = _measure_loop(arguments)
    table = Table(
        title=f"One MAML iteration, {arguments.tasks} tasks × {arguments.episodes} episodes × 100 steps, twice"
    )
    table.add_column("")
    for column in ("seconds", *PARTS, "speed-up"):
        table.add_column(column, justify="right")
    slowest = max(row["total"] for row in rows.values())
    for label, row in rows.items():
        parts = [f"{row[part]:.3f}" for part in PARTS]
        table.add_row(label, f"{row['total']:.3f}", *parts, f"{slowest / row['total']:.1f} ×")
    Console().print(table)
    return {
        "tasks": arguments.tasks,
        "episodes": arguments.episodes,
        "hidden": list(arguments.hidden),
        "repeats": arguments.repeats,
        "seconds": rows,
        "machine": {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "processor": platform.processor()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def _measure(arguments: Arguments, fraction: float) -> dict[str, float]:
    agent, distribution, env = _prepare(arguments, curvature_fraction=fraction)
    seconds: list[dict[str, float]] = []
    for repeat in range(arguments.repeats + 1):
        env.set_tasks(distribution.sample(arguments.tasks, seed=repeat))
        watch = dict.fromkeys(PARTS, 0.0)
        with (
            _timed(env, "step", watch, "stepping"),
            _timed(StackedPolicy, "act", watch, "policy"),
            _timed(agent, "_trust_region_update", watch, "outer update"),
        ):
            start = time.perf_counter()
            agent.improve(env, seed=repeat)
            watch["total"] = time.perf_counter() - start
        watch["adaptation"] = watch["total"] - sum(watch[part] for part in PARTS)
        seconds.append(watch)
    return _medians(seconds[1:])  # the first one warms up


def _measure_loop(arguments: Arguments) -> dict[str, float]:
    agent, distribution, env = _prepare(arguments)
    seconds: list[dict[str, float]] = []
    for repeat in range(min(arguments.repeats, 3) + 1):
        env.set_tasks(distribution.sample(arguments.tasks, seed=repeat))
        watch = dict.fromkeys(PARTS, 0.0)
        with _timed(env, "step", watch, "stepping"), _timed(StackedPolicy, "act", watch, "policy"):
            start = time.perf_counter()
            objective, *_ = agent._rollouts(env, repeat)
            watch["adaptation"] = time.perf_counter() - start - watch["stepping"] - watch["policy"]
        start = time.perf_counter()
        loop_over_tasks(agent.config.trust_region, objective, agent.parameters)
        watch["outer update"] = time.perf_counter() - start
        seconds.append(watch | {"total": sum(watch.values())})
    return _medians(seconds[1:])


def _prepare(arguments: Arguments, **options: Any) -> tuple[MAML, TaskDistribution, TaskVectorEnv]:
    distribution = make("PointNavigation-v0")
    config = MAMLConfig(arguments.tasks, arguments.episodes, hidden=arguments.hidden, **options)
    agent = MAML(config, EnvSpec.of(distribution))
    return agent, distribution, distribution.make_env(arguments.tasks, arguments.episodes)


def loop_over_tasks(region: TrustRegion, objective: MetaObjective, parameters: Parameters) -> Parameters:
    """The trust-region update of `objective` at `parameters`, task by task and with autograd only."""
    network = objective.network
    names = list(parameters)
    support = [_row(step.gradient.batch, task) for step in objective.steps for task in range(objective.num_tasks)]
    query = [_row(objective.query, task) for task in range(objective.num_tasks)]
    (step,) = objective.steps

    def unflatten(vector: Tensor) -> Parameters:
        parts = vector.split([parameters[name].numel() for name in names])
        return {name: part.reshape(parameters[name].shape) for name, part in zip(names, parts, strict=True)}

    def adapted_phi(theta: Parameters, task: int) -> tuple[Tensor, ...]:
        batch, stacked = support[task], {name: value[None] for name, value in theta.items()}
        log_prob = network.head.log_prob(network(stacked, batch.observations), batch.actions)
        slope = torch.autograd.grad(-(log_prob * batch.weights).sum(), list(stacked.values()), create_graph=True)
        moved = {name: stacked[name] - step.step_size * g for name, g in zip(stacked, slope, strict=True)}
        return network(moved, query[task].observations)

    def loss_and_kl(theta: Parameters, old: list[tuple[Tensor, ...]] | None) -> tuple[Tensor, Tensor, list]:
        losses, kls, phis = [], [], []
        for task, batch in enumerate(query):
            phi = adapted_phi(theta, task)
            ratio = (network.head.log_prob(phi, batch.actions) - batch.log_probs).exp()
            losses.append(-(ratio * batch.weights).sum())
            phis.append(tuple(value.detach() for value in phi))
            kls.append(batch.mean(network.head.kl(phis[task] if old is None else old[task], phi)).mean())
        return torch.stack(losses).mean(), torch.stack(kls).mean(), phis

    def evaluate(vector: Tensor) -> tuple[float, float]:
        theta = {name: value.requires_grad_() for name, value in unflatten(vector.clone()).items()}
        loss, kl, _ = loss_and_kl(theta, old)
        return float(loss.detach()), float(kl.detach())

    leaf = torch.cat([parameters[name].detach().flatten() for name in names]).requires_grad_()
    loss, kl, old = loss_and_kl(unflatten(leaf), None)
    gradient = torch.autograd.grad(loss, leaf, retain_graph=True)[0]
    kl_slope = torch.autograd.grad(kl, leaf, create_graph=True)[0]

    def curvature(vector: Tensor) -> Tensor:
        return torch.autograd.grad(kl_slope @ vector, leaf, retain_graph=True)[0]

    result = trust_region_step(region, leaf.detach(), gradient, curvature, evaluate, float(loss.detach()))
    return unflatten(result.parameters)


def _row(batch: PolicyBatch, task: int) -> PolicyBatch:
    fields = {name: getattr(batch, name)[task : task + 1] for name in PolicyBatch.__dataclass_fields__}
    return PolicyBatch(**fields)


@contextmanager
def _timed(owner: Any, name: str, watch: dict[str, float], part: str) -> Iterator[None]:
    """Adds the time spent in `owner.name` to `watch[part]`."""
    plain: Callable[..., Any] = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return plain(*args, **kwargs)
        finally:
            watch[part] += time.perf_counter() - start

    own = name in vars(owner)
    setattr(owner, name, timed)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, plain)
        else:
            delattr(owner, name)


def _medians(seconds: list[dict[str, float]]) -> dict[str, float]:
    return {part: statistics.median(row[part] for row in seconds) for part in seconds[0]}
