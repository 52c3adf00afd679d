"""The site is built without a warning, and its pages ask nothing of a network."""

import re
import shutil
import subprocess
import sys

import pytest
from pages import ROOT

pytest.importorskip("mkdocs", reason="pip install -e '.[docs]'")
ASKED_FOR = re.compile(
    r"""<(?:script|link|img|iframe)[^>]*(?:src|href)=["']?(?:https?:)?//[^>]*>|@import|url\(["']?https?:"""
)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_asks_no_network(tmp_path):
    shutil.rmtree(ROOT / "build" / "reference", ignore_errors=True)  # as in a fresh clone
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    environment = {
        "NO_MKDOCS_2_WARNING": "1",
        "PATH": "/usr/bin:/bin",
        "no_proxy": "",
        "https_proxy": "http://127.0.0.1:9",
    }
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        assert not ASKED_FOR.findall(page.read_text()), page
    reference = (tmp_path / "api.html").read_text()
    assert "Draws <code>num_tasks</code> tasks of <code>split</code>" in reference
    assert "<blockquote>" not in reference  # examples are code, not quotations of quotations
