"""The command `metarl`. A command is a module of this package with `main(arguments)`, imported when it is called."""

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Sequence

from metarl.errors import EnvironmentFault, NumericalFault, RankLost, StorageFault, UsageError
from metarl.own_frames import own_traceback
from metarl.parsing import printable
from metarl.plain_warnings import plain_warnings

COMMANDS = {
    "envs": ("metarl.scripts.envs", "list the task distributions"),
    "train": ("metarl.scripts.train", "train an agent on a task distribution"),
    "presets": ("metarl.scripts.presets", "list the presets of agents"),
    "resume": ("metarl.scripts.resume", "continue a run exactly where it stopped"),
    "evaluate": (
        "metarl.scripts.evaluate",
        "measure how fast a trained agent adapts to unseen tasks, or test a few-shot learner",
    ),
    "adapt": ("metarl.scripts.adapt", "adapt a trained agent to one given task"),
    "sweep": ("metarl.scripts.sweep", "train many agents, by a file of options"),
    "watch": ("metarl.scripts.watch", "watch a trained agent adapt, on a page in the browser"),
    "fewshot": ("metarl.scripts.fewshot", "train and test a supervised few-shot learner"),
    "compare": ("metarl.scripts.compare", "statistics of agents on the same tasks, with intervals"),
    "report": ("metarl.scripts.report", "curves and tables over runs"),
    "check": ("metarl.scripts.check", "run the contract on a task distribution of your own"),
    "benchmark": ("metarl.scripts.benchmark", "measure speed, beside peers"),
    "precompile": ("metarl.scripts.precompile", "compile kernels for a GPU, on a machine that need not have one"),
}
"""Name → module and summary. The module's `main` takes the command's arguments and may return an exit code."""


WHOLE = "METARL_TRACEBACK"
"""Environment variable: if it is set, errors and warnings look as Python makes them, with every frame and line."""
BROKEN_PIPE = 141
"""Exit code as a shell has it for a process that SIGPIPE has ended."""
SHARED = ("train", "resume")
"""The commands that several processes, which torchrun starts, run together."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    After one line on stderr it is 2 for a user's mistake, and 1 for an environment or a loss that gives no numbers, a
    full disk or another rank that has ended. It is 130 for Ctrl-C and SIGTERM, 75 for a run that `--max-hours` has
    stopped before its end, and 141 if whoever reads the output has gone.
    """
    _let_everything_be_printed()
    try:
        code = _answer(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `head` has seen enough
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # what is left goes nowhere, at the interpreter's end too
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return BROKEN_PIPE


def _answer(arguments: Sequence[str] | None) -> int:
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
    try:
        if name in ("", "-h", "--help"):
            print(_help())
            return 0 if name else 2
        if name == "--version":
            print(_version())
            return 0
        if name not in COMMANDS:
            raise UsageError(_unknown_command(name))
        if name not in SHARED and _rank() is not None:
            raise UsageError(f"{name} runs in one process: call metarl {name} without torchrun")
        return _run(COMMANDS[name][0], rest[:-1])
    except (UsageError, EnvironmentFault, NumericalFault, RankLost, StorageFault) as error:
        who = "" if isinstance(error, RankLost) else _who()
        if error.__cause__ is not None:  # what the user's code raised
            sys.stderr.write(own_traceback(error.__cause__))
        # A message may quote a file that anyone has written.
        print(f"metarl: error: {who}{printable(' '.join(str(error).split()), most=4000)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130


def _let_everything_be_printed() -> None:
    """Names of files may have any bytes, and an old encoding lacks letters: results are not lost for that."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        is_utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if is_utf8 else "replace")


def _rank() -> str | None:
    """The number of this process among several that torchrun has started; None if it is the only one."""
    return os.environ.get("RANK", "0") if os.environ.get("WORLD_SIZE", "1") != "1" else None


def _run(module: str, arguments: list[str]) -> int:
    """Runs a command. Of an error in code of the user's, only their part of the traceback is shown."""
    if os.environ.get(WHOLE):
        return importlib.import_module(module).main(arguments) or 0
    try:
        with plain_warnings(_who()):
            return importlib.import_module(module).main(arguments) or 0
    except (UsageError, EnvironmentFault, NumericalFault, RankLost, StorageFault):
        raise
    except Exception as error:
        own = own_traceback(error)
        if not own and isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
            raise StorageFault(f"cannot read or write {error.filename}: {error.strerror}") from None
        if not own:  # a mistake of ours: all of it is of use
            raise
        place = printable(
            " ".join(next(iter(getattr(error, "__notes__", ())), "raised by code of yours").split()), 1000
        )
        print(f"{own}metarl: error: {_who()}{place}; {WHOLE}=1 shows all of the traceback", file=sys.stderr)
        return 1


def _who() -> str:
    return f"rank {_rank()}: " if _rank() else ""


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: metarl COMMAND ...",
            "",
            "Train agents that learn to adapt, and measure how fast they do.",
            "",
            "commands:",
            *lines,
            "",
            "Each answers --help; so does metarl train AGENT --help, with the agent's own options.",
        ]
    )


def _version() -> str:
    import importlib.metadata

    return f"metarl {importlib.metadata.version('metarl-kit')}"


def _unknown_command(name: str) -> str:
    from metarl.importing import near_matches

    nested = {"predict": ["fewshot predict"]}
    near = nested.get(name) or near_matches(name, COMMANDS)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(COMMANDS)}"
    return f"unknown command {name!r}; {hint}"


if __name__ == "__main__":
    sys.exit(main())
