"""The plots of a run folder."""

import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metarl.evaluation import Evaluation
from metarl.experiment.files import write_atomically
from metarl.experiment.metrics import Row, metric_values


def plot_training(rows: list[Row], title: str, path: Path) -> None:
    """The mean return after adaptation against environment steps; iterations without a return leave a gap."""
    figure, axes = new_figure(title, "environment steps", "return after adaptation")
    axes.plot(metric_values(rows, "env_steps"), metric_values(rows, "return_mean"), linewidth=1.2)
    save_figure(figure, path)


def plot_adaptation(evaluation: Evaluation, title: str, path: Path) -> None:
    """Mean return on unseen tasks against the episodes used for adaptation, with the interval or range if known."""
    figure, axes = new_figure(title, "episodes of the task used", "return")
    rows = evaluation.summary()
    used = evaluation.episodes_used
    axes.plot(used, [row["return_mean"] for row in rows], marker="o", label="mean")
    low, high = [row["return_low"] for row in rows], [row["return_high"] for row in rows]
    if None not in low:
        label = "95 % interval" if evaluation.note is None else "range of repetitions"
        axes.fill_between(used, low, high, alpha=0.25, label=label)
    axes.legend()
    save_figure(figure, path)


def new_figure(title: str, x: str, y: str, height: float = 4.0) -> tuple[Figure, Axes]:
    """An empty plot, 6 inches wide."""
    figure = Figure(figsize=(6, height), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_parse_math(False)  # a name may have a dollar
    axes.grid(alpha=0.3)
    return figure, axes


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG, completely or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_atomically(path, picture.getvalue())
