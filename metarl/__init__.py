"""metarl: task distributions, one vectorized rollout engine, and agents that learn to adapt.

The names of `metarl.api` are imported on first use: the command line answers `--help` without waiting for torch.
`__init__.pyi` declares them for type checkers.
"""

import importlib
from typing import Any

from metarl.gymnasium_ids import register_built_in

_ELSEWHERE = {
    "fewshot": "metarl.fewshot",
    "GymnasiumDistribution": "metarl.envs.gymnasium_env:GymnasiumDistribution",
    "from_sb3": "metarl.agents.sb3_policy:from_sb3",
    "to_gymnasium": "metarl.gymnasium_adapter:to_gymnasium",
    "to_sb3": "metarl.sb3:to_sb3",
    "to_torchrl": "metarl.torchrl_adapter:to_torchrl",
}
"""Public names that `metarl.api` does not import: the core imports no environment, and nobody waits for few-shot
learners, Stable-Baselines3 or TorchRL."""


def __getattr__(name: str) -> Any:
    if name.startswith("__") and name != "__all__":
        raise AttributeError(f"module 'metarl' has no attribute {name!r}")
    if name in _ELSEWHERE:
        module, _, member = _ELSEWHERE[name].partition(":")
        found = importlib.import_module(module)
        return getattr(found, member) if member else found
    api = importlib.import_module("metarl.api")
    if name == "__all__" or name in api.__all__:
        return getattr(api, name)
    if name in globals():  # a submodule that has been imported
        return globals()[name]
    raise AttributeError(f"module 'metarl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ELSEWHERE, *importlib.import_module("metarl.api").__all__})


register_built_in()
