"""`metarl evaluate`."""

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from metarl.distribution import TaskDistribution
from metarl.errors import UsageError
from metarl.evaluation import Evaluation, evaluate
from metarl.experiment import AgentRun, Run
from metarl.experiment.files import check_writable, write_atomically
from metarl.experiment.plots import plot_adaptation
from metarl.experiment.report_tables import figure
from metarl.fewshot import FewShotRun
from metarl.fewshot.result import RESULT, measure, write_result
from metarl.scripts.arguments import key_values, parse
from metarl.scripts.families import open_with_family
from metarl.scripts.figures import baseline_lines, figure_tables, mean_and_interval, run_figures
from metarl.scripts.paths import write_paths
from metarl.scripts.task_table import failures, task_rows, task_table
from metarl.seen_tasks import num_shared
from metarl.task_shift import sample_outside

TASKS = 40
TEST_EPISODES = 600


@dataclass
class Arguments:
    """Adapts the agent of a run to unseen tasks and measures it at each stage, or tests the learner of a few-shot run.

    Prints a table and writes evaluation.json into the run folder, and for an agent also plots/adaptation.png.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    env: Annotated[str | None, tyro.conf.arg(metavar="ID")] = None
    """Another task distribution with the same spaces; that of the training if not given. If the agent was trained on an
    instance, name here what makes it again. Agents only."""
    env_options: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE ...")] = ()
    """Options of the task distribution. If it is that of the training, all others are as in training. Agents only."""
    shift: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE ...")] = ()
    """Options of the task distribution that widen the range of its tasks, such as max_velocity=4: measures on tasks
    outside the range of the training alone. Agents only."""
    tasks: Annotated[int | None, tyro.conf.arg(metavar="M")] = None
    """Tasks to adapt to: 40 if not given. In a few-shot run, test episodes: 600 if not given."""
    episodes: Annotated[int | None, tyro.conf.arg(metavar="K")] = None
    """Episodes of each task to adapt with; as in training if not given. Agents only."""
    split: Literal["train", "validation", "test"] = "test"
    """Split of the tasks; validation in few-shot runs that validate."""
    seed: int = 0
    """Seed of the tasks and of the episodes."""
    checkpoint: Annotated[str, tyro.conf.arg(metavar="NAME")] = "last"
    """The checkpoint to measure: last, best, or the iteration of one that is kept."""
    device: Annotated[str | None, tyro.conf.arg(metavar="DEVICE")] = None
    """Device to compute on; the device of the training if not given."""
    backend: Annotated[str | None, tyro.conf.arg(metavar="BACKEND")] = None
    """Backend that steps the environments; if not given, that of the training if it fits, else auto. Agents only."""
    protocol: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """How to measure adapted policies: per-task (the default), in which every task counts once, or a protocol of the
    family, such as metaworld: the first three episodes to finish of each task name. Agents only."""
    allow_training_tasks: bool = False
    """Measure also if test tasks are among the tasks that the agent was trained on. Agents only."""
    figures: bool = False
    """Add the figures people report of a classifier: per class and per group, balanced accuracy, F1, AUC, confusion,
    calibration and prediction sets. Few-shot runs only."""
    coverage: float = 0.9
    """With --figures: the share of prediction sets that are to have the true class."""
    per_task: bool = False
    """Also print every task with its scores, the worst first, and which of them fail. Agents only."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Also write the evaluation to this file."""


_OF_AGENTS = ("env", "env_options", "shift", "episodes", "backend", "protocol", "allow_training_tasks", "per_task")
"""Options that do not apply to a few-shot run."""


def main(arguments: Sequence[str]) -> None:
    parsed = parse(Arguments, arguments, "metarl evaluate")
    if parsed.json is not None:
        check_writable(parsed.json)
    options, shift = key_values(parsed.env_options, "--env-options"), key_values(parsed.shift, "--shift")
    twice = sorted(options.keys() & shift.keys())
    if twice:
        raise UsageError(f"{twice[0]} is given by both --env-options and --shift: leave one out")
    options |= shift
    run, family = open_with_family(parsed.run, parsed.env, options, parsed.device, parsed.checkpoint)
    _check_writable(run.path / RESULT)
    if isinstance(run, FewShotRun):
        _test_learner(run, parsed)
    elif parsed.split == "validation":
        raise UsageError(
            f"--split validation is for few-shot runs: {parsed.run} is an agent's, with 'train' and 'test'"
        )
    elif parsed.figures:
        raise UsageError(f"--figures is for few-shot runs: {parsed.run} is the run of an agent")
    elif isinstance(run, AgentRun) and family is not None:
        _evaluate_agent(run, family, parsed)


def _check_writable(path: Path) -> None:
    try:
        check_writable(path)
    except UsageError as error:
        raise UsageError(f"{error}; evaluations stay with their run: copy its folder to where you may write") from None


def choose_backend(run: Run, distribution: TaskDistribution, backend: str | None, device: str | None) -> str:
    """`backend` if given, else that of the training if this family has it and the device is the same, else "auto"."""
    if backend is not None:
        return backend
    return run.config.backend if device is None and run.config.backend in distribution.backends else "auto"


