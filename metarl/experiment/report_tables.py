"""Tables of a report as Markdown, LaTeX and HTML."""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

_LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "−": "$-$",
    "±": r"$\pm$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "…": r"\ldots{}",
}


@dataclass(frozen=True)
class Table:
    """Cells of plain text; columns whose body is numbers stand to the right.

    >>> from metarl.experiment.report_tables import Table
    >>> print(Table(["agent", "runs"], [["maml", "2"]]).markdown(), end="")
    | agent | runs |
    | --- | ---: |
    | maml | 2 |
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds nothing but numbers; the first names its row."""
        columns = list(zip(*self.rows, strict=True))
        return [0 < i < len(columns) and all(map(_is_number, columns[i])) for i in range(len(self.header))]

    def markdown(self) -> str:
        rule = ["---:" if numeric else "---" for numeric in self.numeric]
        lines = [list(map(escape_markdown, self.header)), rule, *(map(escape_markdown, row) for row in self.rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

    def latex(self, caption: str) -> str:
        """A `table` with the rules of the package booktabs."""
        body = [" & ".join(map(_latex, row)) + r" \\" for row in (self.header, *self.rows)]
        columns = "".join("r" if numeric else "l" for numeric in self.numeric)
        lines = [
            r"\begin{table}",
            rf"\caption{{{_latex(caption)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            body[0],
            r"\midrule",
            *body[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"

    def html(self) -> str:
        sides = ["number" if numeric else "text" for numeric in self.numeric]
        head = "".join(f'<th class="{s}">{html.escape(c)}</th>' for s, c in zip(sides, self.header, strict=True))
        rows = [
            "".join(f'<td class="{s}">{html.escape(c)}</td>' for s, c in zip(sides, row, strict=True))
            for row in self.rows
        ]
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _is_number(text: str) -> bool:
    return text == "–" or text.lstrip("−-").replace(",", "").replace(".", "", 1).isdigit()


def escape_markdown(text: str) -> str:
    """`text` in one line, as it is shown on the page, whatever marks of Markdown or HTML are in it."""
    return re.sub(r"([\\`*_{}\[\]#|])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))
