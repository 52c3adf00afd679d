"""Draws docs/pictures/trial.svg: task, trial, episode and adaptation in one picture. `python docs/pictures/trial.py`"""

from pathlib import Path

WIDTH, HEIGHT = 960, 500
INK, FAINT, CARD = "#1f2933", "#7b8794", "#ffffff"
TRAIN, TEST, GRADIENT, MEMORY = "#4477aa", "#cc6633", "#228833", "#8855aa"


def text(
    x: float, y: float, words: str, size: int = 15, colour: str = INK, anchor: str = "start", bold: bool = False
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"{weight}>{words}</text>'


def box(x: float, y: float, width: float, height: float, colour: str, fill: str = "none", dashes: bool = False) -> str:
    dashed = ' stroke-dasharray="5 4"' if dashes else ""
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{fill}" stroke="{colour}" '
        f'stroke-width="2"{dashed}/>'
    )


def arrow(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 2) -> str:
    return (
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}" stroke-width="{width}" '
        f'marker-end="url(#{colour[1:]})"/>'
    )


def family() -> list[str]:
    """The tasks of a family, those of training and those of the test."""
    parts = [text(24, 36, "A family", 18, bold=True), text(24, 58, "tasks that differ in what the agent is not told:")]
    parts += [text(24, 78, "a goal, a mass, a reward")]
    for number in range(6):
        parts += [box(350 + 56 * number, 26, 46, 46, TRAIN, "#e7eef6"), goal(373 + 56 * number, 49, number, TRAIN)]
    parts += [text(513, 92, "training tasks", 14, TRAIN, "middle")]
    for number in range(3):
        parts += [box(754 + 56 * number, 26, 46, 46, TEST, "#fbeee6"), goal(777 + 56 * number, 49, number + 7, TEST)]
    return [*parts, text(833, 92, "test tasks, never seen", 14, TEST, "middle")]


def goal(x: float, y: float, number: int, colour: str) -> str:
    """A hidden goal, elsewhere in each task."""
    right, down = 12 * ((5 * number) % 7 / 3 - 1), 12 * ((3 * number) % 7 / 3 - 1)
    return f'<circle cx="{x + right:.1f}" cy="{y + down:.1f}" r="5" fill="{colour}"/>'


def trial() -> list[str]:
    """Three episodes of one test task: steps, and returns that rise."""
    parts = [arrow(777, 104, 600, 142, TEST), box(24, 148, 912, 190, TEST, "#fffaf6")]
    parts += [text(40, 176, "A trial", 18, bold=True), text(104, 176, "all that the agent sees of one task")]
    for episode, share in enumerate((0.25, 0.7, 0.95)):
        left = 40 + 300 * episode
        parts += [box(left, 192, 270, 96, FAINT, CARD), text(left + 12, 214, f"Episode {episode + 1}", 15, bold=True)]
        for step in range(8):
            parts += [box(left + 12 + 21 * step, 228, 15, 15, INK, "#e4e7eb")]
        parts += [text(left + 12, 270, "steps, from a start to the horizon", 13, FAINT)]
        height = 76 * share
        parts += [
            f'<rect x="{left + 222}" y="{280 - height:.0f}" width="30" height="{height:.0f}" fill="{TEST}"/>',
            text(left + 237, 306, "return", 13, TEST, "middle"),
        ]
    parts += [arrow(312, 240, 336, 240, INK, 3), arrow(612, 240, 636, 240, INK, 3)]
    return [
        *parts,
        text(480, 328, "adaptation: what the agent has seen of the task changes how it acts", 15, INK, "middle"),
    ]


def ways() -> list[str]:
    """The two ways to adapt, and what is measured."""
    parts = [text(24, 376, "How it adapts", 18, bold=True)]
    for left, colour, title, lines in (
        (24, GRADIENT, "by gradient steps", ("maml, reptile: some episodes,", "then a step of the policy's weights")),
        (
            340,
            MEMORY,
            "by memory or belief",
            ("rl2, varibad, pearl: weights stay,", "what it remembers of the trial changes"),
        ),
        (656, FAINT, "not at all", ("multitask: what has to be beaten;", "oracle: is told the task, an upper bound")),
    ):
        parts += [box(left, 390, 280, 88, colour, CARD), text(left + 14, 416, title, 16, colour, bold=True)]
        parts += [text(left + 14, 440 + 22 * number, line, 14) for number, line in enumerate(lines)]
    return parts


def picture() -> str:
    heads = "".join(
        f'<marker id="{colour[1:]}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="5" markerHeight="5" '
        f'orient="auto"><path d="M0 0 L10 5 L0 10 z" fill="{colour}"/></marker>'
        for colour in (INK, TEST)
    )
    body = "\n".join([box(1, 1, WIDTH - 2, HEIGHT - 2, "#cbd2d9", CARD), *family(), *trial(), *ways()])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="Helvetica, Arial, sans-serif">\n<defs>{heads}</defs>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(picture())
