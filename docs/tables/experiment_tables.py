"""What the experiments of scripts/experiments found, and their sources."""

from collections.abc import Callable
from typing import Any

from sources import DOCS, load, rows

FOLDER = DOCS / "results" / "experiments"
SCRIPTS = DOCS.parent / "scripts" / "experiments"


def script(name: str) -> str:
    """The source of an experiment as a block of code."""
    return f"```python\n{(SCRIPTS / f'{name}.py').read_text()}```"


def shown(name: str, table: Callable[[dict[str, Any]], str], picture: str | None = None) -> str:
    """The table of an experiment's `result.json`, and its `result.png` with `picture` as its description."""
    found = load(f"results/experiments/{name}.json")
    if not found:
        return "Not measured yet."
    parts = [table(found[0])]
    if picture is not None:
        assert (FOLDER / f"{name}.png").exists(), f"{name}.json has come without its picture"
        parts.append(f"![{picture}](results/experiments/{name}.png)")
    return "\n\n".join(parts)


def own_task() -> str:
    return shown("adapt_to_own_task", _own_task, "Distance to the target over three episodes")


def randomisation() -> str:
    return shown("domain_randomisation", _randomisation, "Return over the masses for each width of randomisation")


def identification() -> str:
    return shown("identify_robot", _identification, "True and identified mass and friction")


def own_comparison() -> str:
    return shown("compare_agents", _own_comparison, "Return over the episodes of the new task")


def demonstrations() -> str:
    return shown("demonstrations", _demonstrations)


def planning() -> str:
    return shown("plan_by_shooting", _planning)


def _own_task(found: dict[str, Any]) -> str:
    """Return of three episodes, one after another, of tasks like those of training and of one that is not."""
    body = [[name, *(f"{value:.1f}" for value in returns)] for name, returns in found["returns"].items()]
    return rows(["return of episode", "1", "2", "3"], body)


def _randomisation(found: dict[str, Any]) -> str:
    """Return by mass, a line for each width of training."""
    body = [[f"±{width}", *(f"{value:.0f}" for value in returns)] for width, returns in found["returns"].items()]
    return rows(["trained within", *(f"{factor:g} ×" for factor in found["options"]["factors"])], body)


def _identification(found: dict[str, Any]) -> str:
    """Share of the variance of each parameter that is read off the memory, by episodes seen."""
    explained = found["explained"]
    body = [[episodes, *(f"{share:.2f}" for share in shares.values())] for episodes, shares in explained.items()]
    return rows(["episodes seen", *next(iter(explained.values()))], body)


def _own_comparison(found: dict[str, Any]) -> str:
    """Return by stage of each agent, with its interval."""
    body = []
    for agent, seeds in found["summaries"].items():
        for stages in seeds:
            for row in stages:
                interval = f"({row['return_low']:.1f} … {row['return_high']:.1f})"
                body.append([f"`{agent}`", str(row["episodes_used"]), f"{row['return_mean']:.1f} {interval}"])
    return rows(["agent", "episodes of the new task", "return"], body)


def _demonstrations(found: dict[str, Any]) -> str:
    """Success and return of scripted, cloned and random policies on goals that were not demonstrated."""
    results, body = found["results"], []
    for task, policies in results.items():
        cells = [f"{figures['success']:.2f} ({figures['return']:.0f})" for figures in policies.values()]
        body.append([f"`{task}`", *cells])
    return rows(["success (return)", *next(iter(results.values()))], body)


def _planning(found: dict[str, Any]) -> str:
    """Return of an agent and of plans."""
    return rows(["policy", "return"], [[name, f"{value:.1f}"] for name, value in found["returns"].items()])
