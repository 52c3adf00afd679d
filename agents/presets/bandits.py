"""Presets of the classic bandit policies, `gittins`, `ucb1`, `thompson` and `greedy`, and of `psrl`.

There is nothing to train: one iteration runs a trial of each task and reports its return.
"""

from metarl.agents.bandits import GittinsConfig, GreedyConfig, ThompsonConfig, UCB1Config
from metarl.agents.psrl import PSRLConfig
from metarl.presets import Preset

FEW_PULLS = {"arms": 5, "pulls": 10}
SOURCE = "Duan et al. 2016 (RL²), table 1, k = 5 and n = 10"

GITTINS = (
    Preset(
        name="paper",
        env="Bandit-v0",
        env_options=FEW_PULLS,
        config=GittinsConfig(num_tasks=1000, envs_per_task=1),
        iterations=1,
        source=SOURCE,
        expected="total reward 6.6",
    ),
)
UCB1 = (
    Preset(
        name="paper",
        env="Bandit-v0",
        env_options=FEW_PULLS,
        config=UCB1Config(num_tasks=1000, envs_per_task=1, exploration=0.1),
        iterations=1,
        source=SOURCE,
        expected="total reward 6.7",
    ),
)
THOMPSON = (
    Preset(
        name="paper",
        env="Bandit-v0",
        env_options=FEW_PULLS,
        config=ThompsonConfig(num_tasks=1000, envs_per_task=1),
        iterations=1,
        source=SOURCE,
        expected="total reward 5.7",
    ),
)
GREEDY = (
    Preset(
        name="paper",
        env="Bandit-v0",
        env_options=FEW_PULLS,
        config=GreedyConfig(num_tasks=1000, envs_per_task=1),
        iterations=1,
        source=SOURCE,
        expected="total reward 6.6",
    ),
)
PSRL = (
    # Ten states, five actions, episodes of ten steps; a trial has n = 10 episodes.
    Preset(
        name="paper",
        env="TabularMDP-v0",
        env_options={"states": 10, "actions": 5, "horizon": 10},
        config=PSRLConfig(num_tasks=1000, envs_per_task=1, episodes_per_trial=10),
        iterations=1,
        source="Duan et al. 2016 (RL²), table 2, n = 10",
        expected="total reward of ten episodes 138.1 (metric return_trial)",
    ),
)
