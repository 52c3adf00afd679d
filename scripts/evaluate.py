"""`metarl evaluate`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from metarl.agent import Agent, EnvSpec
from metarl.distribution import TaskDistribution
from metarl.errors import UsageError
from metarl.evaluation import Evaluation, evaluate
from metarl.experiment import Run, load_run
from metarl.experiment.files import check_writable, write_atomically
from metarl.experiment.plots import plot_adaptation
from metarl.registry import make
from metarl.scripts.arguments import key_values, parse


@dataclass
class Arguments:
    """Adapts the agent of a run to unseen tasks and measures it at each stage.

    Prints a table and writes evaluation.json and plots/adaptation.png into the run folder.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    env: Annotated[str | None, tyro.conf.arg(metavar="ID")] = None
    """Another task distribution with the same spaces; the one of the training where not given."""
    env_options: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE ...")] = ()
    """Options of the task distribution; those of the training where neither these nor --env are given."""
    tasks: int = 40
    """Tasks to adapt to."""
    episodes: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Episodes of each task to adapt with; what the agent was trained for where not given."""
    split: Literal["train", "test"] = "test"
    """Where the tasks come from."""
    seed: int = 0
    """Of the tasks and of the episodes."""
    device: Annotated[str | None, tyro.conf.arg(metavar="DEVICE")] = None
    """Where to compute; the device of the training where not given."""
    backend: Annotated[str | None, tyro.conf.arg(metavar="BACKEND")] = None
    """What steps the environments; that of the training where it fits, else auto."""
    protocol: Literal["per-task", "metaworld"] = "per-task"
    """Every task counts once, or as the package metaworld counts: the first three episodes to finish of each name."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the evaluation to this file, too."""


def main(arguments: Sequence[str]) -> None:
    parsed = parse(Arguments, arguments, "metarl evaluate")
    if parsed.json is not None:
        check_writable(parsed.json)
    run = load_run(parsed.run, device=parsed.device)
    distribution = run.distribution
    if parsed.env is not None or parsed.env_options:
        options = key_values(parsed.env_options, "--env-options")
        distribution = make(run.config.env if parsed.env is None else parsed.env, **options)
        _check_spaces(run.agent, distribution)
    result = evaluate(
        run.agent,
        distribution,
        num_tasks=parsed.tasks,
        episodes=parsed.episodes,
        split=parsed.split,
        seed=parsed.seed,
        backend=choose_backend(run, distribution, parsed.backend, parsed.device),
        protocol=parsed.protocol,
    )
    text = result.to_json()
    title = f"{run.config.agent} on {distribution.id}, {parsed.tasks} {parsed.split} tasks"
    write_atomically(run.path / "evaluation.json", text)
    plot_adaptation(result, title, run.path / "plots" / "adaptation.png")
    if parsed.json is not None:
        write_atomically(parsed.json, text)
    print_table(title, _table(result))


def choose_backend(run: Run, distribution: TaskDistribution, backend: str | None, device: str | None) -> str:
    """The backend asked for, or that of the training where it steps this family and the device is the same."""
    if backend is not None:
        return backend
    return run.config.backend if device is None and run.config.backend in distribution.backends else "auto"


def print_table(title: str, table: Table) -> None:
    """Prints to stdout; in full width where that is no terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(title, markup=False, highlight=False)
    console.print(table)


def _check_spaces(agent: Agent, distribution: TaskDistribution) -> None:
    spec = EnvSpec.of(distribution)
    for kind in ("observation", "action"):
        mine, theirs = (getattr(s, f"{kind}_space") for s in (agent.spec, spec))
        if type(mine) is not type(theirs) or mine.shape != theirs.shape or _count(mine) != _count(theirs):
            raise UsageError(f"{distribution.id} has the {kind} space {theirs}, the agent was trained for {mine}")


def _count(space: Any) -> int | None:
    return getattr(space, "n", None)


def _table(result: Evaluation) -> Table:
    table = Table()
    measured = ["return"] if result.success is None else ["return", "success"]
    table.add_column("episodes used", justify="right")
    for name in measured:
        for column in (f"{name}, mean", "IQM", "95 % interval"):
            table.add_column(column, justify="right")
    for row in result.summary():
        cells = [str(row["episodes_used"])]
        for name in measured:
            mean, iqm, low, high = (f"{row[f'{name}_{kind}']:.2f}" for kind in ("mean", "iqm", "low", "high"))
            cells += [mean, iqm, f"{low} … {high}"]
        table.add_row(*cells)
    return table
