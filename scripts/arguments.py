"""Command-line arguments as dataclasses, parsed by tyro. Mistakes become one line."""

import contextlib
import dataclasses
import io
import re
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from metarl.errors import UsageError
from metarl.experiment.config_file import KINDS, read_entries
from metarl.importing import import_named, near_matches
from metarl.parsing import parse_yaml

Arguments = TypeVar("Arguments")
UNFINISHED = 75
"""Exit code for a run to go on with, by which a scheduler can tell: EX_TEMPFAIL of sysexits.h."""


def parse(
    cls: Callable[..., Arguments], arguments: Sequence[str], prog: str, default: Arguments | None = None
) -> Arguments:
    """Parses the command line into the dataclass `cls`; other fields come from `default` or the class's defaults.

    Prints the full `--help`. Any mistake raises `UsageError`.
    """
    _check_flags(cls, arguments)
    given: dict[str, Any] = {} if default is None else {"default": default}
    config = (tyro.conf.FlagCreatePairsOff,)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(cls, args=list(arguments), prog=prog, config=config, **given)
    except SystemExit as exit:
        if not exit.code:
            raise
        raise UsageError(f"{_condense(complaint.getvalue())} (see {prog} --help)") from None


def exit_code(run: Path) -> int:
    """0 if the run is complete; `UNFINISHED` if `--max-hours` has stopped it."""
    kind = import_named(KINDS[read_entries(run)["kind"]])
    return 0 if (run / kind.result).exists() else UNFINISHED


def peek(cls: type[Arguments], arguments: Sequence[str]) -> Arguments:
    """Parses the flags of `cls` in `arguments` and ignores others; returns the defaults if parsing fails."""
    try:
        known, _ = tyro.cli(cls, args=list(arguments), return_unknown_args=True, add_help=False, console_outputs=False)
    except SystemExit:
        return cls()
    return known


def key_values(pairs: Sequence[str], flag: str) -> dict[str, Any]:
    """`KEY=VALUE …` as a dict. Values are YAML: 3 and 1e-3 are numbers, true a boolean, [1, 2] a list."""
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key = key.replace("-", "_")
        if not key.isidentifier() or not equals:
            raise UsageError(f"{flag} takes KEY=VALUE, got {pair!r}")
        if key in options:
            raise UsageError(f"{flag} {key} is given twice")
        try:
            options[key] = parse_yaml(value, key, by_hand=True)
        except UsageError:
            raise UsageError(f"{flag} {key}: {value!r} is not valid YAML") from None
    return options


def _check_flags(cls: Any, arguments: Sequence[str]) -> None:
    """Finds unknown flags, and those given twice, before tyro does.

    For a misspelt flag, tyro would first report the missing one; of a flag given twice, it would drop the first.
    """
    known = list(_flags(cls))
    given: set[str] = set()
    for argument in arguments:
        flag = argument.split("=")[0].replace("_", "-")
        if re.match(r"--[a-z]", flag) and flag not in [*known, "--help"]:
            near = [longer for longer in known if longer.endswith(flag[1:])] or near_matches(flag, known)
            hint = f"did you mean {' or '.join(near)}?" if near else "see --help for those there are"
            if not near and "--env-options" in known:
                hint += f"; an option of the family is given by --env-options {flag[2:].replace('-', '_')}=..."
            raise UsageError(f"unknown option {flag}; {hint}")
        if flag in known and flag in given:
            raise UsageError(f"{flag} is given twice: give all its values at once")
        given.add(flag)


def _flags(cls: Any, prefix: str = "") -> Iterator[str]:
    """Every flag that tyro makes for a dataclass. Flags of a nested dataclass start with the outer field and a dot."""
    origin = typing.get_origin(cls) or cls
    generics = dict(zip(getattr(origin, "__parameters__", ()), typing.get_args(cls), strict=False))
    hints = typing.get_type_hints(origin, include_extras=True)
    for field in dataclasses.fields(origin):
        hint, name = hints[field.name], field.name.replace("_", "-")
        if typing.get_origin(hint) is typing.Annotated:
            hint, *markers = typing.get_args(hint)
            if tyro.conf.Positional in markers:
                continue
            name = next((m.name for m in markers if getattr(m, "name", None) is not None), name)
        hint = generics.get(hint, hint)
        if dataclasses.is_dataclass(hint):
            yield from _flags(hint, f"{prefix}{name}." if name else prefix)
        else:
            yield f"--{prefix}{name}"
            if hint is bool:
                yield f"--{prefix}no-{name}"


_WANTED = {"INT": ": want a whole number, in digits", "literal for int": ": want a whole number, in digits"}
_WANTED |= {"FLOAT": ": want a number", "could not convert": ": want a number"}
"""How tyro names what an option holds → what is wanted, in words."""


def _condense(complaint: str) -> str:
    """The message in tyro's box as one line, without frame, title, help texts and the list of attempts."""
    lines = [line.strip("│╭╮╰╯").rstrip() for line in complaint.splitlines()[1:]]
    parts = re.split(r"^ *[-─]{3,}$", "\n".join(lines), flags=re.MULTILINE)
    # If the encoding has no box characters, the title is underlined and the first part is empty.
    first = next((part for part in parts if part.strip()), "")
    body = [line for line in first.splitlines() if line.strip()]
    if body and body[0].strip().startswith("Missing from"):
        indent = len(body[1]) - len(body[1].lstrip())  # help texts are indented further
        return f"missing: {', '.join(line.split()[0] for line in body[1:] if not line[indent:].startswith(' '))}"
    text = " ".join(" ".join(body).split()).split(" Got errors:")[0].removesuffix(".")
    wrong = re.fullmatch(r"Error parsing (\S+): (.*) instantiated from \[(.*)\]", text)
    wrong = wrong or re.fullmatch(r"Error parsing (\S+): (invalid literal for int|could not convert).*: ('.*')", text)
    if wrong is None:
        return text
    kind = next((words for sign, words in _WANTED.items() if sign in wrong[2]), "")
    return f"{wrong[1]} cannot be {wrong[3]}{kind}"
