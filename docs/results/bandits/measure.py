"""Total rewards of the classic policies on bandits and of PSRL on tabular MDPs, beside those of Duan et al. (2016).

    python docs/results/bandits/measure.py docs/results/bandits/classic.json

measures these. Runs of RL² are measured in the same way, on the same tasks, by

    metarl train rl2 --env TabularMDP-v0 --preset paper --output RUN
    python docs/results/bandits/measure.py docs/results/bandits/tabular.json RUN

and on bandits of 100 pulls, with each core, by

    metarl train rl2 --env Bandit-v0 --preset paper-10x100 --core CORE --output RUN
    python docs/results/bandits/measure.py docs/results/bandits/recurrent.json RUN ...

Each row names the options of the family and of the agent, the mean total reward over 10,000 test tasks with its
standard error, and the figure of the paper: table 1 for bandits, table 2 for MDPs.
"""

import json
import sys
from pathlib import Path

import metarl
from metarl.registry import agent_class

TASKS = 10_000
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


def measured(agent: metarl.Agent, name: str, env: str, env_options: dict, options: dict, paper: float | None) -> dict:
    """The row of an agent: mean and standard error of the total reward of one episode of a bandit, ten of an MDP."""
    family = metarl.make(env, **env_options)
    episodes = 10 if family.id == "TabularMDP-v0" else 1
    used = episodes - 1 if episodes > 1 else None  # a trial of a bandit is one episode
    evaluation = metarl.evaluate(agent, family, num_tasks=TASKS, episodes=used, seed=1, envs_per_task=1)
    stages = episodes if evaluation.returns.shape[1] >= episodes else 1
    totals = evaluation.returns[:, :stages].sum(1) * (episodes / stages)
    row = {"agent": name, "env": env, "env_options": env_options, "options": options}
    mean, error = float(totals.mean()), float(totals.std() / TASKS**0.5)
    return row | {"total_reward": round(mean, 3), "standard_error": round(error, 3), "paper": paper}


def classic(agent: str, env: str, env_options: dict, options: dict, paper: float) -> dict:
    cls = agent_class(agent)
    learner = cls(cls.config_class(envs_per_task=1, **options), metarl.EnvSpec.of(metarl.make(env, **env_options)))
    return measured(learner, agent, env, env_options, options, paper)


def trained(run: str) -> dict:
    """The row of a run of RL²."""
    opened = metarl.load_run(run)
    config = opened.agent.config
    if opened.distribution.id == "TabularMDP-v0":
        row = measured(opened.agent, "rl2", "TabularMDP-v0", {}, {"head": config.head}, 156.2)
    else:
        row = measured(
            opened.agent, "rl2", "Bandit-v0", MANY, {"core": config.core}, 83.5 if config.core == "gru" else None
        )
    return row | {"env_steps": opened.checkpoint.env_steps}


file, *runs = sys.argv[1:]
rows = [trained(run) for run in runs] if runs else [classic(*setting) for setting in SETTINGS]
Path(file).write_text(json.dumps(rows, indent=2) + "\n")
print(json.dumps(rows, indent=2))
