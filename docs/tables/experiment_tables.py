"""What the experiments of scripts/experiments found, and their sources."""

from typing import Any

from sources import DOCS, load, rows

SCRIPTS = DOCS.parent / "scripts" / "experiments"


def script(name: str) -> str:
    """The source of an experiment as a block of code."""
    return f"```python\n{(SCRIPTS / f'{name}.py').read_text()}```"


def result(name: str) -> dict[str, Any]:
    (found,) = load(f"results/experiments/{name}.json")
    return found


def own_task() -> str:
    """Return of three episodes, one after another, of tasks like those of training and of one that is not."""
    body = [
        [name, *(f"{value:.1f}" for value in returns)]
        for name, returns in result("adapt_to_own_task")["returns"].items()
    ]
    return rows(["return of episode", "1", "2", "3"], body)


def randomisation() -> str:
    """Return by mass, a line for each width of training."""
    found = result("domain_randomisation")
    body = [[f"±{width}", *(f"{value:.0f}" for value in returns)] for width, returns in found["returns"].items()]
    return rows(["trained within", *(f"{factor:g} ×" for factor in found["options"]["factors"])], body)


def identification() -> str:
    """Share of the variance of each parameter that is read off the memory, by episodes seen."""
    explained = result("identify_robot")["explained"]
    body = [[episodes, *(f"{share:.2f}" for share in shares.values())] for episodes, shares in explained.items()]
    return rows(["episodes seen", *next(iter(explained.values()))], body)


def own_comparison() -> str:
    """Return by stage of each agent, with its interval."""
    body = []
    for agent, seeds in result("compare_agents")["summaries"].items():
        for stages in seeds:
            for row in stages:
                interval = f"({row['return_low']:.1f} … {row['return_high']:.1f})"
                body.append([f"`{agent}`", str(row["episodes_used"]), f"{row['return_mean']:.1f} {interval}"])
    return rows(["agent", "episodes of the new task", "return"], body)


def demonstrations() -> str:
    """Success and return of scripted, cloned and random policies on goals that were not demonstrated."""
    body = []
    for task, policies in result("demonstrations")["results"].items():
        cells = [f"{figures['success']:.2f} ({figures['return']:.0f})" for figures in policies.values()]
        body.append([f"`{task}`", *cells])
    return rows(["success (return)", *next(iter(result("demonstrations")["results"].values()))], body)


def planning() -> str:
    """Return of an agent and of plans."""
    returns = result("plan_by_shooting")["returns"]
    return rows(["", "return"], [[name, f"{value:.1f}"] for name, value in returns.items()])
