"""Presets of RL²."""

from metarl.agents.rl2 import RL2Config
from metarl.presets import Preset

PRESETS: tuple[Preset, ...] = (
    # A step of all worlds takes about as long for 100 as for 1,000, so trials are short and many. Learning gains from
    # gradient steps, hardly from wider ones: 5 x 16 minibatches of 64 trials. docs/GPU.md has the figures.
    Preset(
        name="gpu",
        env="ML1-reach-v3",
        env_options={"horizon": 150, "goals_per_task": 1000},
        config=RL2Config(num_tasks=1024, episodes_per_trial=2, epochs=5, minibatches=16),
        iterations=100,
        source="the README's run of 100 tasks on the CPU, widened as docs/GPU.md reasons",
        expected="80 % success in the second episode, which 100 tasks reach after 81 iterations; not measured on a GPU",
    ),
)
