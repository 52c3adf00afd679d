"""Presets: whole settings of an experiment, each a literal that says where it comes from and what to expect."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from metarl.agent import AgentConfig


@dataclass(frozen=True)
class Preset:
    """How an agent is trained on a family: `metarl train AGENT --env ID --preset NAME`.

    The presets of an agent are a tuple in a file of their own, registered by `metarl.registry.register_presets`.

    >>> from metarl.presets import Preset
    >>> preset = Preset(
    ...     name="paper",
    ...     env="Bandit-v0",
    ...     env_options={"arms": 5, "pulls": 10},
    ...     config=metarl.AgentConfig(num_tasks=2000, envs_per_task=1),
    ...     steps=10_000_000,
    ...     source="Duan et al. 2016, table 1",
    ...     expected="mean return 6.7 of 10",
    ... )
    """

    name: str
    """By convention `paper` for a setting from a paper, and `gpu` for large batches of worlds."""
    env: str
    """Id of the task distribution."""
    config: AgentConfig
    """All options of the agent."""
    source: str
    """The paper with table or section, or the measurement, that the setting is from."""
    expected: str
    """What to expect of it, in words and numbers."""
    env_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the task distribution."""
    iterations: int | None = None
    """Iterations to train for."""
    steps: int | None = None
    """Environment steps to train for."""
