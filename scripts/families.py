"""The family that a command measures a trained agent on: that of its run, the same with other options, or another."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarl.distribution import TaskDistribution
from metarl.experiment import AgentRun, Run
from metarl.experiment.checkpoints import LAST
from metarl.experiment.config_file import read_entries
from metarl.experiment.experiment import Parts
from metarl.experiment.run_folder import edits, open_run
from metarl.registry import make


def open_with_family(
    path: Path, env: str | None, options: Mapping[str, Any], device: str | None, checkpoint: str = LAST
) -> tuple[Run, TaskDistribution | None]:
    """Opens a run folder; returns it with the family to measure its agent on, or with None if it has no agent.

    `env` and `options` choose the family as in `AgentRun.other_family`. If the agent was trained on an instance, which
    no name makes again, they make that family. What differs from the training is said on stderr. Raises `UsageError`
    for a family whose spaces are not those of the agent.
    """
    entries = read_entries(path)
    unnamed = env is not None and "env" in entries.get("unnamed", ())
    parts: Parts = {}
    if env is not None and unnamed:
        parts = {"env": make(env, **options)}
    elif env is not None and env == entries.get("env"):
        parts = {"env": env}  # whoever says it trusts the name
    number = int(checkpoint) if checkpoint.isdecimal() else checkpoint
    run = open_run(path, parts, device=device, checkpoint=number)
    if not isinstance(run, AgentRun):
        return run, None
    family = run.distribution if unnamed else run.other_family(env, options)
    run.agent.spec.check(family)
    own = family is run.distribution
    _say(f"{path}/config.yaml has been edited since", edits(run))
    _say(f"not what {path} was trained on", run.experiment.changes(splits=("test",) if own else ()))
    _say(f"unlike the training of {path}", [] if own else run.differences(family))
    return run, family


def _say(what: str, differences: list[str]) -> None:
    if differences:
        print(f"metarl: {what}: {', '.join(differences)}", file=sys.stderr)
