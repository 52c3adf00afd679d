"""The page of a report in a real browser: it fits, draws and answers without a network, in light and dark."""

import io
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Page, open_page
from PIL import Image
from run_helpers import config

import metarl
from metarl.experiment.report_page import page
from metarl.experiment.report_sections import Chart, Line, Section
from metarl.experiment.report_tables import Table
from metarl.scripts.cli import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]
BUTTON = "document.querySelector('figure.chart .legend button')"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    paths = [metarl.train(config(folder / f"run{i}", seed=i, iterations=5 + i), progress=False) for i in range(2)]
    for path in paths:
        assert main(["evaluate", str(path), "--tasks", "6"]) == 0
    film = paths[0] / "videos" / "film.mp4"
    film.parent.mkdir()
    assert main(["adapt", str(paths[0]), "--task", '{"goal": [0.3, 0.1]}', "--video", str(film)]) == 0
    assert main(["report", *map(str, paths), "--output", str(folder / "out")]) == 0
    return folder / "out" / "report.html"


def chart(browser: Page) -> np.ndarray:
    """The pixels of the first chart."""
    box = browser.run("document.querySelector('figure.chart canvas').getBoundingClientRect().toJSON()")
    left, top, width, height = (int(box[side]) for side in ("left", "top", "width", "height"))
    picture = np.asarray(Image.open(io.BytesIO(browser.picture())).convert("RGB")).astype(int)
    return picture[top : top + height, left : left + width]


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_and_has_no_error(report: Path, width: int, dark: bool):
    assert report.stat().st_size < 6_000_000
    with open_page() as browser:
        browser.open(report.as_uri(), width=width, dark=dark)
        assert browser.run("document.documentElement.scrollWidth") <= width
        background = np.asarray(Image.open(io.BytesIO(browser.picture())).convert("L"))[2, 2]
        assert (background < 60) == dark
        assert chart(browser).std() > 5, "a curve is drawn"
        assert browser.run("document.querySelector('video').readyState") > 0, "the film can be played"
        assert browser.errors == []


def test_a_legend_hides_a_line_and_the_pointer_tells_values(report: Path):
    with open_page() as browser:
        browser.open(report.as_uri())
        shown = chart(browser)
        browser.run(f"{BUTTON}.click()")
        assert browser.run(f"{BUTTON}.getAttribute('aria-pressed')") == "false"
        browser.wait_for("new Promise(resolve => requestAnimationFrame(() => resolve(true)))")
        hidden = chart(browser)
        assert np.abs(hidden - shown).max() > 50
        browser.run(f"{BUTTON}.click()")
        browser.wait_for("new Promise(resolve => requestAnimationFrame(() => resolve(true)))")
        x, y = browser.run(
            "(() => { const box = document.querySelector('figure.chart .u-over').getBoundingClientRect();"
            "return [box.left + box.width / 2, box.top + box.height / 2]; })()"
        )
        browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        browser.wait_for(f"/\\d/.test({BUTTON}.querySelector('output').textContent)")
        browser.run("document.querySelector('.heat td').click()")
        assert " on goal (" in browser.run("document.querySelector('.tip').textContent")
        assert browser.errors == []


def test_no_two_lines_of_a_chart_look_alike(tmp_path: Path):
    """With more lines than colours, those of one colour have other dashes."""
    steps = [0.0, 1.0]
    lines = [Line(f"agent {i}", i, *[[float(i)] * 2] * 3) for i in range(18)]
    chart = Chart("Training", "environment steps", steps, lines)
    shown = page([Section("Place-v0", [], Table([], []), [chart], [], None, [])], tmp_path)
    (tmp_path / "report.html").write_text(shown)
    with open_page() as browser:
        browser.open((tmp_path / "report.html").as_uri())
        keys = browser.run("[...document.querySelectorAll('.legend i')].map(key => key.style.background)")
        assert browser.errors == []
    assert len(set(keys)) == len(lines)
