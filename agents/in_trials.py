"""What agents have in common that see a task in trials of several episodes, whether they are trained or not."""

from typing import Any

from metarl.agent import Agent


class InTrials(Agent):
    """An agent whose trials have `config.episodes_per_trial` episodes: it is measured after each of them.

    >>> from metarl.agents.in_trials import InTrials
    >>> from metarl.agents.rl2 import RL2
    >>> issubclass(RL2, InTrials)
    True
    """

    config: Any

    def stages(self, episodes: int | None = None) -> list[int]:
        """After every episode; by default, every stage of a training trial."""
        return list(range(self.config.episodes_per_trial if episodes is None else episodes + 1))
