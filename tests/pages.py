"""The pages that are written in Markdown, and what stands in them."""

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [*GUIDES, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs" / "results").rglob("README.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SOURCE = re.compile(r"<!-- script: (\w+) -->.*?<!-- end -->", re.DOTALL)
"""The source of an experiment, which tests of its own run."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def text_of(page: Path) -> str:
    """A page without the sources that are copied into it."""
    return SOURCE.sub("", page.read_text())


def python_blocks(page: Path) -> list[str]:
    return [code for language, code in FENCE.findall(text_of(page)) if language == "python"]


def commands(line: str) -> Iterator[list[str]]:
    """The commands of a line of a shell script, without what assigns variables before them."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&")
    lexer.whitespace_split = True
    for operator, words in itertools.groupby(lexer, lambda word: set(word) <= set(";|&")):
        command = [] if operator else list(words)
        while command and (command[0] in ("while", "do", "done") or re.match(r"[A-Z_]+=", command[0])):
            del command[0]
        if command:
            yield command


def command_lines(page: Path) -> Iterator[list[str]]:
    """The words of each command in a block of a shell, and of each command line in the text."""
    text = text_of(page)
    for language, block in FENCE.findall(text):
        if language in ("", "sh", "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                yield from commands(line)
    for span in re.findall(r"`([^`]+)`", FENCE.sub("", text)):
        if re.match(r"(metarl|python|make)\s", span):
            yield shlex.split(" ".join(span.split()).replace("…", ""))
