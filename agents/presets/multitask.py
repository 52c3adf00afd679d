"""Presets of the baselines without memory, `multitask` and `oracle`."""

from metarl.agents.multitask import MultitaskConfig
from metarl.presets import Preset

ORACLE = (
    # Three million steps, as VariBAD is trained for (Zintgraf et al. 2020, section 5.2): 150 iterations of 100 tasks.
    Preset(
        name="paper",
        env="HalfCheetahDir-v0",
        config=MultitaskConfig(num_tasks=100, envs_per_task=1),
        steps=3_000_000,
        source="the oracle of Zintgraf et al. 2020, section 5.2; our defaults",
        expected="mean return on the two test tasks, one seed here: 844",
    ),
)
MULTITASK = (
    # The same training without the task.
    Preset(
        name="paper",
        env="HalfCheetahDir-v0",
        config=MultitaskConfig(num_tasks=100, envs_per_task=1),
        steps=3_000_000,
        source="the multi-task baseline of Zintgraf et al. 2020, section 5.2; our defaults",
        expected="mean return near 0: the two directions have opposite rewards",
    ),
)
