"""The code of the README and the guides runs as it stands, and the README's tables are those of docs/."""

import contextlib
import io
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from pages import GUIDES, ROOT, name_of, python_blocks

WITH_CODE = [page for page in GUIDES if python_blocks(page)]


SHORT = {"STEPS": 20, "EPISODES": 20}
"""What constants of a page are here, so that its training is short."""


def run(page: Path, folder: Path, constants: dict[str, int], after: str = "") -> None:
    """Runs the Python blocks of a page, with other `constants`, and the code `after` them."""
    code = "\n".join([*python_blocks(page), after])
    for name, value in constants.items():
        code = re.sub(rf"^{name} = \d+$", f"{name} = {value}", code, flags=re.MULTILINE)
    (folder / "guide.py").write_text(code)
    # In an interpreter of its own, for the guide registers its family.
    command = [sys.executable, "-W", "error", "guide.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_most_pages_have_code():
    assert len(WITH_CODE) > len(GUIDES) / 2


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_the_python_blocks_of_a_page_run_one_after_another(page, tmp_path):
    run(page, tmp_path, SHORT)


@pytest.mark.slow
def test_the_figures_of_the_table_of_ten_sites(tmp_path):
    """Prediction sets have the truth about as often as they say, and calibrated probabilities can be believed."""
    after = """
assert abs(sets["coverage"]["mean"] - 0.9) <= 0.03, sets
assert found["calibration"]["calibrated"]["ece"] < 0.05 < found["calibration"]["raw"]["ece"]
"""
    run(ROOT / "docs/YOUR_OWN_TABLE.md", tmp_path, {}, after)
    assert (tmp_path / "why.png").is_file()


def test_the_tables_of_figures_are_current(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "tables")
    tables = runpy.run_path(str(ROOT / "docs" / "tables" / "__main__.py"))
    texts = [page.read_text() for page in tables["PAGES"]]
    assert sorted(re.findall(r"<!-- table: (\w+) -->", "".join(texts))) == sorted(tables["TABLES"])
    scripts = {path.stem for path in (ROOT / "scripts" / "experiments").glob("*.py")} - {"__init__", "experiment"}
    assert set(re.findall(r"<!-- script: (\w+) -->", "".join(texts))) == scripts
    for text in texts:
        assert tables["render"](text) == text


def test_the_picture_of_the_concepts_is_that_of_its_script():
    drawn = runpy.run_path(str(ROOT / "docs" / "pictures" / "trial.py"))["picture"]()
    assert (ROOT / "docs" / "pictures" / "trial.svg").read_text() == drawn


def test_the_summaries_that_a_page_shows_are_printed(tmp_path, monkeypatch):
    """A block of Python that prints a summary is followed by what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    page = (ROOT / "docs" / "YOUR_OWN_PICTURES.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```(?:\n\n```\n(.*?)^```)?$", page, re.MULTILINE | re.DOTALL)
    names: dict = {}
    for code, shown in blocks[:3]:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(code, names)
        assert output.getvalue() == shown
    assert sum(bool(shown) for _, shown in blocks) == 2
