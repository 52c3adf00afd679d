"""metarl: task distributions, one vectorized rollout engine, and agents that learn to adapt.

The names of `metarl.api` are imported on first use: the command line answers `--help` without waiting for torch.
`__init__.pyi` declares them for type checkers.
"""

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__") and name != "__all__":
        raise AttributeError(f"module 'metarl' has no attribute {name!r}")
    if name == "fewshot":  # a separate package: the rest does not wait for its import
        return importlib.import_module("metarl.fewshot")
    api = importlib.import_module("metarl.api")
    if name == "__all__" or name in api.__all__:
        return getattr(api, name)
    if name in globals():  # a submodule that has been imported
        return globals()[name]
    raise AttributeError(f"module 'metarl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *importlib.import_module("metarl.api").__all__})
