"""Kernels for a GPU that is not there. What they are found by on a GPU cannot be tested without one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from metarl import UsageError
from metarl.envs.physics.phantom import pretend_gpu

PROGRAM = """
import sys
from metarl.envs.physics.phantom import pretend_gpu
import warp as wp

@wp.kernel
def double(values: wp.array(dtype=float)):
    values[wp.tid()] *= 2.0

compilation = pretend_gpu(90, compiles=sys.argv[1] == "compile")
values = wp.ones(3, dtype=float, device="cpu")
for _ in range(2):
    wp.launch(double, dim=3, inputs=[values], device="cpu")
made = [module.seconds > 0 for module in compilation.modules.values()]
print(values.numpy().tolist(), made, len(compilation.missing))
"""


def launched(how: str, cache: Path, program: Path) -> str:
    program.write_text(PROGRAM)
    environment = os.environ | {"WARP_CACHE_PATH": str(cache)}
    command = [sys.executable, str(program), how]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.slow
def test_kernels_are_compiled_once_found_again_and_never_run(tmp_path: Path):
    cache, program = tmp_path / "cache", tmp_path / "program.py"
    assert launched("check", cache, program) == "[1.0, 1.0, 1.0] [] 1"
    assert not list(cache.rglob("*.cubin"))
    assert launched("compile", cache, program) == "[1.0, 1.0, 1.0] [True] 0"
    (binary,) = cache.rglob("*.cubin")
    assert ".sm90" in binary.name
    assert binary.read_bytes()[:4] == b"\x7fELF"
    assert launched("check", cache, program) == "[1.0, 1.0, 1.0] [False] 0"


def test_an_architecture_that_the_compiler_does_not_know_is_refused():
    with pytest.raises(UsageError, match=r"does not know the architecture sm_12; it knows sm_.*sm_90"):
        pretend_gpu(12)
