"""Presets of RL²."""

from metarl.agents.rl2 import RL2Config
from metarl.presets import Preset

PRESETS: tuple[Preset, ...] = (
    # 2,048 trials of two short episodes: a step of all worlds lasts some milliseconds however few there are, so trials
    # are short. The update costs little beside them: it is eight minibatches of 256 trials. docs/GPU.md counts it out.
    Preset(
        name="gpu",
        env="ML1-reach-v3",
        env_options={"horizon": 150, "goals_per_task": 1000},
        config=RL2Config(num_tasks=2048, episodes_per_trial=2, epochs=5, minibatches=8, lr=1e-3),
        iterations=60,
        source="counted out in docs/GPU.md, from runs on the CPU with fewer tasks",
        expected="80 % success in the second episode; not measured on a GPU yet",
    ),
)
