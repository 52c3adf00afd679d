"""Pages of the site that are no files of docs/: the API reference, and files elsewhere that pages link to.

Links of pages are relative to the repository, so that they work where the Markdown itself is shown. The site has copies
of linked files from outside docs/ in `source/`, and of the repository's own pages in `project/`.
"""

import re
import shutil
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent.parent
OUTSIDE = re.compile(r"\]\(\.\./([\w./-]+)")
"""A link of a page in docs/ to a file outside of it."""
INTO_DOCS = re.compile(r"\]\(docs/([\w./-]+)")
"""A link of the repository's own pages into docs/."""
REFERENCE = {
    "Families and tasks": (
        "TaskDistribution GymnasiumDistribution Tasks TaskParameters LogUniform TaskSource FreshTasks TaskList "
        "make list_distributions register_distribution check_distribution"
    ),
    "Environments and rollouts": "TaskVectorEnv collect Trajectories Policy PolicyStep Transition",
    "Other libraries": "to_gymnasium to_sb3 from_sb3 to_torchrl",
    "Agents": "Agent AgentConfig EnvSpec ReplayBuffer Ranks list_agents register_agent",
    "Training and evaluation": "TrainConfig train resume load_agent load_run preset evaluate Evaluation",
    "Few-shot learning": "list_learners list_data list_objectives register_learner register_data register_objective",
    "Errors": "UsageError",
}
"""Public names of `metarl` by heading: a test holds this to `metarl.__all__`."""
MODULES = {
    "metarl.fewshot": ["FewShotConfig", "load", "from_dataset", "predict_files", "explain", "figures"],
    "metarl.fewshot.estimator": ["FewShotClassifier"],
    "metarl.envs.native.base": ["NativeDistribution"],
    "metarl.envs.locomotion.family": ["LocomotionDistribution"],
    "metarl.envs.locomotion.robot": ["Robot"],
    "metarl.envs.metaworld.family": ["MetaWorld"],
    "metarl.envs.physics.env": ["PhysicsEnv"],
}
"""What users subclass or call elsewhere."""


def on_startup(**_: Any) -> None:
    """Lays the sources out under the names that they are imported by: the folder `envs` is `metarl.envs`.

    Before the configuration is read: mkdocstrings leaves out paths that are not there yet.
    """
    package = ROOT / "build" / "reference" / "metarl"
    shutil.rmtree(package, ignore_errors=True)
    for folder in ("metarl", "envs", "agents", "scripts"):
        target = package if folder == "metarl" else package / folder
        shutil.copytree(ROOT / folder, target, ignore=shutil.ignore_patterns("__pycache__"))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the API reference and the files outside docs/ that pages link to."""
    files.append(File.generated(config, "api.md", content=reference()))
    pages = [file for file in files.documentation_pages() if file.src_uri != "api.md"]
    linked = {path for page in pages for path in OUTSIDE.findall(page.content_string) if not page.src_uri.count("/")}
    for path in sorted(linked):
        content = (ROOT / path).read_text()
        if path.endswith(".md"):
            content = INTO_DOCS.sub(r"](../\1", content)
        files.append(File.generated(config, place(path), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points links to files outside docs/ to their copies."""
    if "/" in page.file.src_uri:
        return markdown
    return OUTSIDE.sub(lambda match: f"]({place(match[1])}", markdown)


def place(path: str) -> str:
    """Where the copy of a file outside docs/ lies in the site."""
    return f"project/{path}" if path.endswith(".md") else f"source/{path}.txt"


def reference() -> str:
    """The page of the API reference, which mkdocstrings fills from the docstrings."""
    lines = ["# API reference", "", "The public names of `metarl`, and what users subclass elsewhere.", ""]
    for heading, names in REFERENCE.items():
        lines += [f"## {heading}", ""]
        lines += [f"::: {found_in(name)}\n" for name in names.split()]
    lines += ["## To build on", ""]
    lines += [f"::: {module}.{name}\n" for module, names in MODULES.items() for name in names]
    return "\n".join(lines)


def found_in(name: str) -> str:
    """The full name of a public name of `metarl`: its module as it is imported."""
    import metarl

    if name in metarl._ELSEWHERE:  # which may need a library that is not there
        return metarl._ELSEWHERE[name].replace(":", ".")
    member: Any = getattr(metarl, name)
    return f"{member.__module__}.{member.__qualname__}"
