"""What agents learn: returns and success, beside papers and baselines."""

from typing import Any

import numpy as np
from sources import load, load_lines, rows

STAGES = ["1st stage", "2nd", "3rd", "4th"]
MEASURED = (
    (
        "`PointNavigation-v0`",
        "return",
        {
            "`maml`": "maml-PointNavigation-v0-seed0",
            "`reptile`": "reptile-PointNavigation-v0-seed0",
            "`rl2`": "rl2-PointNavigation-v0-seed0",
        },
    ),
    (
        "`SparsePointNavigation-v0`",
        "success",
        {
            "`rl2`": "rl2-SparsePointNavigation-v0",
            "`varibad`": "varibad-SparsePointNavigation-v0-seed0",
            "`pearl`": "pearl-SparsePointNavigation-v0-seed0",
            "`maml`": "maml-SparsePointNavigation-v0-seed0",
        },
    ),
    (
        "`HalfCheetahDir-v0`, 3 M steps",
        "return",
        {
            "`maml`, 32 M steps": "maml-HalfCheetahDir-v0-seed0",
            "`varibad`": "varibad-HalfCheetahDir-v0-seed0",
            "`oracle`": "oracle-HalfCheetahDir-v0-seed0",
        },
    ),
    (
        "`HalfCheetahVel-v0` (0 … 3), 300 k steps",
        "return",
        {
            "`pearl`": "pearl-HalfCheetahVel-v0-300k-seed0",
            "`rl2`": "rl2-HalfCheetahVel-v0-300k-seed0",
            "`varibad`": "varibad-HalfCheetahVel-v0-300k-seed0",
        },
    ),
)
"""Family, figure, and the files of each agent."""
RECURRENT = {
    "5 arms × 10 pulls": {
        "`rl2` (gru)": ("rl2-Bandit-v0-seed0", "6.7"),
        "`rl2 --core lstm`": ("rl2-Bandit-5x10-lstm", "–"),
        "`rl2 --core snail`": ("rl2-Bandit-5x10-snail", "–"),
        "`rl2 --core transformer`": ("rl2-Bandit-5x10-transformer", "–"),
    },
}
"""Setting: agent, its file and the paper's figure."""


def maml() -> str:
    """Mean return by gradient steps, a line a seed."""
    paper = ["MAML paper", "-40.4", "-11.7", "-3.3", "-3.2"]
    body = []
    for seed, evaluation in enumerate(load("results/maml-PointNavigation-v0-seed*.json")):
        cells = [
            f"{r['return_mean']:.1f} ({r['return_low']:.1f} … {r['return_high']:.1f})" for r in evaluation["summary"]
        ]
        body.append([f"metarl, seed {seed}", *cells])
    return rows(["gradient steps", "0", "1", "2", "3"], [*body, paper])


def bandit() -> str:
    """Mean total reward of ten pulls."""
    body = [
        ["random", "5.0"],
        ["RL² paper", "6.7"],
        ["Gittins index (optimal for discounted, infinite horizons)", "6.6"],
    ]
    for seed, evaluation in enumerate(load("results/rl2-Bandit-v0-seed*.json")):
        (row,) = evaluation["summary"]
        interval = f"({row['return_low']:.2f} … {row['return_high']:.2f})"
        body.append([f"metarl, RL², seed {seed}", f"**{row['return_mean']:.2f}** {interval}"])
    return rows(["5 arms, 10 pulls", "total reward"], body)


def reach() -> str:
    """Return and success by episode on ML1-reach-v3, at both lengths of an episode."""
    body = []
    for horizon in (150, 500):
        (evaluation,) = load(f"results/rl2-ML1-reach-v3-horizon{horizon}.json")
        for row in evaluation["summary"]:
            values = [
                f"{row[k + '_mean']:.{d}f} ({row[k + '_low']:.{d}f} … {row[k + '_high']:.{d}f})"
                for k, d in (("return", 0), ("success", 2))
            ]
            body.append([f"{horizon} steps", str(row["episodes_used"]), *values])
    return rows(["episodes of", "episodes used", "return", "success"], body)


