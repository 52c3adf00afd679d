"""`make demo`: RL² learns to reach goals that it is not shown with a Meta-World robot, and adapts to unseen ones.

`make demo-quick` trains MAML on point navigation instead. Both end with a table, a film (if this
machine can draw) and a page.
"""

import contextlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from metarl.errors import RenderingUnavailable, UsageError
from metarl.experiment import AgentRun, TrainConfig, load_run, train
from metarl.plain_warnings import plain_warnings
from metarl.scripts import evaluate, report
from metarl.scripts.adapt import film, open_film_env

REACH = TrainConfig(
    agent="rl2",
    env="ML1-reach-v3",
    env_options={"horizon": 60, "goals_per_task": 1000},
    agent_options={"num_tasks": 50},
    iterations=260,
)
"""Sixty steps are just enough for the hand to get to the goals; a thousand of them cannot be learned by heart."""
QUICK = TrainConfig(
    agent="maml",
    env="PointNavigation-v0",
    iterations=120,
    agent_options={"curvature_fraction": 0.25},
)
FILM_SEED = 0


def main(arguments: Sequence[str]) -> int:
    """Trains, evaluates on held-out tasks and shows the result; returns the exit code."""
    try:
        with plain_warnings():
            show(QUICK if "--quick" in arguments else REACH)
    except UsageError as error:
        print("metarl: error:", error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def show(config: TrainConfig) -> Path:
    """Trains and shows what the agent does on tasks it has never seen; returns the run folder."""
    options = config.resolve().options
    print(
        f"Training {config.agent} on {config.env}: {config.iterations} iterations of {options.num_tasks} tasks, "
        f"{options.envs_per_task} environments of each.\n",
        flush=True,
    )
    path = train(config)
    print("\nEpisodes on tasks that training never saw, by the number of episodes that the agent has adapted with:\n")
    evaluate.main([str(path)])
    run = load_run(path)
    assert isinstance(run, AgentRun)
    try:
        print(f"\nA film of one of them, before and after adaptation: {_film(run)}")
    except RenderingUnavailable as error:
        print(f"\nNo film: {error}")
    print("\nAll of it on one page:\n")
    report.main([str(path), "--output", str(path / "report")])
    print(f"\nThe whole run: {path}. To see it live in a browser:\n{_how_to_watch(path)}")
    return path


def _how_to_watch(path: Path) -> str:
    """Commands as they can be typed where the demo was started: `make` activates no environment, nor has the viewer."""
    tools = "" if shutil.which("metarl") else f"{os.path.relpath(Path(sys.executable).parent)}{os.sep}"
    installed = all(map(importlib.util.find_spec, ("viser", "mjviser")))
    first = [] if installed else [f"  {tools}python -m pip install 'metarl-kit[viewer]'"]
    return "\n".join([*first, f"  {tools}metarl watch {path}"])


def _film(run: AgentRun) -> Path:
    """Films the first test task; raises `RenderingUnavailable` if nothing here can draw."""
    path = run.path / "videos" / "adaptation.mp4"
    task = run.distribution.sample(1, split="test", seed=FILM_SEED)
    opened = open_film_env(run.agent, run.distribution, task, run.config.backend, FILM_SEED)
    with contextlib.closing(opened) as env:
        film(run.agent, env, run.agent.stages()[-1], FILM_SEED, path)
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
