"""Pictures of Meta-World tasks, where the machine has a library that draws."""

import ctypes.util
import os
import subprocess
import sys

import pytest

LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}
LOOK = """
import torch, metarl
family = metarl.make("ML1-reach-v3")
env = family.make_env(2, 1, backend="mujoco", render_mode="rgb_array")
low, high = [0.0, 0.65, 0.02, 0.0, 0.85, 0.06], [0.0, 0.65, 0.02, 0.0, 0.85, 0.29]
vectors = torch.tensor([low, high], dtype=torch.float64)
env.set_tasks(metarl.Tasks({"task_index": torch.zeros(2, dtype=torch.int64), "rand_vec": vectors}))
env.reset()
for picture in env.render():
    red, green, blue = (torch.tensor(picture[..., c].astype(int)) for c in range(3))
    rows, columns = ((green > red + 60) & (green > blue + 60)).nonzero(as_tuple=True)
    print(len(rows), rows.float().mean().item(), columns.float().mean().item())
env.close()
"""


def test_the_goal_is_marked_where_it_is_and_the_picture_is_upright() -> None:
    engine = next((name for name, library in LIBRARIES.items() if ctypes.util.find_library(library)), None)
    if engine is None:
        pytest.skip("neither libEGL nor libOSMesa is installed")
    command = [sys.executable, "-W", "error", "-c", LOOK]
    found = subprocess.run(command, env=os.environ | {"MUJOCO_GL": engine}, capture_output=True, text=True)
    assert not found.returncode, found.stderr
    (size, row, column), (other_size, other_row, other_column) = (
        map(float, line.split()) for line in found.stdout.splitlines()
    )
    assert min(size, other_size) > 10
    assert other_row < row - 20  # 23 cm higher
    assert other_column == pytest.approx(column, abs=10)
