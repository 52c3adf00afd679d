"""Presets of the agents from Stable-Baselines3: from scratch on test tasks, beside what docs/AGENTS.md reports."""

from metarl.agents.sb3_config import SB3PPOConfig
from metarl.presets import Preset

SOURCE = "Raffin et al. 2021 (Stable-Baselines3); measured in docs/results/sb3"
ONE = 1
"""Iterations: nothing is learned across tasks, and one makes the run folder that `metarl evaluate` reads."""
DEFAULTS = SB3PPOConfig(num_tasks=1, from_scratch=True)
SHORT = SB3PPOConfig(num_tasks=1, from_scratch=True, n_steps=250, learning_rate=1e-3)
"""Default rollouts leave time for one or two updates in the steps that a meta-learner adapts with."""

PPO: tuple[Preset, ...] = (
    Preset(
        name="defaults-from-scratch",
        env="PointNavigation-v0",
        config=DEFAULTS,
        iterations=ONE,
        source=SOURCE,
        expected="mean return -5.9 after 20 episodes of a test task (MAML: -2.2)",
    ),
    Preset(
        name="from-scratch",
        env="PointNavigation-v0",
        config=SHORT,
        iterations=ONE,
        source=SOURCE,
        expected="mean return -4.0 after 20 episodes of a test task (MAML: -2.2)",
    ),
    Preset(
        name="defaults-from-scratch",
        env="HalfCheetahDir-v0",
        config=DEFAULTS,
        iterations=ONE,
        source=SOURCE,
        expected="mean return 0 after 20 episodes of a test task (MAML: 275)",
    ),
    Preset(
        name="from-scratch",
        env="HalfCheetahDir-v0",
        config=SHORT,
        iterations=ONE,
        source=SOURCE,
        expected="mean return 37 after 20 episodes of a test task (MAML: 275)",
    ),
)
