"""Writes the tables of figures in the README and in docs/ from the JSON files in docs/; `--check` only tells whether
they are current.

Each table stands between `<!-- table: NAME -->` and `<!-- end -->`; so does the source of each experiment, after
`<!-- script: NAME -->`.
"""

import re
import sys
from collections.abc import Callable

import agent_tables
import experiment_tables
import fewshot_tables
import headline_table
import speed_tables
from sources import DOCS

PAGES = [
    DOCS.parent / "README.md",
    *(DOCS / f"{name}.md" for name in ("AGENTS", "EXPERIMENTS", "FEWSHOT", "RESULTS", "SPEED")),
]
TABLES: dict[str, Callable[[], str]] = {
    "maml": agent_tables.maml,
    "beside_sb3": agent_tables.beside_sb3,
    "bandit": agent_tables.bandit,
    "reach": agent_tables.reach,
    "ml10": agent_tables.ml10,
    "speed": speed_tables.speed,
    "learn": speed_tables.learn,
    "learn_beside": speed_tables.learn_beside,
    "rollout": speed_tables.rollout,
    "metaworld": speed_tables.metaworld,
    "omniglot": fewshot_tables.omniglot,
    "sinusoid": fewshot_tables.sinusoid,
    "fairness": fewshot_tables.fairness,
    "robustness": fewshot_tables.robustness,
    "mann": fewshot_tables.mann,
    "copy": fewshot_tables.copy,
    "optimizer": fewshot_tables.optimizer,
    "fewshot_speed": speed_tables.fewshot_speed,
    "sizes": speed_tables.sizes,
    "device": speed_tables.device,
    "cheetah": agent_tables.cheetah,
    "short_episodes": agent_tables.short_episodes,
    "environments": agent_tables.environments,
    "agents": agent_tables.agents,
    "bandits": agent_tables.bandits,
    "heads": agent_tables.heads,
    "headline": headline_table.headline,
    "own_task": experiment_tables.own_task,
    "randomisation": experiment_tables.randomisation,
    "identification": experiment_tables.identification,
    "own_comparison": experiment_tables.own_comparison,
    "demonstrations": experiment_tables.demonstrations,
    "planning": experiment_tables.planning,
}


def render(text: str) -> str:
    """`text` with every table and every source made anew."""

    def replace(match: re.Match[str]) -> str:
        kind, name = match.groups()
        made = TABLES[name]() if kind == "table" else experiment_tables.script(name)
        return f"<!-- {kind}: {name} -->\n\n{made}\n\n<!-- end -->"

    return re.sub(r"<!-- (table|script): (\w+) -->.*?<!-- end -->", replace, text, flags=re.DOTALL)


def main() -> None:
    for page in PAGES:
        old = page.read_text()
        new = render(old)
        if "--check" in sys.argv and new != old:
            sys.exit(f"{page.name}: the tables are not those of docs/: run make tables")
        page.write_text(new)


if __name__ == "__main__":
    main()
