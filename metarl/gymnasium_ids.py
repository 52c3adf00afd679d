"""The families of metarl under Gymnasium's ids: `metarl/HalfCheetahVel-v0` is `HalfCheetahVel-v0`.

Gymnasium asks no package whether it knows an id, so the built-in families are registered as soon as both packages are
imported, in whichever order: `import metarl` alone imports neither Gymnasium nor torch. What is registered is the names
of two functions, imported when an environment is made. Other families are registered with `register_distribution`.
"""

import contextlib
import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from typing import Any

NAMESPACE = "metarl"


def register_built_in() -> None:
    """Registers the built-in families with Gymnasium, now or when it is imported."""
    if "gymnasium.envs.registration" in sys.modules:
        _register_built_in()
    else:
        sys.meta_path.insert(0, _WhenImported())


def register_id(id: str) -> None:
    """Registers a family with Gymnasium, unless it is registered already or Gymnasium does not allow such an id."""
    import gymnasium

    name = f"{NAMESPACE}/{id}"
    if name in gymnasium.registry:
        return
    with contextlib.suppress(gymnasium.error.Error):
        gymnasium.register(
            name,
            entry_point="metarl.gymnasium_adapter:SingleEnv",
            vector_entry_point="metarl.gymnasium_adapter:make_vec",
            # Its checks are the contract's too, but it warns of numbers that never vary, such as a goal that is hidden.
            disable_env_checker=True,
            kwargs={"family": id},
        )


def _register_built_in() -> None:
    for id in importlib.import_module("metarl.envs.ids").IDS:
        register_id(id)


class _WhenImported:
    """A finder of modules that lets the others find Gymnasium, and registers the families once that is imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "gymnasium":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: Any) -> None:
                execute(module)
                _register_built_in()

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