def print_table(title: str, table: Table, note: str | None = None) -> None:
    """Prints a table to stdout, with `note` under it; 200 columns wide if stdout is not a terminal.

    On a terminal that is too narrow for the words of the table, its lines are broken: cut numbers would be other ones.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.width = max(console.width, console.measure(table, options=console.options.update(width=1000)).minimum)
    console.print(title, markup=False, highlight=False)
    console.print(table)
    if note is not None:
        console.print(note, markup=False, highlight=False)


def _evaluate_agent(run: AgentRun, distribution: TaskDistribution, parsed: Arguments) -> None:
    tasks = TASKS if parsed.tasks is None else parsed.tasks
    outside = (
        sample_outside(run.distribution, distribution, tasks, split=parsed.split, seed=parsed.seed)
        if parsed.shift
        else None
    )
    result = evaluate(
        run.agent,
        distribution,
        num_tasks=tasks,
        tasks=outside,
        episodes=parsed.episodes,
        split=parsed.split,
        seed=parsed.seed,
        backend=choose_backend(run, distribution, parsed.backend, parsed.device),
        protocol="per-task" if parsed.protocol is None else parsed.protocol,
        allow_training_tasks=parsed.allow_training_tasks,
    )
    result = replace(result, iteration=run.checkpoint.iteration)
    text = (replace(result, drawn_from="outside") if parsed.shift else result).to_json()
    where = " outside the training range" if parsed.shift else ""
    distinct = result.distinct_tasks
    repeated = "" if distinct == tasks or parsed.protocol not in (None, "per-task") else f" ({distinct} distinct)"
    title = f"{run.config.agent} on {distribution.id}, {tasks} {parsed.split} tasks{repeated}{where}"
    write_atomically(run.path / "evaluation.json", text)
    plot_adaptation(result, title, run.path / "plots" / "adaptation.png")
    write_paths(run.path, run.agent, distribution, result.episodes_used, seed=parsed.seed)
    if parsed.json is not None:
        write_atomically(parsed.json, text)
    print_table(title, _agent_table(result), result.note)
    if parsed.per_task:
        rows = task_rows(result, distribution)
        print_table(failures(rows), task_table(rows, result.episodes_used))
    for remark in _remarks(run, distribution, parsed, result):
        print(f"metarl: {remark}", file=sys.stderr)


def _remarks(run: AgentRun, family: TaskDistribution, parsed: Arguments, result: Evaluation) -> Iterator[str]:
    """What a reader of the table has to know."""
    if not run.finished:
        yield f"{run.path} is not finished: this is the agent after {run.checkpoint.iteration} iterations"
    if parsed.split == "test" and (shared := num_shared(family)):
        yield f"{shared} of the {len(family.all_tasks('test'))} test tasks of {family.id} are training tasks of it too"
    if result.faults:
        yield f"{result.faults} faults, each of which ended an episode early"


def _test_learner(run: FewShotRun, parsed: Arguments) -> None:
    for name in _OF_AGENTS:
        if getattr(parsed, name) not in (None, (), False):
            raise UsageError(f"--{name.replace('_', '-')} is for runs of agents: {run.path} is a few-shot run")
    experiment = run.experiment
    if parsed.split == "validation" and experiment.config.validate_every is None:
        raise UsageError(f"{run.path} was trained without validation: it has no split validation")
    remarks = [f"tested on {change} than it was trained with" for change in experiment.changes()]
    if not run.finished:
        remarks.append(f"not finished: this is the learner after {run.checkpoint.iteration} steps")
    for remark in remarks:
        print(f"metarl: {run.path} is {remark}", file=sys.stderr)
    episodes = TEST_EPISODES if parsed.tasks is None else parsed.tasks
    found = measure(
        run.learner,
        experiment.splits,
        experiment.test_shapes(),
        episodes=episodes,
        split=parsed.split,
        seed=parsed.seed,
        baselines=run.config.baselines,
    )
    how = f"metarl evaluate RUN --tasks {episodes} --split {shlex.quote(parsed.split)} --seed {parsed.seed}"
    result = experiment.origin(run.checkpoint.wall_seconds) | {"evaluated_by": how} | found
    if remarks:  # the result outlives what is printed
        result["remarks"] = remarks
    if parsed.figures:
        result["evaluated_by"] += f" --figures --coverage {parsed.coverage}"
        result["figures"] = run_figures(
            run, episodes=episodes, split=parsed.split, seed=parsed.seed, coverage=parsed.coverage
        )
    for path in (run.path / RESULT, parsed.json):
        if path is not None:
            write_result(path, result)
    print_table(f"{experiment.title}, {episodes} {parsed.split} episodes", _learner_table(result))
    for title, table in figure_tables(result.get("figures", {})):
        print_table(title, table)
    print(f"95 % interval: {result['interval']}", file=sys.stderr)
    for line in baseline_lines(result):
        print(line, file=sys.stderr)


def _agent_table(result: Evaluation) -> Table:
    rows = result.summary()
    table = Table()
    measured = ["return"] if result.success is None else ["return", "success"]
    table.add_column("episodes used", justify="right")
    for name in measured:
        interval = "95 % interval" if result.note is None else "range"
        for column in (f"{name}, mean", "IQM", interval):
            table.add_column(column, justify="right")
    for row in rows:
        cells = [str(row["episodes_used"])]
        for name in measured:
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            spread = "–" if low is None else f"{figure(low)} … {figure(high)}"
            cells += [figure(row[f"{name}_mean"]), figure(row[f"{name}_iqm"]), spread]
        table.add_row(*cells)
    return table


def _learner_table(result: Mapping[str, Any]) -> Table:
    metric = "accuracy" if "accuracy" in result else "mse"
    table = Table()
    for column in ("ways", "shots", "queries"):
        table.add_column(column, justify="right")
    for column in (metric, *result.get("metrics", {})):
        table.add_column(column.replace("_", " "), justify="right")
    for row in (result, *result.get("further", ())):
        table.add_row(*(str(row[name]) for name in ("ways", "shots", "queries")), *_figures(row, metric))
    return table


def _figures(row: Mapping[str, Any], metric: str) -> Iterator[str]:
    yield mean_and_interval(row[metric], row["ci95"])
    for measured in row.get("metrics", {}).values():
        yield mean_and_interval(measured["mean"], measured["ci95"])
