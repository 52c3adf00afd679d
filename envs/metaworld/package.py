"""The installed `metaworld` package: its version and its files, found without importing it."""

import functools
import importlib.metadata
import importlib.util
from pathlib import Path

from metarl.errors import UsageError

_FITTING = {"metaworld": ((3, 0), (3, 1)), "mujoco": ((3, 14), (3, 15))}
"""From the first version on, below the second. Both engines are made for this one version of MuJoCo; later ones of the
package want a MuJoCo that `mujoco_warp` has no version for."""


@functools.cache
def check_versions() -> None:
    """Raises `UsageError` if `metaworld` or `mujoco` is missing or of a version that does not fit."""
    for name, (first, last) in _FITTING.items():
        wanted = f"{name}>={first[0]}.{first[1]},<{last[0]}.{last[1]}"
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise UsageError(f"Meta-World's tasks need {name}: pip install '{wanted}'") from None
        major, minor = (int(part) for part in version.split(".")[:2])
        if not first <= (major, minor) < last:
            raise UsageError(f"Meta-World's tasks do not fit {name} {version}: pip install '{wanted}'")


def scene_file(name: str) -> Path:
    """The path of a scene's XML file in the package."""
    check_versions()
    spec = importlib.util.find_spec("metaworld")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "assets" / "sawyer_xyz" / name
