"""`metarl watch`."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metarl.errors import UsageError
from metarl.experiment import AgentRun
from metarl.randomness import derive_seed
from metarl.scripts.adapt import read_task
from metarl.scripts.arguments import key_values, parse
from metarl.scripts.evaluate import choose_backend
from metarl.scripts.families import open_with_family
from metarl.scripts.watch_page import WatchPage, check_port
from metarl.scripts.watch_session import WatchSession


@dataclass
class Arguments:
    """Shows the agent of a run at work on a page in the browser.

    The robot moves live. Sliders set its task, buttons adapt the agent to it and make it forget. Ctrl-C ends it. Needs
    viser and mjviser: pip install 'metarl-kit[viewer]'.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    task: Annotated[str | None, tyro.conf.arg(metavar="JSON")] = None
    """The first task's parameters, such as '{"goal": [0.3, 0.1]}', or a file that contains them; a random task of the
    test split if not given."""
    env: Annotated[str | None, tyro.conf.arg(metavar="ID")] = None
    """Another task distribution with the same spaces; that of the training if not given."""
    env_options: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE ...")] = ()
    """Options of the task distribution. If it is that of the training, all others are as in training."""
    episodes: Annotated[int | None, tyro.conf.arg(metavar="K")] = None
    """Episodes that the button adapts with; as in training if not given."""
    seed: int = 0
    """Seed of tasks and episodes."""
    backend: Annotated[str | None, tyro.conf.arg(metavar="BACKEND")] = None
    """Backend that steps the environment; if not given, that of the training if it fits, else auto."""
    host: str = "127.0.0.1"
    """Address to serve at: 0.0.0.0 lets other machines see the page."""
    port: int = 8080
    """Port to serve at."""


def main(arguments: Sequence[str]) -> None:
    parsed = parse(Arguments, arguments, "metarl watch")
    if parsed.episodes is not None and parsed.episodes < 1:
        raise UsageError(f"--episodes must be at least 1, got {parsed.episodes}")
    check_port(parsed.host, parsed.port)
    options = key_values(parsed.env_options, "--env-options")
    run, family = open_with_family(parsed.run, parsed.env, options, None)
    if not isinstance(run, AgentRun) or family is None:
        raise UsageError(f"{run.path} is a few-shot run: metarl watch is for agents")
    if parsed.task is None:
        task = family.sample(1, split="test", seed=derive_seed("watch task", parsed.seed, 0))
    else:
        task = read_task(family, parsed.task)
    episodes = max(1, run.agent.stages()[-1]) if parsed.episodes is None else parsed.episodes
    backend = choose_backend(run, family, parsed.backend, None)
    with contextlib.closing(WatchSession(run.agent, family, task, backend=backend, seed=parsed.seed)) as session:
        title = f"{run.config.agent} on {family.id}"
        page = WatchPage(session, title=title, episodes=episodes, host=parsed.host, port=parsed.port)
        with contextlib.closing(page):
            print(f"http://{parsed.host}:{parsed.port}", flush=True)
            page.run()
