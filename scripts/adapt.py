"""`metarl adapt`."""

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from metarl.agent import Agent
from metarl.distribution import TaskDistribution
from metarl.errors import RenderingUnavailable, UsageError
from metarl.evaluation import Evaluation, evaluate
from metarl.experiment import AgentRun
from metarl.experiment.files import check_writable
from metarl.experiment.report_tables import figure
from metarl.experiment.video import take_episode, write_film
from metarl.parsing import parse_json
from metarl.randomness import derive_seed
from metarl.scripts.arguments import key_values, parse
from metarl.scripts.evaluate import choose_backend, print_table
from metarl.scripts.families import open_with_family
from metarl.tasks import Tasks
from metarl.vector_env import TaskVectorEnv


@dataclass
class Arguments:
    """Adapts the agent of a run to one task and prints its return at each stage."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    task: Annotated[str, tyro.conf.arg(metavar="JSON")]
    """The task's parameters, such as '{"goal": [0.3, 0.1]}', or a file that contains them."""
    env: Annotated[str | None, tyro.conf.arg(metavar="ID")] = None
    """Another task distribution with the same spaces; that of the training if not given. If the agent was trained on an
    instance, name here what makes it again."""
    env_options: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE ...")] = ()
    """Options of the task distribution. If it is that of the training, all others are as in training."""
    episodes: Annotated[int | None, tyro.conf.arg(metavar="K")] = None
    """Episodes to adapt with; as in training if not given."""
    seed: int = 0
    """Seed of the episodes."""
    device: Annotated[str | None, tyro.conf.arg(metavar="DEVICE")] = None
    """Device to compute on; the device of the training if not given."""
    backend: Annotated[str | None, tyro.conf.arg(metavar="BACKEND")] = None
    """Backend that steps the environments; if not given, that of the training if it fits, else auto."""
    allow_training_tasks: bool = False
    """Adapt also to a task that the agent was trained on."""
    video: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Film an episode before adaptation beside one after it, as .mp4, if this machine can draw. `metarl report` shows
    the films in the folder videos/ of a run."""


def main(arguments: Sequence[str]) -> None:
    parsed = parse(Arguments, arguments, "metarl adapt")
    if parsed.video is not None:
        if parsed.video.suffix != ".mp4":
            raise UsageError(f"--video {parsed.video}: name an .mp4 file")
        check_writable(parsed.video)
    options = key_values(parsed.env_options, "--env-options")
    run, family = open_with_family(parsed.run, parsed.env, options, parsed.device)
    if not isinstance(run, AgentRun) or family is None:
        raise UsageError(f"{run.path} is a few-shot run: metarl adapt is for agents, see metarl.fewshot.load")
    task = read_task(family, parsed.task)
    backend = choose_backend(run, family, parsed.backend, parsed.device)
    with contextlib.ExitStack() as stack:
        film_env = None
        if parsed.video is not None:
            try:
                opened = open_film_env(run.agent, family, task, backend, parsed.seed)
                film_env = stack.enter_context(contextlib.closing(opened))
            except RenderingUnavailable as error:
                print(f"metarl: going on without the film: {error}", file=sys.stderr)
        result = evaluate(
            run.agent,
            family,
            tasks=task,
            episodes=parsed.episodes,
            seed=parsed.seed,
            backend=backend,
            allow_training_tasks=parsed.allow_training_tasks,
        )
        print_table(f"{run.config.agent} on {family.id}, {parsed.task}", _table(result))
        if film_env is not None and parsed.video is not None:
            film(run.agent, film_env, result.episodes_used[-1], parsed.seed, parsed.video)
            print(parsed.video)


def read_task(distribution: TaskDistribution, text: str) -> Tasks:
    """Reads one task from JSON text or a JSON file; raises `UsageError` if it is not a task of `distribution`."""
    source = "--task"
    if not text.lstrip().startswith(("{", "[", '"')) and Path(text).is_file():
        source, text = text, Path(text).read_text(errors="replace")
    why = ""
    try:
        parameters = parse_json(text, source)
    except UsageError as error:
        parameters, why = None, f" ({error})"
    if not isinstance(parameters, dict):
        example = "{" + ", ".join(f'"{name}": ...' for name in distribution.task_space) + "}"
        raise UsageError(f"{source}: {text[:60]!r} is neither a file nor the JSON of a task, {example}{why}")
    return distribution.task(**parameters)


def open_film_env(agent: Agent, family: TaskDistribution, task: Tasks, backend: str, seed: int) -> TaskVectorEnv:
    """Makes one environment that renders.

    Raises `UsageError`, before any work is done, if the family cannot be drawn, and `RenderingUnavailable` if it cannot
    be drawn here.
    """
    env = family.make_env(1, 1, backend=backend, device=agent.device, seed=seed, render_mode="rgb_array")
    try:
        env.set_tasks(task)
        env.reset(seed=seed)
        env.render()
    except BaseException:
        env.close()
        raise
    return env


def film(agent: Agent, env: TaskVectorEnv, episodes: int, seed: int, path: Path) -> None:
    """Films an episode before and one after adaptation with `episodes` episodes, side by side, from the same start."""
    adapt_seed, act_seed, reset_seed = (derive_seed("film", seed, part) for part in ("adapt", "act", "reset"))
    before = agent.adapt(env, 0, seed=act_seed)
    takes = [take_episode(env, before, "before adaptation: episode 1", seed=reset_seed)]
    adapted = agent.adapt(env, episodes, seed=adapt_seed)
    after = agent.adapt(env, 0, seed=act_seed, policy=adapted)
    caption = f"adapted: episode {episodes + 1}"
    takes.append(take_episode(env, after, caption, seed=reset_seed))
    write_film(path, takes, fps=env.metadata.get("render_fps", 30))


def _table(result: Evaluation) -> Table:
    table = Table()
    table.add_column("episodes used", justify="right")
    table.add_column("return", justify="right")
    if result.success is not None:
        table.add_column("success", justify="right")
    for stage, used in enumerate(result.episodes_used):
        cells = [str(used), figure(float(result.returns[0, stage]))]
        if result.success is not None:
            cells.append(figure(float(result.success[0, stage])))
        table.add_row(*cells)
    return table
