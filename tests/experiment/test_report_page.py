"""The page of a report in a real browser: it fits, draws and answers without a network, in light and dark."""

import io
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Page, open_page
from PIL import Image
from run_helpers import config

import metarl
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


def chart(page: Page) -> np.ndarray:
    """The pixels of the first chart."""
    box = page.run("document.querySelector('figure.chart canvas').getBoundingClientRect().toJSON()")
    left, top, width, height = (int(box[side]) for side in ("left", "top", "width", "height"))
    picture = np.asarray(Image.open(io.BytesIO(page.picture())).convert("RGB")).astype(int)
    return picture[top : top + height, left : left + width]


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_and_has_no_error(report: Path, width: int, dark: bool):
    assert report.stat().st_size < 6_000_000
    with open_page() as page:
        page.open(report.as_uri(), width=width, dark=dark)
        assert page.run("document.documentElement.scrollWidth") <= width
        background = np.asarray(Image.open(io.BytesIO(page.picture())).convert("L"))[2, 2]
        assert (background < 60) == dark
        assert chart(page).std() > 5, "a curve is drawn"
        assert page.run("document.querySelector('video').readyState") > 0, "the film can be played"
        assert page.errors == []


def test_a_legend_hides_a_line_and_the_pointer_tells_values(report: Path):
    with open_page() as page:
        page.open(report.as_uri())
        shown = chart(page)
        page.run(f"{BUTTON}.click()")
        assert page.run(f"{BUTTON}.getAttribute('aria-pressed')") == "false"
        page.wait_for("new Promise(resolve => requestAnimationFrame(() => resolve(true)))")
        hidden = chart(page)
        assert np.abs(hidden - shown).max() > 50
        page.run(f"{BUTTON}.click()")
        page.wait_for("new Promise(resolve => requestAnimationFrame(() => resolve(true)))")
        x, y = page.run(
            "(() => { const box = document.querySelector('figure.chart .u-over').getBoundingClientRect();"
            "return [box.left + box.width / 2, box.top + box.height / 2]; })()"
        )
        page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        page.wait_for(f"/\\d/.test({BUTTON}.querySelector('output').textContent)")
        page.run("document.querySelector('.heat td').click()")
        assert " on goal (" in page.run("document.querySelector('.tip').textContent")
        assert page.errors == []
