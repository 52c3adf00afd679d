"""Links of all pages lead somewhere, on a code host as on the site, and every page is found from the start page."""

import ast
import re
import unicodedata
from pathlib import Path

import pytest
import yaml
from pages import FENCE, GUIDES, PAGES, ROOT, name_of

import metarl

LINK = re.compile(r"\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
SITE = ROOT / "mkdocs.yml"


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def links(page: Path) -> list[str]:
    return [link for link in LINK.findall(prose(page)) if not link.startswith(("https://", "http://"))]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings that a code host and the site name alike."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    plain = [re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading) for heading in headings]
    return {on_the_site(heading) for heading in plain if on_the_site(heading) == on_a_code_host(heading)}


def on_the_site(heading: str) -> str:
    """As Python-Markdown names it."""
    ascii_only = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", ascii_only).strip().lower())


def on_a_code_host(heading: str) -> str:
    kept = [c for c in heading.lower() if c in " -_" or unicodedata.category(c)[0] in "LM" or c.isdecimal()]
    return "".join(kept).replace(" ", "-")


def test_anchors_that_differ_are_none():
    assert on_the_site("RL² on bandits") == "rl2-on-bandits"
    assert on_a_code_host("RL² on bandits") == "rl-on-bandits"
    assert on_the_site("4. In torch") == on_a_code_host("4. In torch") == "4-in-torch"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name_of(page)} links to {link}"
        assert target.is_relative_to(ROOT), f"{name_of(page)} links out of the repository: {link}"
        if anchor:
            assert anchor in anchors(target), f"{name_of(page)} links to {link}, which has no such heading"


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_pages_that_are_named_are_links(page):
    """Names of other pages in code would be no link on the site."""
    for name in re.findall(r"`(?:docs/)?([A-Z_]+\.md)`", prose(page)):
        raise AssertionError(f"{name_of(page)} names {name} without a link")


def navigation(entry) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [name for part in parts for name in navigation(part)]


def test_the_navigation_has_every_page():
    named = navigation(yaml.safe_load(SITE.read_text())["nav"])
    assert sorted(named) == sorted(["api.md", *(page.name for page in (ROOT / "docs").glob("*.md"))])


def test_the_reference_has_every_public_name():
    (names,) = (
        ast.literal_eval(node.value)
        for node in ast.parse((ROOT / "docs" / "website" / "pages.py").read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "REFERENCE"
    )
    assert sorted(" ".join(names.values()).split()) == sorted({*metarl.__all__, *metarl._ELSEWHERE} - {"fewshot"})


def test_every_family_has_a_row():
    page = (ROOT / "docs" / "FAMILIES.md").read_text()
    named = set(re.findall(r"`([\w-]+)`", page))
    for id in metarl.list_distributions():
        assert id in named or re.match(r"M[LT]1-.*-v3", id), id


@pytest.mark.parametrize(
    "target", ["COMMAND_LINE.md#evaluate-on-other-tasks", "YOUR_OWN_REWARD.md", "YOUR_OWN_ENVIRONMENT.md", "GPU.md"]
)
def test_what_people_look_for_is_on_the_start_page(target):
    assert target in links(ROOT / "docs" / "index.md")


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 200
