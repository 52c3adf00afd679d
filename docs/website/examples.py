"""Docstrings of metarl as Markdown: a run of `>>>` lines is an example, which is shown as code."""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"(?:^ *(?:Example:|Examples:)\n+)?^( *)>>> .*(?:\n(?! *$).*)*", re.MULTILINE)


def as_markdown(docstring: str) -> str:
    """The docstring with its examples in fences."""

    def fenced(match: re.Match[str]) -> str:
        lines = match[0][match[0].index(">>>") - len(match[1]) :].splitlines()
        return "\n".join(["```pycon", *(line.removeprefix(match[1]) for line in lines), "```"])

    return EXAMPLE.sub(fenced, docstring)


class Examples(griffe.Extension):
    """Puts the examples of every docstring that is read into fences."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