def ml10() -> str:
    """Success of RL² on the training and test classes of ML10-v3, under both protocols, by episode of the trial."""
    body = []
    for split in ("train", "test"):
        for protocol in ("per-task", "metaworld"):
            (evaluation,) = load(f"results/rl2-ML10-v3-{split}-{protocol}.json")
            cells = [
                f"{row['success_mean']:.2f} ({row['success_low']:.2f} … {row['success_high']:.2f})"
                for row in evaluation["summary"]
            ]
            body.append([f"{split} classes, `{protocol}`", *cells])
    return rows(
        [
            "success after",
            *(f"{row['episodes_used']} episode{'s'[: row['episodes_used'] != 1]}" for row in evaluation["summary"]),
        ],
        body,
    )


def cheetah() -> str:
    """Mean return by gradient steps on HalfCheetahDir-v0, whose two tasks have no interval but a range."""
    body = []
    for seed, evaluation in enumerate(load("results/maml-HalfCheetahDir-v0-seed*.json")):
        cells = [
            f"{r['return_mean']:.0f} ({r['return_low']:.0f} … {r['return_high']:.0f})" for r in evaluation["summary"]
        ]
        body.append([f"metarl, 100 iterations, seed {seed}", *cells])
    steps = [str(step) for step in range(len(body[0]) - 1)]
    return rows(["gradient steps", *steps], [*body, ["MAML paper, at the end of its training", "-50.7", "293.2"]])


def beside_sb3() -> str:
    """Returns of adapted agents beside Stable-Baselines3 from scratch, after equal steps of the test task or more."""
    settings = [  # family, steps of an episode, our agent and its file, its episodes, the episodes of SB3's
        ("PointNavigation-v0", 100, "MAML", "maml-PointNavigation-v0-seed0", 20, 20),
        ("PointNavigation-v0", 100, "RL²", "rl2-PointNavigation-v0-seed0", 1, None),
        ("HalfCheetahDir-v0", 200, "MAML", "maml-HalfCheetahDir-v0-seed0", 20, 20),
        ("ML1-reach-v3", 150, "RL²", "rl2-ML1-reach-v3-horizon150", 1, 20),
    ]
    body = []
    for family, horizon, agent, name, ours, theirs in settings:
        for label, file, episodes in (
            (f"{agent}, meta-trained", name, ours),
            ("SB3's PPO from scratch", f"sb3/ppo-{family}", theirs),
            ("the same, rollouts of 250, step size 1e-3", f"sb3/ppo-short-{family}", theirs),
            ("SB3's SAC from scratch", f"sb3/sac-{family}", theirs),
        )[: 1 if theirs is None else None]:
            for evaluation in load(f"results/{file}.json"):
                (row,) = [row for row in evaluation["summary"] if row["episodes_used"] == episodes]
                digits = 2 if abs(row["return_mean"]) < 10 else 0
                figure = f"{row['return_mean']:.{digits}f}"
                if row["return_low"] is not None:  # with two tasks, once each, there is no interval
                    figure += f" ({row['return_low']:.{digits}f} … {row['return_high']:.{digits}f})"
                body.append([f"`{family}`", label, f"{episodes * horizon:,}", str(row["tasks"]), figure])
    return rows(["family", "agent", "steps of the test task", "tasks", "return"], body)


def short_episodes() -> str:
    """Returns of both versions on families whose episodes end early, up to the steps that all runs have taken."""
    body = []
    for env in ("CartPoleParams-v0", "HopperRandParams-v0"):
        for agent in ("maml", "rl2"):
            name = f"results/short-episodes/{agent}-{env}"
            found = {version: load_lines(f"{name}-{version}-seed*") for version in ("0.1", "0.2")}
            steps = min(run[-1]["env_steps"] for runs in found.values() for run in runs)
            equal = [[[row for row in run if row["env_steps"] <= steps] for run in runs] for runs in found.values()]
            used = np.mean([run[0]["used_fraction"] for run in found["0.2"]])
            cells = [
                f"{np.mean([statistic(run) for run in runs]):.0f}"
                for statistic in (whole_training, end_of_training)
                for runs in equal
            ]
            seeds = " and ".join(str(len(runs)) for runs in equal)
            body.append([f"`{agent}`, `{env}`", f"{steps / 1e6:.1f} M", seeds, f"{used:.0%}", *cells])
    titles = ["mean return of the training, 0.1", "0.2", "of its last tenth, 0.1", "0.2"]
    return rows(["", "steps", "seeds, 0.1 and 0.2", "used at first, 0.2", *titles], body)


