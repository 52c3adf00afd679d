"""The picture of an explanation: for tables bars, for pictures the squares that count and the support that counts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from metarl.errors import UsageError
from metarl.experiment.plots import save_figure
from metarl.fewshot.explain import GRID, Explanation

BARS = 8
"""Support rows, and features, that a picture shows at most."""
_FOR, _AGAINST = "C0", "C3"
"""Colours of what speaks for the prediction, and against it."""


def draw_explanation(
    found: Explanation,
    query: int,
    path: Path | str,
    *,
    classes: Sequence[str] | None = None,
    support: Float[Tensor, "S C H W"] | None = None,
    queries: Float[Tensor, "Q C H W"] | None = None,
) -> None:
    """Writes a PNG that explains the prediction for one of the queries, counted from 0.

    `classes` are the names of the labels. For pictures give `support` and `queries`, floats from 0 to 1: the squares of
    the query are shaded by their effect, and the support pictures with the largest effects are shown.
    """
    if not 0 <= query < len(found.predicted):
        raise UsageError(f"query must lie in 0 to {len(found.predicted) - 1}, got {query}")
    label = int(found.predicted[query])
    name = str(label) if classes is None else classes[label]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(f"query {query + 1}: {name}, p = {float(found.probabilities[query, label]):.3f}", fontsize=10)
    if support is not None and queries is not None:
        _draw_pictures(figure, found, query, support, queries)
    else:
        left, right = figure.subplots(1, 2)
        rows = [f"row {s + 1}" for s in range(found.support_effect.shape[1])]
        _bars(left, rows, found.support_effect[query], "support rows")
        _bars(right, found.features, found.feature_effect[query], "features")
    save_figure(figure, Path(path))


def _bars(axes: Axes, names: Sequence[str], effect: Float[Tensor, "n"], title: str) -> None:
    """The largest effects as horizontal bars, the largest on top."""
    order = _by_size(effect)[:BARS][::-1]
    values = [float(effect[place]) for place in order]
    colours = [_FOR if value >= 0 else _AGAINST for value in values]
    axes.barh([names[place] for place in order], values, color=colours)
    axes.axvline(0, color="0.4", linewidth=0.8)
    axes.set(title=title, xlabel="change of the probability")
    axes.tick_params(labelsize=8)
    if not order:
        axes.text(0.5, 0.5, "each row is the only one of its class", ha="center", transform=axes.transAxes)


def _draw_pictures(figure: Figure, found: Explanation, query: int, support: Tensor, queries: Tensor) -> None:
    order = _by_size(found.support_effect[query])[:BARS]
    if not order:
        order = list(range(min(BARS, len(support))))
    grid = figure.subplots(2, 1 + (len(order) + 1) // 2, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    _show(grid[0, 0], queries[query], "the query")
    _show(grid[1, 0], queries[query], "squares: blue for, red against")
    effect = found.feature_effect[query].reshape(GRID, GRID).numpy()
    height, width = queries.shape[2:]
    rows, columns = (np.array_split(np.arange(size), GRID) for size in (height, width))
    largest = max(float(np.abs(effect).max()), 1e-12)
    shades = np.zeros((height, width))
    for r, row in enumerate(rows):
        for c, column in enumerate(columns):
            shades[row[:, None], column] = effect[r, c]
    grid[1, 0].imshow(shades, cmap="RdBu", vmin=-largest, vmax=largest, alpha=0.5)
    for place, s in enumerate(order):
        effect_of = float(found.support_effect[query, s])
        _show(grid[place % 2, 1 + place // 2], support[s], f"row {s + 1}: {effect_of:+.3f}")


def _show(axes: Axes, image: Float[Tensor, "C H W"], title: str) -> None:
    pixels = image.permute(1, 2, 0).numpy()
    axes.imshow(pixels if pixels.shape[2] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=1)
    axes.set_title(title, fontsize=7)


def _by_size(effect: Float[Tensor, "n"]) -> list[int]:
    """The places of the effects that are known, the largest first."""
    places = (~effect.isnan()).nonzero()[:, 0].tolist()
    return sorted(places, key=lambda place: -abs(float(effect[place])))
