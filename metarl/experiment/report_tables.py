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
    "²": "$^2$",
}
_NUMBER = r"[-−]*[\d,]+(\.\d*)?(e[-+]\d+)?"
_NUMBERS = re.compile(rf"–|never|{_NUMBER}( \[{_NUMBER}, {_NUMBER}\])?")
"""A number with or without an interval, or what stands where there is none."""


@dataclass(frozen=True)
class Table:
    """Cells of plain text; columns whose body is numbers, with or without intervals, stand to the right.

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
        return [0 < i < len(columns) and all(map(_NUMBERS.fullmatch, columns[i])) for i in range(len(self.header))]

    def markdown(self) -> str:
        rule = ["---:" if numeric else "---" for numeric in self.numeric]
        lines = [list(map(escape_markdown, self.header)), rule, *(map(escape_markdown, row) for row in self.rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

    def latex(self, caption: str) -> str:
        """A `table` around `tabular`."""
        return f"\\begin{{table}}\n\\caption{{{_latex(caption)}}}\n{self.tabular()}\\end{{table}}\n"

    def tabular(self) -> str:
        """The table for LaTeX, with the rules of the package booktabs."""
        head, *body = [" & ".join(map(_latex, row)) + r" \\" for row in (self.header, *self.rows)]
        columns = "".join("r" if numeric else "l" for numeric in self.numeric)
        start = rf"\begin{{tabular}}{{{columns}}}"
        return "\n".join([start, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", ""])

    def html(self) -> str:
        sides = ["number" if numeric else "text" for numeric in self.numeric]
        head = "".join(f'<th class="{s}">{html.escape(c)}</th>' for s, c in zip(sides, self.header, strict=True))
        rows = [
            "".join(f'<td class="{s}">{html.escape(c)}</td>' for s, c in zip(sides, row, strict=True))
            for row in self.rows
        ]
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def figure(value: float) -> str:
    """A score with two decimals, or with three digits if it is so small that two decimals would hide it.

    >>> from metarl.experiment.report_tables import figure
    >>> figure(-17.756), figure(0.5), figure(0.0), figure(1.2345e-6)
    ('-17.76', '0.50', '0.00', '1.23e-06')
    """
    return f"{value:.3g}" if 0 < abs(value) < 0.05 else f"{value:.2f}"


def escape_markdown(text: str) -> str:
    """`text` in one line, as it is shown on the page, whatever marks of Markdown or HTML are in it."""
    return re.sub(r"([\\`*_{}\[\]#|])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))
