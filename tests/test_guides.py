"""The code of the README and the guides runs as it stands, and the README's tables are those of docs/."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


PAGES = ["README.md", "docs/GPU.md", "docs/YOUR_OWN_ENVIRONMENT.md", "docs/A_ROBOT_OF_YOUR_OWN.md", "docs/TASKS.md"]
PAGES += ["docs/YOUR_OWN_TABLE.md"]
SHORT = {"STEPS": 20, "EPISODES": 20}
"""What constants of a page are here, so that its training is short."""


@pytest.mark.parametrize("page", PAGES)
def test_the_python_blocks_of_a_page_run_one_after_another(page, tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 2
    code = "\n".join(blocks)
    for name, value in SHORT.items():
        code = re.sub(rf"^{name} = \d+$", f"{name} = {value}", code, flags=re.MULTILINE)
    (tmp_path / "guide.py").write_text(code)
    # In an interpreter of its own, for the guide registers its family.
    command = [sys.executable, "-W", "error", "guide.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_tables_of_the_readme_are_current():
    tables = runpy.run_path(str(ROOT / "docs" / "tables.py"))
    readme = (ROOT / "README.md").read_text()
    assert readme.count("<!-- table:") == len(tables["TABLES"])
    assert tables["render"](readme) == readme
