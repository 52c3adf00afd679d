"""Presets of Reptile."""

from metarl.agents.reptile import ReptileConfig
from metarl.presets import Preset

PRESETS = (
    # The tasks, episodes and steps of MAML's preset. No paper has the experiment.
    Preset(
        name="paper",
        env="PointNavigation-v0",
        config=ReptileConfig(num_tasks=20, envs_per_task=20),
        iterations=300,
        source="Nichol et al. 2018, algorithm 2, in the setting of Finn et al. 2017, section 5.3 (2D navigation)",
        expected="mean return on test goals after 0 to 3 gradient steps, one seed here: -15.1, -2.4, -2.4, -2.9",
    ),
)