def environments() -> str:
    """Environments that others wrote: what training took, and success on test tasks before and after adaptation."""
    families = {
        "minigrid": "MiniGrid's empty room, goal moved, from its picture",
        "panda": "panda-gym's reach, to a goal in the observation",
        "wide": "250 random bits observed; action 1 pays (return of 10)",
    }
    body = []
    for name, label in families.items():
        for agent in ("maml", "rl2"):
            (metrics,) = load_lines(f"results/environments/{agent}-{name}.metrics.jsonl")
            (evaluation,) = load(f"results/environments/{agent}-{name}.evaluation.json")
            score = "return" if evaluation["success"] is None else "success"
            first, last = (evaluation["summary"][stage][f"{score}_mean"] for stage in (0, -1))
            steps, minutes = metrics[-1]["env_steps"], metrics[-1]["wall_seconds"] / 60
            body.append([f"{label}, `{agent}`", f"{steps:,}", f"{minutes:.0f}", f"{first:.2f}", f"{last:.2f}"])
    titles = ["steps", "minutes, 2 busy cores", "test tasks, before adaptation", "after it"]
    return rows(["", *titles], body)


def whole_training(run: list[dict[str, Any]]) -> float:
    """Mean return over all iterations: how early it learned."""
    return float(np.mean([row["return_mean"] for row in run]))


def end_of_training(run: list[dict[str, Any]]) -> float:
    """Mean return over the last tenth of the iterations."""
    return float(np.mean([row["return_mean"] for row in run[-max(1, len(run) // 10) :]]))


def agents() -> str:
    """Mean return, or success, after each number of episodes of a test task, of every agent that was measured."""
    body = []
    for family, figure, files in MEASURED:
        for label, file in files.items():
            for evaluation in load(f"results/{file}.json"):
                stages = evaluation["summary"][: len(STAGES)]
                digits = 2 if figure == "success" or abs(stages[-1]["return_mean"]) < 10 else 0
                cells = [f"{row[f'{figure}_mean']:.{digits}f}" for row in stages]
                spent = f"{stages[-1]['episodes_used']}"
                body.append([f"{family}, {figure}", label, *cells, *["–"] * (len(STAGES) - len(cells)), spent])
    return rows(["family", "agent", *STAGES, "episodes used at the last"], body)


def heads() -> str:
    """Return of RL² with each head in training, by quarters, and in the second episode of a test task."""
    body = []
    for head in ("plain", "state-again", "hypernetwork"):
        tested = [e["summary"][-1]["return_mean"] for e in load(f"results/heads/{head}-seed*.json")]
        runs = load_lines(f"results/heads/{head}-seed*.metrics.jsonl")
        curves = [[row["return_mean"] for row in run] for run in runs]
        quarters = [
            np.mean([np.mean(curve[len(curve) * k // 4 - 8 : len(curve) * k // 4]) for curve in curves])
            for k in (1, 2, 3, 4)
        ]
        body.append([f"`{head}`", *(f"{q:.0f}" for q in quarters), ", ".join(f"{value:.0f}" for value in tested)])
    columns = ["200 k steps", "400 k", "600 k", "800 k", "test tasks, each seed"]
    return rows(["`rl2 --head`", *columns], body)


def bandits() -> str:
    """Total reward on Bernoulli bandits, and of ten episodes of a tabular MDP, of classic policies and of RL²."""
    files = [f"results/bandits/{name}.json" for name in ("classic", "recurrent", "tabular")]
    measured = [row for file in files for found in load(file) for row in found]
    settings = {
        "5 arms × 10 pulls": ("Bandit-v0", 5),
        "10 arms × 100 pulls": ("Bandit-v0", 10),
        "`TabularMDP-v0`, ten episodes": ("TabularMDP-v0", 0),
    }
    body = []
    for title, (env, arms) in settings.items():
        for row in measured:
            if row["env"] == env and row["env_options"].get("arms", 0) == arms:
                options = "".join(f" {name.replace('_', ' ')} {value}" for name, value in row["options"].items())
                reward = f"{row['total_reward']:.2f} ± {row['standard_error']:.2f}"
                body.append([title, f"`{row['agent']}`{options}", reward, f"{row['paper'] or '–'}"])
        for label, (file, paper) in RECURRENT.get(title, {}).items():
            for evaluation in load(f"results/{file}.json"):
                (row,) = evaluation["summary"]
                reward = f"{row['return_mean']:.2f} ({row['return_low']:.2f} … {row['return_high']:.2f})"
                body.append([title, label, reward, paper])
    return rows(["setting", "agent", "total reward", "paper"], body)
