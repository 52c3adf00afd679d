"""Presets of the agents from Stable-Baselines3: its defaults from scratch, beside the meta-learners of the README."""

from metarl.agents.sb3_config import SB3PPOConfig
from metarl.presets import Preset

SOURCE = "Raffin et al. 2021 (Stable-Baselines3, its default options); docs/results/sb3"
UNTRAINED = 1
"""Iterations: nothing is learned across tasks, and one makes the run folder that `metarl evaluate` reads."""

PPO: tuple[Preset, ...] = (
    Preset(
        name="from-scratch",
        env="PointNavigation-v0",
        config=SB3PPOConfig(num_tasks=1, from_scratch=True),
        iterations=UNTRAINED,
        source=SOURCE,
        expected="mean return -5.9 after 20 episodes of a test task (MAML: -2.2)",
    ),
    Preset(
        name="from-scratch",
        env="HalfCheetahDir-v0",
        config=SB3PPOConfig(num_tasks=1, from_scratch=True),
        iterations=UNTRAINED,
        source=SOURCE,
        expected="mean return after 20 episodes of a test task far below MAML's 275",
    ),
    Preset(
        name="from-scratch",
        env="ML1-reach-v3",
        env_options={"horizon": 150},
        config=SB3PPOConfig(num_tasks=1, from_scratch=True),
        iterations=UNTRAINED,
        source=SOURCE,
        expected="mean return after 20 episodes of a test task far below RL²'s 1294 after one",
    ),
)
