"""Writes the tables of figures in the README and in docs/ from the JSON files in docs/; `--check` only tells whether
they are current.

Each table stands between `<!-- table: NAME -->` and `<!-- end -->`.
"""

import re
import sys
from collections.abc import Callable

import agent_tables
import fewshot_tables
import speed_tables
from sources import DOCS

PAGES = [DOCS.parent / "README.md", DOCS / "AGENTS.md"]
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
}


def render(text: str) -> str:
    """`text` with every table made anew."""

    def replace(match: re.Match[str]) -> str:
        return f"<!-- table: {match[1]} -->\n\n{TABLES[match[1]]()}\n\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", replace, text, flags=re.DOTALL)


def main() -> None:
    for page in PAGES:
        old = page.read_text()
        new = render(old)
        if "--check" in sys.argv and new != old:
            sys.exit(f"{page.name}: the tables are not those of docs/: run make tables")
        page.write_text(new)


if __name__ == "__main__":
    main()
