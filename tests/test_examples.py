"""The examples in docstrings run as they stand, given torch and metarl, and every public class has one."""

import ast
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import metarl
from metarl import registry

ROOT = Path(__file__).parent.parent
SOURCES = {
    ".".join([{"metarl": "metarl", "agents": "metarl.agents"}[folder], *path.relative_to(ROOT / folder).parts])
    .removesuffix(".py")
    .removesuffix(".__init__"): path
    for folder in ("metarl", "agents")
    for path in sorted((ROOT / folder).rglob("*.py"))
}

NEED_MORE: set[str] = set()
"""Examples that need something they cannot make: files of a data set, or a user's own package."""
WITHOUT = {
    "metarl.contract.examination.Examination",
    "metarl.contract.examination.Recording",
}
"""Classes that one module hands to another, about which an example would say nothing."""


def examples() -> Iterator[doctest.DocTest]:
    finder = doctest.DocTestFinder()
    for name in SOURCES:
        module = importlib.import_module(name)
        for test in finder.find(module, name, globs={"metarl": metarl, "torch": torch}):
            if test.examples:
                yield test


EXAMPLES = {test.name: test for test in examples()}


@pytest.fixture(autouse=True)
def a_folder_and_a_registry_to_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    metarl.list_agents()  # loads the plugins
    before = {kind: dict(ids) for kind, ids in registry._KINDS.items()}
    yield
    for kind, ids in registry._KINDS.items():
        ids.clear()
        ids.update(before[kind])


@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - NEED_MORE))
def test_an_example_says_what_comes_out(name: str):
    output: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(EXAMPLES[name], out=output.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(output)


def test_every_public_class_has_an_example():
    classes = {
        f"{module}.{node.name}"
        for module, path in SOURCES.items()
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    }
    assert len(classes) > 100
    assert classes - EXAMPLES.keys() == WITHOUT
    assert NEED_MORE <= EXAMPLES.keys()
