"""The examples in docstrings run as they stand, given torch and metarl, and every public class has one."""

import ast
import doctest
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import metarl
from metarl import registry
from metarl.scripts.cli import main

ROOT = Path(__file__).parent.parent
SOURCES = {
    ".".join([{"metarl": "metarl", "agents": "metarl.agents"}[folder], *path.relative_to(ROOT / folder).parts])
    .removesuffix(".py")
    .removesuffix(".__init__"): path
    for folder in ("metarl", "agents")
    for path in sorted((ROOT / folder).rglob("*.py"))
}

NEED_FILES = {
    f"metarl.fewshot.data.{name}" for name in ("imagenet.MiniImageNet", "imagenet.TieredImageNet", "omniglot.Omniglot")
}
"""Examples that read data sets which have to be downloaded."""
EXTRAS = {"metarl.torchrl_adapter": "torchrl"}
"""Modules that only import with an extra, and its package."""
SLOW = {"metarl.fewshot.data.glyphs.Glyphs"}
WITHOUT = {
    f"metarl.{name}"
    for name in (
        "contract.examination.Examination",
        "contract.examination.Recording",
        "experiment.agent_training.AgentTraining",
        "experiment.agent_run.Recorded",
        "experiment.engine.Training",
        "experiment.interrupts.Interrupts",
        "experiment.metrics.MetricsLog",
        "experiment.progress.Progress",
        "experiment.report.Kind",
        "experiment.report.RunRecord",
        "experiment.report_sections.Chart",
        "experiment.report_sections.HeatMap",
        "experiment.report_sections.Line",
        "experiment.report_sections.Section",
        "fewshot.data.folder.Places",
        "fewshot.data.imagenet.Listing",
        "fewshot.run.FewShotExperiment",
        "fewshot.training.FewShotTraining",
    )
}
"""Classes that only metarl's own code makes, about which an example would say nothing."""


MISSING = {name for name, package in EXTRAS.items() if importlib.util.find_spec(package) is None}


def examples() -> Iterator[doctest.DocTest]:
    finder = doctest.DocTestFinder()
    for name in SOURCES.keys() - MISSING:
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


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in sorted(EXAMPLES.keys() - NEED_FILES)],
)
def test_an_example_says_what_comes_out(name: str):
    output: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(EXAMPLES[name], out=output.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(output)


def test_every_public_class_has_an_example():
    classes = {
        f"{module}.{node.name}"
        for module, path in SOURCES.items()
        if module not in MISSING
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    }
    assert len(classes) > 100
    without = classes - EXAMPLES.keys()
    assert without == WITHOUT
    assert EXAMPLES.keys() >= NEED_FILES | SLOW


def test_help_shows_no_examples(capsys: pytest.CaptureFixture):
    """The docstring of a nested options class is part of --help: its example stands under a heading `Example:`."""
    with pytest.raises(SystemExit):
        main(["train", "maml", "--env", "PointNavigation-v0", "--help"])
    help_text = capsys.readouterr().out
    assert "Options of a trust-region step." in help_text
    assert ">>>" not in help_text
