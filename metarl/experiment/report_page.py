"""The page of a report: one HTML file that opens without a network, in light and dark, on a phone and on a screen.

Curves are drawn in the browser by uPlot (MIT, 50 kB, kept with the package): it has hovering, zooming and bands. Plotly
would draw heat maps and paths as well, but its smallest bundle is twenty times as large; here these two are a table and
an SVG. A policy in the page's head forbids it to load anything.
"""

import base64
import dataclasses
import html
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from metarl.errors import UsageError
from metarl.experiment.report import RunRecord
from metarl.experiment.report_sections import Chart, HeatMap, Section
from metarl.experiment.report_tables import Table
from metarl.parsing import parse_json

FILM_BYTES = 4_000_000
"""Films that one page holds, before base64 makes four bytes of three. The rest are links."""
PATHS = "paths.json"
"""Paths of a run's agent in the plane, where its family has them."""
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; media-src data: 'self'"
)
_FEWEST_TO_FOLD = 8


def page(sections: Sequence[Section], folder: Path) -> str:
    """The page that shows `sections`. `folder` is where it is to be saved, from which it names films too large for it.

    Raises `UsageError` for paths or films that cannot be read.
    """
    films = _Films(folder)
    parts = [_section(number, section, films) for number, section in enumerate(sections)]
    runs = sum(len(section.runs) for section in sections)
    title = f"Report on {runs} run{'s' * (runs != 1)}"
    links = "".join(f'<a href="#p{i}">{html.escape(section.place)}</a>' for i, section in enumerate(sections))
    style, script = (_resource(f"uplot.{kind}") + _resource(f"report.{kind}") for kind in ("css", "js"))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f"<header><h1>{title}</h1><nav>{links}</nav></header>\n<main>\n{''.join(parts)}</main>\n"
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def _section(number: int, section: Section, films: "_Films") -> str:
    remarks = "".join(f'<p class="remark">{html.escape(remark)}</p>' for remark in section.remarks)
    charts = "".join(map(_chart, section.charts))
    maps = "".join(map(_heat_map, section.heat_maps))
    paths = "".join(_paths(run) for run in section.runs)
    shown = "".join(films.figures(run) for run in section.runs)
    parts = [
        f'<section id="p{number}"><h2>{html.escape(section.place)}</h2>',
        section.results.html(),
        remarks,
        f'<div class="charts">{charts}</div>',
        maps,
        f'<h3>Paths</h3><div class="charts">{paths}</div>' if paths else "",
        f'<h3>Films</h3><div class="films">{shown}</div>' if shown else "",
        _settings(section.settings),
        "</section>\n",
    ]
    return "\n".join(part for part in parts if part)


def _chart(chart: Chart) -> str:
    """The frame of a chart and its values, which the page's script draws."""
    return f'<figure class="chart"><figcaption>{html.escape(chart.title)}</figcaption>{_data(chart)}</figure>'


def _data(value: Any) -> str:
    # A "<" could end the script or open a comment.
    text = json.dumps(dataclasses.asdict(value), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json">{text}</script>'


def _heat_map(heat_map: HeatMap) -> str:
    """A table of coloured cells; the page's script says whose value the pointer is on."""
    values = heat_map.values
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    rows = []
    for label, row in zip(heat_map.rows, values, strict=True):
        cells = []
        for task, value in zip(heat_map.tasks, row, strict=True):
            share = 1.0 if high == low else (float(value) - low) / (high - low)
            tip = html.escape(f"{label}: {value:.4g} on {task}", quote=True)
            cells.append(f'<td style="--share:{share:.3f}" data-tip="{tip}"></td>')
        rows.append(f"<tr><th>{html.escape(label)}</th>{''.join(cells)}</tr>")
    scale = f'<span class="scale"><span>{low:.4g}</span><span class="ramp"></span><span>{high:.4g}</span></span>'
    return (
        f'<figure class="heat"><figcaption>{html.escape(heat_map.title)} {scale}</figcaption>'
        f'<div class="wide"><table>{"".join(rows)}</table></div><p class="tip">&nbsp;</p></figure>'
    )


def _settings(table: Table | None) -> str:
    if table is None:
        return ""
    few = " open" if len(table.rows) < _FEWEST_TO_FOLD else ""
    return f"<details{few}><summary>Settings that differ ({len(table.rows)})</summary>{table.html()}</details>"


def _paths(run: RunRecord) -> str:
    """A drawing for each stage: the paths of a few episodes of each task, and its goal."""
    file = run.path / PATHS
    if not file.exists():
        return ""
    try:
        found = parse_json(file.read_bytes(), str(file))
        drawings = "".join(_drawing(found, stage) for stage in range(len(found["episodes_used"])))
    except (ValueError, KeyError, TypeError, IndexError):
        raise UsageError(f"{file} is damaged: it holds no paths; metarl evaluate {run.path} writes it again") from None
    return f'<figure><figcaption>{html.escape(run.path.name)}</figcaption><div class="paths">{drawings}</div></figure>'


def _drawing(found: Mapping[str, Any], stage: int) -> str:
    extent, radius = float(found["extent"]), float(found["goal_radius"])
    shapes = []
    for task, goal in enumerate(found["goals"]):
        colour = f"var(--c{task % 6})"
        for path in found["paths"][stage][task]:
            points = " ".join(f"{float(x):.3f},{-float(y):.3f}" for x, y in path)
            shapes.append(f'<polyline points="{points}" style="stroke:{colour}"/>')
        x, y = float(goal[0]), -float(goal[1])
        shapes.append(f'<circle class="radius" cx="{x:.3f}" cy="{y:.3f}" r="{radius:.3f}" style="stroke:{colour}"/>')
        shapes.append(f'<circle cx="{x:.3f}" cy="{y:.3f}" r="{0.03 * extent:.3f}" style="fill:{colour}"/>')
    shapes.append(f'<circle cx="0" cy="0" r="{0.02 * extent:.3f}" class="start"/>')
    used = int(found["episodes_used"][stage])
    box = f"{-extent} {-extent} {2 * extent} {2 * extent}"
    caption = f"after {used} episode{'s' * (used != 1)}"
    return f'<div><svg viewBox="{box}" role="img" aria-label="paths {caption}">{"".join(shapes)}</svg>{caption}</div>'


class _Films:
    """Embeds films while there is room for them."""

    def __init__(self, folder: Path):
        self._folder, self._room = folder, FILM_BYTES

    def figures(self, run: RunRecord) -> str:
        return "".join(self._figures(run))

    def _figures(self, run: RunRecord) -> Iterator[str]:
        for file in sorted((run.path / "videos").glob("*.mp4")):
            caption = html.escape(f"{run.path.name}: {file.stem}")
            try:
                film = file.read_bytes() if file.stat().st_size <= self._room else None
            except OSError as error:
                raise UsageError(f"cannot read {file}: {error.strerror}") from None
            if film is None:
                link = html.escape(Path(os.path.relpath(file, self._folder)).as_posix(), quote=True)
                yield f'<p>{caption} is too large for this page: <a href="{link}">{html.escape(str(file))}</a></p>'
                continue
            self._room -= len(film)
            source = f"data:video/mp4;base64,{base64.b64encode(film).decode()}"
            video = f'<video controls muted loop playsinline preload="metadata" src="{source}"></video>'
            yield f"<figure>{video}<figcaption>{caption}</figcaption></figure>"


def _resource(name: str) -> str:
    return (files("metarl.experiment") / "page" / name).read_text()
