"""Warp on machines without a GPU, and without a folder of its own."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import torch
from metarl.envs.metaworld.compiled import CompiledRows
twice = CompiledRows("twice", lambda at: {"twice": 2 * at["x"]}, [("x", 1, torch.float64)])
print(twice.bind({"x": torch.ones(3, 1, dtype=torch.float64)})()["twice"].tolist())
"""


def test_it_says_nothing_and_does_without_a_folder_for_kernels(tmp_path: Path):
    (tmp_path / "file").touch()
    environment = os.environ | {"WARP_CACHE_PATH": str(tmp_path / "file" / "cache"), "TMPDIR": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    assert (found.stdout, found.stderr) == ("[[2.0], [2.0], [2.0]]\n", "")
    assert not list(tmp_path.glob("warp-*")), "what was compiled is removed in the end"
