"""Presets of VariBAD. Options that a literal does not name are the defaults, whose source the agent's file says."""

from metarl.agents.varibad import VariBADConfig
from metarl.presets import Preset

PRESETS: tuple[Preset, ...] = (
    # An untrained policy has to find goals a whole radius away in 20 steps: wide noise, and many tasks at a time.
    Preset(
        name="paper",
        env="SparsePointNavigation-v0",
        config=VariBADConfig(num_tasks=1000, initial_std=2.0, minibatches=8, entropy_bonus=0.02),
        steps=20_000_000,
        source="task: Rakelly et al. 2019, section 6.3; VariBAD as for HalfCheetahDir; PPO measured here",
        expected="0.80 of 1,000 test goals reached in the second episode: all from 40° on, hardly any before",
    ),
    # The authors take 16 trials of 200 steps, and two passes over them, for each of 30,000 updates.
    Preset(
        name="paper",
        env="HalfCheetahDir-v0",
        config=VariBADConfig(num_tasks=24, discount=0.97, gae_lambda=0.9, minibatches=8),
        steps=3_000_000,
        source="Zintgraf et al. 2020, section 5.2, and the authors' configuration, with PPO for 3 million steps",
        expected="842 in the first episode, 871 in the second: docs/results/varibad-HalfCheetahDir-v0-seed0.json",
    ),
    Preset(
        name="paper",
        env="HalfCheetahVel-v0",
        env_options={"max_velocity": 3.0},
        config=VariBADConfig(num_tasks=16, discount=0.97, gae_lambda=0.9, minibatches=8),
        steps=300_000,
        source="Zintgraf et al. 2020, section 5.2, and the authors' configuration, with PPO for 300,000 steps",
        expected="-275 in the first episode, -279 in the second",
    ),
)
