"""Total rewards of the classic policies on bandits and of PSRL on tabular MDPs, beside those of Duan et al. (2016).

    python docs/results/bandits/measure.py docs/results/bandits/classic.json

measures these. A run of RL² on tabular MDPs is measured in the same way by

    metarl train rl2 --env TabularMDP-v0 --preset paper --output RUN
    python docs/results/bandits/measure.py docs/results/bandits/tabular.json RUN

Each row names the options of the family and of the agent, the mean total reward over test tasks with its standard
error, and the figure of the paper: table 1 for bandits, table 2 for MDPs.
"""

import json
import sys
from pathlib import Path

import metarl
from metarl.registry import agent_class

FEW, MANY = {"arms": 5, "pulls": 10}, {"arms": 10, "pulls": 100}
SETTINGS = [
    ("random", "Bandit-v0", FEW, {}, 5.0),
    ("gittins", "Bandit-v0", FEW, {}, 6.6),
    ("ucb1", "Bandit-v0", FEW, {}, 6.7),
    ("thompson", "Bandit-v0", FEW, {}, 5.7),
    ("greedy", "Bandit-v0", FEW, {"epsilon": 0.02}, 6.6),
    ("greedy", "Bandit-v0", FEW, {}, 6.6),
    ("random", "Bandit-v0", MANY, {}, 49.9),
    ("gittins", "Bandit-v0", MANY, {}, 82.8),
    ("ucb1", "Bandit-v0", MANY, {"exploration": 0.2}, 82.4),
    ("thompson", "Bandit-v0", MANY, {}, 76.7),
    ("greedy", "Bandit-v0", MANY, {"epsilon": 0.02}, 77.4),
    ("greedy", "Bandit-v0", MANY, {}, 77.1),
    ("random", "TabularMDP-v0", {}, {}, 100.1),
    ("psrl", "TabularMDP-v0", {}, {}, 138.1),
]


def measured(agent: metarl.Agent, name: str, env: str, env_options: dict, options: dict, paper: float) -> dict:
    """The row of an agent: mean and standard error of the total reward of one episode of a bandit, ten of an MDP."""
    family = metarl.make(env, **env_options)
    episodes, tasks = (10, 10_000) if family.id == "TabularMDP-v0" else (1, 2000 if family.horizon > 10 else 10_000)
    evaluation = metarl.evaluate(agent, family, num_tasks=tasks, episodes=max(episodes - 1, 1), seed=1, envs_per_task=1)
    stages = episodes if evaluation.returns.shape[1] >= episodes else 1
    totals = evaluation.returns[:, :stages].sum(1) * (episodes / stages)
    row = {"agent": name, "env": env, "env_options": env_options, "options": options}
    mean, error = float(totals.mean()), float(totals.std() / tasks**0.5)
    return row | {"total_reward": round(mean, 3), "standard_error": round(error, 3), "paper": paper}


def classic(agent: str, env: str, env_options: dict, options: dict, paper: float) -> dict:
    cls = agent_class(agent)
    learner = cls(cls.config_class(envs_per_task=1, **options), metarl.EnvSpec.of(metarl.make(env, **env_options)))
    return measured(learner, agent, env, env_options, options, paper)


def trained(run: str) -> dict:
    """The row of a run of RL² on tabular MDPs."""
    opened = metarl.load_run(run)
    row = measured(opened.agent, "rl2", "TabularMDP-v0", {}, {"head": opened.agent.config.head}, 156.2)
    return row | {"env_steps": opened.checkpoint.env_steps}


file, *runs = sys.argv[1:]
rows = [trained(run) for run in runs] if runs else [classic(*setting) for setting in SETTINGS]
Path(file).write_text(json.dumps(rows, indent=2) + "\n")
print(json.dumps(rows, indent=2))
