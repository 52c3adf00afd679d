"""The house keeps its shape: imports point one way, environments are stepped in one place, nothing is unpickled."""

import ast
import graphlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PACKAGES = {"metarl": "metarl", "envs": "metarl.envs", "agents": "metarl.agents", "scripts": "metarl.scripts"}
MAY_IMPORT = {
    "metarl": {"metarl"},
    "envs": {"metarl", "envs"},
    "agents": {"metarl", "agents"},
    "scripts": {"metarl", "envs", "agents", "scripts"},
}


def module_name(path: Path) -> str:
    """The import name of a source file: envs/native/bandit.py is metarl.envs.native.bandit."""
    folder, *rest = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([PACKAGES[folder], *rest]).removesuffix(".__init__")


SOURCES = {module_name(path): path for folder in PACKAGES for path in sorted((ROOT / folder).rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(), path) for name, path in SOURCES.items()}
FILES = [pytest.param(name, id=str(path.relative_to(ROOT))) for name, path in SOURCES.items()]


def folder_of(module: str) -> str:
    folders = {name: folder for folder, name in PACKAGES.items() if folder != "metarl"}
    return folders.get(".".join(module.split(".")[:2]), "metarl")


def imported(node: ast.AST, module: str) -> Iterator[str]:
    """The modules of this project that an import statement names."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{module}: a relative import"
        below = [f"{node.module}.{alias.name}" for alias in node.names]
        names = [name if name in SOURCES else str(node.module) for name in below]
    else:
        return
    yield from (name for name in names if name.split(".")[0] == "metarl")


def executed_at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """All nodes but those inside functions."""
    nodes: list[ast.AST] = [tree]
    while nodes:
        node = nodes.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            nodes += ast.iter_child_nodes(node)


def calls(module: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a module and what is called, as written."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_the_sources_are_found():
    assert {"metarl", "metarl.tasks", "metarl.envs.native.bandit", "metarl.agents.random"} <= set(SOURCES)
    assert folder_of("metarl.envs.native") == "envs"
    assert folder_of("metarl.rollout") == "metarl"


@pytest.mark.parametrize("module", FILES)
def test_imports_point_one_way(module):
    for node in ast.walk(TREES[module]):
        for name in imported(node, module):
            assert folder_of(name) in MAY_IMPORT[folder_of(module)], f"{module} imports {name}"


def test_no_import_cycle():
    graph = {
        module: {name for node in executed_at_import(tree) for name in imported(node, module) if name in SOURCES}
        for module, tree in TREES.items()
    }
    graphlib.TopologicalSorter({module: names - {module} for module, names in graph.items()}).prepare()


@pytest.mark.parametrize("module", FILES)
def test_no_import_is_for_the_type_checker_alone(module):
    """What a module's annotations name it imports, so that imports show all that ties modules together."""
    assert "TYPE_CHECKING" not in SOURCES[module].read_text()


PROTOCOL_KNOWLEDGE = re.compile(r"meta-?world|terminate_on_success|first_to_finish", re.IGNORECASE)
# A run folder names the versions of what may have stepped it.
NAMES_PACKAGES = "metarl.experiment.agent_run"


@pytest.mark.parametrize("module", FILES)
def test_the_core_knows_no_family_and_no_protocol_of_one(module):
    """A family brings its own way to measure agents: `TaskDistribution.protocols`."""
    if folder_of(module) != "metarl" or module == NAMES_PACKAGES:
        return
    lines = SOURCES[module].read_text().splitlines()
    found = [number for number, line in enumerate(lines, 1) if PROTOCOL_KNOWLEDGE.search(line)]
    assert not found, f"{SOURCES[module]}, lines {found}"


# The optimizers of `higher` take the loss.
STEPS_A_PEER = "metarl.scripts.benchmark_fewshot"
# Adapters are stepped by another library's loop.
ADAPTERS = {"metarl.adapters"}
# Imagines steps from states that it sets itself; `collect` would reset them.
PLANS = "metarl.scripts.experiments.plan_by_shooting"


@pytest.mark.parametrize("module", FILES)
def test_environments_are_stepped_in_one_place(module):
    """`env.step(actions)` is for `collect` and for the contract; a family may step what it is made of."""
    if module == "metarl.rollout.collect" or module.startswith("metarl.contract.") or folder_of(module) == "envs":
        return
    if module in {STEPS_A_PEER, PLANS} or module in ADAPTERS:
        return
    # An optimizer's step has no arguments, and a sequence core's reads one more input.
    named = [(name, call) for name, call in calls(module) if name.endswith(".step") and not name.endswith("core.step")]
    stepped = [call.lineno for _, call in named if call.args or call.keywords]
    assert not stepped, f"{SOURCES[module]}, lines {stepped}: say metarl.collect"


def test_nobody_waits_for_stable_baselines3_who_does_not_use_it():
    wanting = {"metarl.sb3", "metarl.scripts.benchmark_sb3"}
    wanting |= {f"metarl.agents.{name}" for name in ("sb3", "sb3_models", "sb3_policy")}
    for module, tree in TREES.items():
        for node in executed_at_import(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            found = [name for name in names if name.split(".")[0] == "stable_baselines3" or name in wanting]
            assert not found or module in wanting, f"{module} imports {found}"


UNPICKLING = re.compile(
    r"((cloud)?pickle|dill|joblib|shelve|marshal)\.(loads?|open|Unpickler)|torch\.load|yaml\.(unsafe_|full_)?load"
)
# What this module unpickles has come through a pipe from its own parent process, never from a file.
TALKS_TO_ITS_PARENT = "metarl.envs.gymnasium_worker"


@pytest.mark.parametrize("module", FILES)
def test_nothing_is_unpickled(module):
    """What a run folder or a data set holds must not be able to run code."""
    if module == TALKS_TO_ITS_PARENT:
        assert not {"open", "read_bytes"} & {name.split(".")[-1] for name, _ in calls(module)}, "it reads no file"
        return
    for name, call in calls(module):
        assert not UNPICKLING.fullmatch(name), f"{SOURCES[module]}:{call.lineno} calls {name}"
        assert not any(keyword.arg == "allow_pickle" for keyword in call.keywords), f"{SOURCES[module]}:{call.lineno}"
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom):
            loads = [alias.name for alias in node.names if UNPICKLING.fullmatch(f"{node.module}.{alias.name}")]
            assert not loads, f"{SOURCES[module]}:{node.lineno} imports {loads}"


@pytest.mark.parametrize("module", FILES)
def test_files_and_functions_stay_short(module):
    assert len(SOURCES[module].read_text().splitlines()) <= 400
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 60, f"{SOURCES[module]}:{node.lineno}: {node.name} has {length} lines"


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_is_listed():
    found = {name for name, path in SOURCES.items() if path.name == "__init__.py"}
    assert set(project()["tool"]["setuptools"]["packages"]) == found
    for name, path in SOURCES.items():
        assert name in found or name.rpartition(".")[0] in found, f"{path} lies in a folder without __init__.py"


def test_the_tested_set_lies_within_the_ranges():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), "versions only"
    pinned = {name.lower().replace("_", "-"): version for name, version in (line.split("==") for line in lines)}
    wanted = project()["project"]["dependencies"] + project()["project"]["optional-dependencies"]["dev"]
    for requirement in map(Requirement, wanted):
        version = pinned[requirement.name.lower().replace("_", "-")]
        assert version in requirement.specifier, f"{requirement} excludes the tested {version}"
