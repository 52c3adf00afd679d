"""The pictures of a few-shot run: one test episode with its predictions, the embedding, and the training curve."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from metarl.experiment.metrics import metric_values
from metarl.experiment.plots import new_figure, save_figure
from metarl.fewshot.data import DataSet
from metarl.fewshot.episodes import Episodes, EpisodeShape
from metarl.fewshot.learner import Learner

HEIGHT = 4.5
"""Height of a plot in inches."""
SHOWN = 10
"""Support examples, and queries, of each class that the picture of an episode shows at most."""


@torch.no_grad()
def draw_pictures(
    learner: Learner, data: DataSet, seed: int, title: str, rows: list[dict[str, Any]], folder: Path
) -> None:
    """Writes episode.png, training.png and, for classification, embedding.png into `folder`."""
    episode = data.episodes("test", 1, learner.spec.shape, seed=seed).to(learner.device)
    if learner.spec.kind == "regression":
        save_figure(_regression(learner, episode, title), folder / "episode.png")
    else:
        if data.preprocessing.is_image:
            figure = _image_episode(learner, episode, title)
        else:
            figure = _table_episode(learner, episode, title)
        save_figure(figure, folder / "episode.png")
        save_figure(_embedding(learner, data, seed, title), folder / "embedding.png")
    save_figure(_training(rows, learner.metric, title), folder / "training.png")


def principal_components(rows: Float[Tensor, "n D"], count: int = 2) -> Float[Tensor, "n count"]:
    """The coordinates of `rows` along their `count` directions of largest variance."""
    centred = rows - rows.mean(0)
    directions = torch.linalg.svd(centred, full_matrices=False).Vh[:count]
    found = centred @ directions.T
    return torch.nn.functional.pad(found, (0, count - found.shape[1]))


def columns(points: Float[Tensor, "n 2"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """The abscissae and ordinates of `points`."""
    return points[:, 0], points[:, 1]


def _training(rows: list[dict[str, Any]], metric: str, title: str) -> Figure:
    figure, axes = new_figure(title, "training step", f"{metric} on the queries of training episodes", HEIGHT)
    shown = metric if all(metric in row for row in rows) else "loss"
    axes.set_ylabel(f"{shown} of training episodes")
    axes.plot(metric_values(rows, "iteration"), metric_values(rows, shown), linewidth=1.2)
    if metric == "mse":
        axes.set_yscale("log")
    return figure


def _regression(learner: Learner, episode: Episodes, title: str) -> Figure:
    """Support, truth and prediction over the first input."""
    figure, axes = new_figure(title, "x", "y", HEIGHT)
    predictions = learner.adapt(episode.support)(episode.query.x)
    x = episode.query.x[0, :, 0].cpu()
    order = x.argsort()
    axes.plot(x[order], episode.query.y[0, order.to(episode.query.y.device), 0].cpu(), label="truth", color="0.6")
    axes.plot(x[order], predictions[0, order.to(predictions.device), 0].cpu(), label="prediction", linestyle="--")
    axes.scatter(
        episode.support.x[0, :, 0].cpu(), episode.support.y[0, :, 0].cpu(), label="support", color="C3", zorder=3
    )
    axes.legend()
    return figure


def _image_episode(learner: Learner, episode: Episodes, title: str) -> Figure:
    """A row for each class: its support, then its queries. Mistakes are framed in red and name the predicted class."""
    chosen = learner.adapt(episode.support)(episode.query.x)[0].argmax(-1)
    ways = learner.spec.shape.ways
    shots, queries = min(SHOWN, learner.spec.shape.shots), min(SHOWN, learner.spec.shape.queries)
    shown_ways = min(ways, 2 * SHOWN)
    width = shots + queries + 1
    figure = Figure(figsize=(0.6 * width, 0.65 * shown_ways + 0.5), layout="constrained")
    figure.suptitle(f"{title}: support | queries (red: taken for the class named)", fontsize=8)
    grid = figure.subplots(shown_ways, width, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for way in range(shown_ways):
        for column, row in enumerate((episode.support.y[0] == way).nonzero()[:shots, 0].tolist()):
            _show(grid[way, column], episode.support.x[0, row])
        for column, row in enumerate((episode.query.y[0] == way).nonzero()[:queries, 0].tolist()):
            axes = grid[way, shots + 1 + column]
            _show(axes, episode.query.x[0, row])
            guess = int(chosen[row])
            if guess != way:
                axes.set_title(str(guess), fontsize=7, color="C3", pad=1)
                for spine in axes.spines.values():
                    spine.set(color="C3", linewidth=2)
        grid[way, shots].text(0.5, 0.5, str(way), ha="center", va="center", fontsize=9)
    return figure


def _table_episode(learner: Learner, episode: Episodes, title: str) -> Figure:
    """Support and queries of an episode along the principal components of their inputs, mistakes crossed."""
    chosen = learner.adapt(episode.support)(episode.query.x)[0].argmax(-1).cpu()
    both = torch.cat([episode.support.x[0], episode.query.x[0]]).cpu().flatten(1)
    points, cut = principal_components(both), episode.support.x.shape[1]
    figure, axes = new_figure(f"{title}: one episode", "first component", "second component", HEIGHT)
    support_y, query_y = episode.support.y[0].cpu(), episode.query.y[0].cpu()
    for way in support_y.unique().tolist():
        colour = f"C{way % 10}"
        axes.scatter(*columns(points[:cut][support_y == way]), marker="s", s=60, color=colour, edgecolor="black")
        axes.scatter(*columns(points[cut:][query_y == way]), s=14, color=colour, label=f"class {way}")
    wrong = points[cut:][chosen != query_y]
    axes.scatter(*columns(wrong), marker="x", s=40, color="black", label="mistaken")
    axes.legend(fontsize=7)
    return figure


def _embedding(learner: Learner, data: DataSet, seed: int, title: str) -> Figure:
    """The embedded queries of one episode, and the mean of each class's embedded support."""
    shape = learner.spec.shape
    episode = data.episodes("test", 1, EpisodeShape(shape.ways, shape.shots, shape.queries), seed=seed)
    episode = episode.to(learner.device)
    both = torch.cat([episode.support.x[0], episode.query.x[0]])
    embedded, what = learner.embed(both), "embedding"
    if embedded is None:
        embedded, what = learner.adapt(episode.support)(both[None])[0], "scores after adaptation"
    points, cut = principal_components(embedded).cpu(), episode.support.x.shape[1]
    support_y, query_y = episode.support.y[0].cpu(), episode.query.y[0].cpu()
    figure, axes = new_figure(f"{title}: {what}", "first principal component", "second principal component", HEIGHT)
    for way in support_y.unique().tolist():
        colour = f"C{way % 10}"
        axes.scatter(*columns(points[cut:][query_y == way]), s=14, color=colour, label=f"class {way}")
        prototype = points[:cut][support_y == way].mean(0)
        axes.scatter(prototype[0], prototype[1], marker="*", s=200, color=colour, edgecolor="black")
    axes.legend(fontsize=7, title="★ mean of the support", title_fontsize=7)
    return figure


def _show(axes: Axes, image: Float[Tensor, "C H W"]) -> None:
    pixels = image.cpu().permute(1, 2, 0).numpy()
    low, high = float(pixels.min()), float(pixels.max())
    pixels = (pixels - low) / max(high - low, 1e-8)
    axes.set_axis_on()
    axes.set(xticks=[], yticks=[])
    axes.imshow(pixels if pixels.shape[2] == 3 else np.squeeze(pixels[..., :1], 2), cmap="gray_r", vmin=0, vmax=1)
