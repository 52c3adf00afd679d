"""Things named `module:name`: importing them, and finding the name by which a thing can be imported again."""

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import sys
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from metarl.errors import UsageError
from metarl.parsing import printable

_importing: list[str] = []
"""The modules that `import_named` is importing."""


def import_named(target: str) -> Any:
    """Imports what `target`, `"module:name"`, names, from the installed packages or the working directory.

    Raises `UsageError` if the module or the name is missing. Errors in the module's own code are passed on.
    """
    module_name, colon, name = target.partition(":")
    if not (module_name and colon and name):
        raise UsageError(f"{target!r} is not of the form MODULE:NAME")
    _search_here()
    try:
        with _noted(module_name):
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # something that the module itself imports
        file = Path(module_name)
        is_file = file.suffix == ".py" and file.is_file()
        hint = f"; {file} is a file, its module is {'.'.join(file.with_suffix('').parts)}" if is_file else ""
        raise UsageError(f"there is no module {module_name!r} here or among the installed ones{hint}") from None
    if not hasattr(module, name):
        near = near_matches(name, vars(module))
        hint = f"; did you mean {' or '.join(near)}?" if near else _hidden_file(module_name, module)
        raise UsageError(f"{module_name} has no {name!r}{hint}")
    return getattr(module, name)


def import_from_file(target: str, base: type, owner: str, way_out: str) -> None:
    """Imports what a file, `owner`, names `target`, if it is an instance or subclass of `base`, or may make one.

    Whoever wrote the file chose the name: importing a module runs it, and calling a function runs that. So a module
    that is not imported yet has to mention metarl in its source, as every module with a part of its own does. A
    function has to be annotated with what it returns, or to be of a module of a user's own that mentions metarl. Raises
    `UsageError`, with `way_out`, for anything else.
    """
    module_name = target.partition(":")[0]
    what = f"{owner} names {printable(target)!r}, which is no {base.__name__} as far as one can see"
    refused = UsageError(f"{what}: {way_out}")
    _search_here()
    if module_name not in sys.modules and _is_missing(module_name):
        where = f"there is no module {printable(module_name)!r} here or among the installed ones"
        raise UsageError(f"{owner} names {printable(target)!r}, but {where}: go to the folder that has it")
    if module_name not in sys.modules and "metarl" not in _source(module_name):
        raise refused
    found = import_named(target)
    if inspect.isfunction(found):
        if "return" not in found.__annotations__ and _is_of_a_user(found.__module__):
            return
        with contextlib.suppress(Exception):  # whatever the annotations of others raise
            found = typing.get_type_hints(found).get("return")
    if not (isinstance(found, base) or (isinstance(found, type) and issubclass(found, base))):
        raise refused


def importable_name(thing: Any) -> str | None:
    """`module:name`, if that imports `thing` again, also in another process; else None.

    It names functions and classes at the top level of a module. The module of a script is named by the script's file.

    >>> from metarl.importing import importable_name
    >>> importable_name(metarl.AgentConfig), importable_name(lambda: None)
    ('metarl.agent:AgentConfig', None)
    """
    module_name, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not isinstance(module_name, str) or not isinstance(name, str):
        return None
    module = sys.modules.get(module_name)
    if module is None or getattr(module, name, None) is not thing:
        return None
    importable = _name_of_script(module) if module_name == "__main__" else module_name
    return None if importable is None else f"{importable}:{name}"


def check_not_importing(what: str) -> None:
    """Raises `UsageError` if a module that `import_named` imports calls `what` as it is imported.

    It is a script without a guard. To import a family from it would start its training once more.
    """
    if _importing:
        module = _importing[-1]
        raise UsageError(
            f"{module} calls {what} when it is imported: put the call under if __name__ == '__main__': in {module}"
        )


def near_matches(name: str, known: Iterable[str]) -> list[str]:
    """Up to three of `known` that are most similar to `name`, ignoring case."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    return [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)]


def _is_of_a_user(module_name: str) -> bool:
    """Whether a module is not metarl's own and mentions it."""
    return module_name.partition(".")[0] != "metarl" and "metarl" in _source(module_name)


def _is_missing(module_name: str) -> bool:
    """Whether there is no module of this name, nor the package that it would be in; nothing is imported."""
    try:
        return all(finder.find_spec(module_name.partition(".")[0], None) is None for finder in sys.meta_path)
    except Exception:  # a name that no file system takes
        return True


def _source(module_name: str) -> str:
    """The source of a module, which is found without running it or a package that it is in; "" if there is none."""
    path: Any = None
    spec = None
    names = module_name.split(".")
    for count in range(1, len(names) + 1):
        name = ".".join(names[:count])
        try:
            found = (finder.find_spec(name, path) for finder in sys.meta_path)
            spec = next((spec for spec in found if spec is not None), None)
        except Exception:  # a name that no file system takes
            spec = None
        if spec is None:
            return ""
        path = spec.submodule_search_locations
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return ""
    try:
        return Path(spec.origin).read_text(errors="replace")
    except OSError:
        return ""


def _search_here() -> None:
    here = str(Path.cwd())
    if here not in sys.path:  # last, so that no file there hides an installed module
        sys.path.append(here)


@contextlib.contextmanager
def _noted(module_name: str) -> Iterator[None]:
    if module_name in sys.modules:  # its code does not run again
        yield
        return
    _importing.append(module_name)
    try:
        yield
    finally:
        _importing.pop()


def _hidden_file(module_name: str, module: ModuleType) -> str:
    """A hint if a file of the working directory was meant, and an installed module has its name."""
    file = Path(f"{module_name.replace('.', '/')}.py")
    origin = getattr(module, "__file__", None)
    if not file.is_file() or (origin is not None and file.samefile(origin)):
        return ""
    return f"; it is an installed module that hides {file}: rename the file"


def _name_of_script(main: ModuleType) -> str | None:
    """The name under which the module `__main__` can be imported, if there is one. Nothing is imported to find out."""
    spec = getattr(main, "__spec__", None)
    if spec is not None:  # python -m
        return spec.name
    file = getattr(main, "__file__", None)
    if file is None:
        return None
    _search_here()
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(Path(file).stem)
        if spec is not None and spec.origin is not None and Path(spec.origin).samefile(file):
            return spec.name
    return None
