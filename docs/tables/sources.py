"""The JSON files that the tables are made from, and the form of a table."""

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent


def load(pattern: str) -> list[dict[str, Any]]:
    """The JSON files of docs/ that match, in the order of their names."""
    return [json.loads(path.read_text()) for path in sorted(DOCS.glob(pattern))]


def load_lines(pattern: str) -> list[list[dict[str, Any]]]:
    """The files of docs/ that match and have an object in each line, such as metrics."""
    return [[json.loads(line) for line in path.read_text().splitlines()] for path in sorted(DOCS.glob(pattern))]


def rows(header: list[str], body: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(mean: float, ci95: float) -> str:
    return f"{100 * mean:.1f} ± {100 * ci95:.1f}"
