"""The guides' code runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["ADDING_A_DISTRIBUTION.md"])
def test_the_python_blocks_of_a_guide_run_one_after_another(name, tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / name).read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 2
    (tmp_path / "guide.py").write_text("\n".join(blocks))
    # In an interpreter of its own, for the guide registers its family.
    command = [sys.executable, "-W", "error", "guide.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
