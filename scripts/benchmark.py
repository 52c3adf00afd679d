"""`metarl benchmark NAME`: speed and its breakdown, compared with others in the same run."""

import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from metarl.errors import UsageError
from metarl.experiment.files import check_writable, write_atomically
from metarl.experiment.formats import installed_versions
from metarl.importing import near_matches
from metarl.scripts.arguments import parse

BENCHMARKS = {
    "before": ("metarl.scripts.benchmark_before", "rollouts, a MAML iteration and memory, beside another version"),
    "copy": ("metarl.scripts.benchmark_copy", "the copy task: a Neural Turing Machine beside an LSTM"),
    "l2o": ("metarl.scripts.benchmark_l2o", "a learned optimizer on quadratics, beside Adam, RMSprop and SGD"),
    "device": ("metarl.scripts.benchmark_device", "a GPU in nine minutes: tests, speed, parity, learning, a peer"),
    "fewshot": ("metarl.scripts.benchmark_fewshot", "one step of supervised MAML, beside a loop over tasks and peers"),
    "learn": ("metarl.scripts.benchmark_learn", "iterations of training by parts, beside bounds, neighbours and peers"),
    "maml": ("metarl.scripts.benchmark_maml", "one MAML iteration on point navigation, beside a loop over tasks"),
    "pearl": ("metarl.scripts.benchmark_pearl", "a gradient step of PEARL, beside its matrix products alone"),
    "ranks": ("metarl.scripts.benchmark_ranks", "two ranks, beside one process and beside two independent ones"),
    "sb3": ("metarl.scripts.benchmark_sb3", "PPO of Stable-Baselines3 on to_sb3, beside processes of Gymnasium's"),
    "soak": ("metarl.scripts.benchmark_soak", "memory and open files of a long training with evaluations"),
    "rollout": ("metarl.scripts.benchmark_rollout", "environment steps per second, beside EnvPool and Gymnasium"),
}
"""Name: module and what it measures. The module has a dataclass `Arguments` and `run(arguments) -> dict`.

If the arguments are an `Output`, the result is written to the file that they name."""


@dataclass
class Output:
    """Where the results go, besides the terminal."""

    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the results, the machine and the versions to this file."""


def known_versions(packages: Sequence[str]) -> dict[str, str]:
    """The versions of Python and of those `packages` that are installed."""
    return {name: version for name, version in installed_versions(packages).items() if version is not None}


def main(arguments: Sequence[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: metarl benchmark NAME [--json FILE] ...\n")
        print("\n".join(f"  {name:10} {summary}" for name, (_, summary) in BENCHMARKS.items()))
        sys.exit(0 if arguments else 2)
    name, *rest = arguments
    if name not in BENCHMARKS:
        near = near_matches(name, BENCHMARKS)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(BENCHMARKS)}"
        raise UsageError(f"unknown benchmark {name!r}; {hint}")
    module = importlib.import_module(BENCHMARKS[name][0])
    parsed: Any = parse(module.Arguments, rest, f"metarl benchmark {name}")
    file = parsed.json if isinstance(parsed, Output) else None
    if file is not None:
        check_writable(file)
    figures = module.run(parsed)
    if file is not None:
        write_atomically(file, json.dumps({"benchmark": name, **figures}, indent=2) + "\n")
