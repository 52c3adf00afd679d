"""JSON and YAML that others may have written: everything wrong with such a text is one `UsageError`.

Only plain values come out: None, truth values, numbers, text, lists, and mappings from text. A text has to be nested no
deeper than `DEPTH`, and what it stands for no larger than the text lets one expect: aliases of YAML, by which a few
lines stand for billions of values, count once for each time they are used. A mapping names each entry once: of two with
one name, both parsers would keep the last without a word.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from metarl.errors import UsageError

DEPTH = 100
"""Most levels of lists and mappings within each other."""
MOST_YAML = 4_000_000
"""Most bytes of a YAML text, whose parser takes a second for 100 kB."""
MOST_NODES = 1_000_000
"""Most values that a YAML text may stand for."""
LARGEST = 2**63 - 1
"""Largest whole number that `is_count` takes: that of an int64."""


def parse_json(text: bytes | str, what: str) -> Any:
    """The value of a JSON text; raises `UsageError`, which names it as `what`, if it is none.

    >>> from metarl.parsing import parse_json
    >>> parse_json('{"goal": [0.5, 1]}', "--task")
    {'goal': [0.5, 1]}
    """
    try:
        value = json.loads(text, object_pairs_hook=lambda pairs: _named_once(pairs, what))
    except UsageError:
        raise
    except (ValueError, RecursionError) as error:  # a whole number of 5,000 digits is a ValueError too
        raise UsageError(f"{what} is damaged: it is no JSON ({in_a_line(error)})") from None
    _check_depth(value, what)
    return value


def parse_yaml(text: bytes | str, what: str, *, by_hand: bool = False) -> Any:
    """The value of a YAML text; raises `UsageError`, which names it as `what`, if it is none of plain values.

    In a text that people write (`by_hand`), `1e-3` is a number, as YAML 1.2 has it. PyYAML reads and writes it as text.

    >>> from metarl.parsing import parse_yaml
    >>> parse_yaml("seed: 3", "config.yaml"), parse_yaml("lr: 1e-3", "sweep.yaml", by_hand=True)
    ({'seed': 3}, {'lr': 0.001})
    """
    if len(text) > MOST_YAML:
        raise UsageError(f"{what} is damaged: it has {len(text):,} characters, of which {MOST_YAML:,} are read")
    try:
        loader = (_HandwrittenLoader if by_hand else _PlainLoader)(text)
        try:
            node = loader.get_single_node()
            _check_size(node, what)
            value = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except UsageError:
        raise
    except Exception as error:  # PyYAML lets through what conversions of text to numbers raise, and RecursionError
        raise UsageError(f"{what} is damaged: it is no YAML of plain values ({in_a_line(error)})") from None
    _check_depth(value, what)
    _check_keys(value, what)
    return value


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number that a float can hold.

    >>> from metarl.parsing import is_number
    >>> is_number(3), is_number(True), is_number(float("nan")), is_number(10**400)
    (True, False, False, False)
    """
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST


def is_count(value: Any) -> bool:
    """Whether `value` is a whole number from 0 to `LARGEST`."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST


def printable(text: str, most: int = 200) -> str:
    """`text` as one line without control characters, which could take over a terminal; at most `most` characters.

    >>> from metarl.parsing import printable
    >>> printable("maml\\x1b[2J\\n")
    'maml�[2J�'
    """
    shown = "".join(character if character.isprintable() else "�" for character in text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


class _PlainLoader(yaml.SafeLoader):
    """YAML's core types alone: a date stays text, and bytes, sets and ordered mappings are unknown."""


_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")}
_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _PLAIN_TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_PlainLoader.yaml_constructors = {
    tag: construct for tag, construct in yaml.SafeLoader.yaml_constructors.items() if tag is None or tag in _PLAIN_TAGS
}


class _HandwrittenLoader(_PlainLoader):
    """The same with the numbers of YAML 1.2."""


_HandwrittenLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+\Z"), list("-+.0123456789")
)


def _check_size(node: yaml.Node | None, what: str) -> None:
    """Raises `UsageError` if the tree under `node` has too many nodes, each counted as often as it is used.

    A node that contains itself has no end.
    """
    sizes: dict[int, float] = {}

    def size(node: yaml.Node, depth: int) -> float:
        if id(node) in sizes:
            return sizes[id(node)]
        if depth > DEPTH:
            raise UsageError(f"{what} is damaged: it is nested deeper than {DEPTH} levels")
        sizes[id(node)] = math.inf  # until it is known
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            _named_once([(key.value, None) for key, _ in children if isinstance(key, yaml.ScalarNode)], what)
        flat = [part for pair in children for part in pair] if isinstance(node, yaml.MappingNode) else children
        sizes[id(node)] = total = 1.0 + sum(size(child, depth + 1) for child in flat)
        return total

    if node is not None and size(node, 1) > MOST_NODES:
        raise UsageError(f"{what} is damaged: its aliases stand for more than {MOST_NODES:,} values")


def _named_once(pairs: list[tuple[str, Any]], what: str) -> dict[str, Any]:
    """The entries of a mapping; raises `UsageError` if one is there twice."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"{what} names {printable(repr(twice))} twice: leave one out")
    return entries


def _check_depth(value: Any, what: str) -> None:
    """Raises `UsageError` if lists and mappings are nested too deep for those who read them one within another."""
    level, depth = [value], 0
    while level:
        if depth > DEPTH:
            raise UsageError(f"{what} is damaged: it is nested deeper than {DEPTH} levels")
        level = [
            part
            for outer in level
            for part in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
            if isinstance(part, dict | list)
        ]
        depth += 1


def _check_keys(value: Any, what: str) -> None:
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise UsageError(f"{what} is damaged: {printable(repr(key))} is no name of an entry")
    for part in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        _check_keys(part, what)


def in_a_line(error: BaseException) -> str:
    """What an exception says, without ends of lines; the name of its class if it says nothing."""
    return printable(" ".join(str(error).split()) or type(error).__name__)
