"""Writes the README's tables of figures from the JSON files in docs/; `--check` only tells whether they are current.

Each table stands between `<!-- table: NAME -->` and `<!-- end -->`.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DOCS = Path(__file__).parent
README = DOCS.parent / "README.md"


def load(pattern: str) -> list[dict[str, Any]]:
    """The JSON files of docs/ that match, in the order of their names."""
    return [json.loads(path.read_text()) for path in sorted(DOCS.glob(pattern))]


def rows(header: list[str], body: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(mean: float, ci95: float) -> str:
    return f"{100 * mean:.1f} ± {100 * ci95:.1f}"


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


def speed() -> str:
    """Seconds per MAML iteration."""
    (figures,) = load("benchmarks/maml.json")
    parts = ["stepping", "policy", "adaptation", "outer update", "total"]
    peers = [
        [name, *["–"] * 4, f"{seconds:.2f}"] for name, seconds in load("benchmarks/peers.json")[0]["seconds"].items()
    ]
    body = [[label, *(f"{row[p]:.2f}" for p in parts)] for label, row in figures["seconds"].items()]
    return rows(["seconds", *parts[:-1], "iteration"], [*body, *peers])


def learn() -> str:
    """Speed of training, the parts of an iteration, and the bounds of its physics and of its update."""
    (figures,) = load("benchmarks/learn.json")
    parts = {
        "reset": "reset or drawing",
        "physics": "physics",
        "observation and reward": "observation, reward",
        "acting": "acting",
        "returns": "returns",
        "update": "update",
        "checkpoint and log": "checkpoint, log",
        "the rest": "rest",
    }
    body = []
    for name, row in figures["settings"].items():
        bounds, spent = row.get("bounds", {}), dict(row["parts"])
        if "drawing" in spent:
            spent["reset"] = spent.pop("drawing")
        shares = [f"{spent[part] / row['seconds']:.1%}" if part in spent else "–" for part in parts]
        physics = f"{bounds['physics_per_second']:,.0f}" if "physics_per_second" in bounds else "–"
        products = f"{bounds['update_over_products']:.2f} ×" if "update_over_products" in bounds else "–"
        speed = f"{row['per_second']:,.0f} {row['unit']}"
        body.append([f"`{name}`", speed, physics, *shares, products, f"{row['memory_mib']:,.0f}"])
    titles = ["per second", "`mj_step` alone", *parts.values(), "update, of its products alone", "peak MiB"]
    return rows([f"{figures['machine']['cpus']} cores", *titles], body)


def learn_beside() -> str:
    """How many times as fast training is as the version before and as peers, and what is left of it beside others."""
    (figures,) = load("benchmarks/learn.json")
    (peers,) = load("benchmarks/peers.json")
    others = {"maml-point": peers["seconds"]}
    body = []
    for name, row in figures["settings"].items():
        cells = ["–"] * 3
        if "other" in row:
            faster = row["other"]["times_faster"]
            cells = [f"{figure:.2f} ×" for figure in (faster["iteration"], faster["update"])]
            cells.append(f"{row['other']['memory_ratio']:.2f} ×")
        neighbours = row["neighbours"]["this"]["ratio"] if "neighbours" in row else None
        together = row["together"]["ratio"] if "together" in row else None
        beside = ["–" if ratio is None else f"{ratio:.2f}" for ratio in (neighbours, together)]
        faster_than = [f"{peer} {figure['ratio']:.1f} ×" for peer, figure in row.get("peers", {}).items()]
        faster_than += [f"{peer} {seconds / row['seconds']:.1f} ×" for peer, seconds in others.get(name, {}).items()]
        body.append([f"`{name}`", *cells, *beside, ", ".join(faster_than) or "–"])
    counts = [
        next((str(row[kind]["count"]) for row in figures["settings"].values() if kind in row), "no")
        for kind in ("neighbours", "together")
    ]
    titles = ["iteration, version before", "update", "memory", f"beside {counts[0]} busy processes, of alone"]
    return rows(["times as fast as", *titles, f"{counts[1]} trainings at once, of one", "peers"], body)


def rollout() -> str:
    """Environment steps per second on CPU threads beside peers, at 256 environments."""
    body = []
    for figures in load("benchmarks/rollout-cpu-*.json"):
        (row,) = (row for row in figures["rows"] if row["num_envs"] == 256)
        ratios = [f"{row['ratios'][peer]:.2f} ×" for peer in ("envpool", "gymnasium")]
        speeds = [f"{row['steps_per_second'][name]:,.0f}" for name in ("metarl", "mj_step")]
        body.append([f"`{figures['env']}`", *speeds, *ratios])
    return rows(["256 environments, 2 cores", "steps/s", "`mj_step` alone", "EnvPool", "Gymnasium async"], body)


def metaworld() -> str:
    """Environment steps per second of Meta-World's tasks beside peers; of a set beside its single tasks."""
    body = []
    for figures in load("benchmarks/metaworld-cpu-*.json"):
        (row,) = figures["rows"]
        ratios = [f"{row['ratios'][peer]:.2f} ×" if peer in row["ratios"] else "–" for peer in METAWORLD_PEERS]
        speeds = [f"{row['steps_per_second'][name]:,.0f}" for name in ("metarl", "mj_step")]
        body.append([f"`{figures['env']}`", f"{row['num_envs']}", *speeds, *ratios])
    titles = ["environments", "steps/s", "`mj_step` alone", "EnvPool", "Gymnasium async", "mean of its tasks alone"]
    return rows(["2 cores", *titles], body)


def sizes() -> str:
    """Environment steps per second by the number of environments."""
    (figures,) = load("benchmarks/rollout-sizes.json")
    counts = [f"{row['num_envs']:,}" for row in figures["rows"]]
    speeds = [f"{row['steps_per_second']['metarl']:,.0f}" for row in figures["rows"]]
    return rows(["environments", *counts], [[f"`{figures['env']}`, steps/s", *speeds]])


def device() -> str:
    """Figures of GPUs, a column for each campaign of `metarl benchmark device`, beside the CPU's."""
    campaigns = load("benchmarks/device-*.json")
    assert not any(campaign["rehearsal"] for campaign in campaigns), "a rehearsal measures nothing"
    columns = [campaign["device"]["name"] for campaign in campaigns] or ["a GPU"]
    cpu = {f"`{id}`, steps/s": cpu_speed(id) for id in DEVICE_FAMILIES} | cpu_seconds()
    body = []
    for label, (line, figure, form) in DEVICE_FIGURES.items():
        measured = [campaign["lines"].get(line, {}).get("figures", {}).get(figure) for campaign in campaigns] or [None]
        cells = ["not measured" if value is None else format(value, form) for value in measured]
        body.append([label, *cells, format(cpu[label], form) if cpu.get(label) is not None else "–"])
    return rows(["", *columns, "2 cores"], body)


def cpu_speed(id: str) -> float | None:
    """The most environment steps per second of a family on CPU threads; None if it was not measured."""
    figures = load(f"benchmarks/rollout-cpu-{id}.json") + load(f"benchmarks/metaworld-cpu-{id}.json")
    return max((row["steps_per_second"]["metarl"] for found in figures for row in found["rows"]), default=None)


def cpu_seconds() -> dict[str, float]:
    """What the trainings of the GPU's table take on CPU threads."""
    (reach,) = curves("results/rl2-ML1-reach-v3.metrics.jsonl")
    (learning,) = load("benchmarks/learn.json")
    return {
        REACH_SECONDS: next(row["wall_seconds"] for row in reach if row["success_mean"] >= 0.8),
        CHEETAH_SECONDS: 100 * learning["settings"]["maml-cheetah-quarter"]["seconds"],
    }


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
        ):
            for evaluation in load(f"results/{file}.json"):
                (row,) = [row for row in evaluation["summary"] if row["episodes_used"] == episodes]
                digits = 2 if abs(row["return_mean"]) < 10 else 0
                cells = [f"{row['return_' + key]:.{digits}f}" for key in ("mean", "low", "high")]
                figure = f"{cells[0]} ({cells[1]} … {cells[2]})"
                body.append([f"`{family}`", label, f"{episodes * horizon:,}", str(row["tasks"]), figure])
    return rows(["family", "agent", "steps of the test task", "tasks", "return"], body)


def short_episodes() -> str:
    """Returns of both versions on families whose episodes end early, up to the steps that all runs have taken."""
    body = []
    for env in ("CartPoleParams-v0", "HopperRandParams-v0"):
        for agent in ("maml", "rl2"):
            name = f"results/short-episodes/{agent}-{env}"
            found = {version: curves(f"{name}-{version}-seed*") for version in ("0.1", "0.2")}
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
            (metrics,) = curves(f"results/environments/{agent}-{name}.metrics.jsonl")
            (evaluation,) = load(f"results/environments/{agent}-{name}.evaluation.json")
            score = "return" if evaluation["success"] is None else "success"
            first, last = (evaluation["summary"][stage][f"{score}_mean"] for stage in (0, -1))
            steps, minutes = metrics[-1]["env_steps"], metrics[-1]["wall_seconds"] / 60
            body.append([f"{label}, `{agent}`", f"{steps:,}", f"{minutes:.0f}", f"{first:.2f}", f"{last:.2f}"])
    titles = ["steps", "minutes, 2 busy cores", "test tasks, before adaptation", "after it"]
    return rows(["", *titles], body)


def curves(pattern: str) -> list[list[dict[str, Any]]]:
    """The rows of each metrics.jsonl that matches."""
    return [[json.loads(line) for line in path.read_text().splitlines()] for path in sorted(DOCS.glob(pattern))]


def whole_training(run: list[dict[str, Any]]) -> float:
    """Mean return over all iterations: how early it learned."""
    return float(np.mean([row["return_mean"] for row in run]))


def end_of_training(run: list[dict[str, Any]]) -> float:
    """Mean return over the last tenth of the iterations."""
    return float(np.mean([row["return_mean"] for row in run[-max(1, len(run) // 10) :]]))


def omniglot() -> str:
    """Accuracy of the few-shot learners on 5-way Omniglot beside their papers, and what training took."""
    body = []
    for result in load("results/fewshot/omniglot-*.json"):
        for tested in (result, *result.get("further", [])):
            score = percent(tested["accuracy"], tested["ci95"])
            paper = OMNIGLOT_PAPERS.get((result["learner"], tested["shots"]), "–")
            if tested["normalisation"] == "transductive" and tested["queries"] > tested["shots"]:
                paper = "–"  # the papers have as many queries as shots, or one
            training = "the same"
            if tested is result:
                training = f"{result['training_steps']:,}, {result['training_seconds'] / 60:.0f} min"
            sizes = [str(tested[name]) for name in ("shots", "queries")]
            body.append([f"`{result['learner']}`", *sizes, score, paper, training, tested["normalisation"]])
    return rows(["5-way", "shots", "queries", "accuracy, %", "paper", "training steps, 1 core", "normalisation"], body)


def sinusoid() -> str:
    """Mean squared error of MAML on sine waves by gradient steps, for each number of shots."""
    (result,) = load("results/fewshot/maml-sinusoid.json")
    body = [["MAML paper", "5", "0.67", "0.38", "0.35"]]
    for tested in (result, *result["further"]):
        errors = {row["steps"]: f"{row['mse']:.2f} ± {row['ci95']:.2f}" for row in tested["curve"]}
        body.append(["metarl", str(tested["shots"]), *(errors[steps] for steps in (1, 5, 10))])
    return rows(["sine waves", "shots", "1 step", "5 steps", "10 steps"], body)


def fairness() -> str:
    """Accuracy and the gaps between groups on the biased table, without and with the penalty."""
    names = {
        "parity_gap": "parity gap",
        "equalised_odds_gap": "equalised-odds gap",
        "worst_group_accuracy": "worst group",
    }
    body = []
    for label, file in (("plain", "maml-biased-plain"), ("penalised", "maml-biased-fair")):
        (result,) = load(f"results/fewshot/{file}.json")
        figures = [result["metrics"][name] for name in names]
        cells = [(result["accuracy"], result["ci95"]), *((figure["mean"], figure["ci95"]) for figure in figures)]
        body.append([label, *(f"{mean:.3f} ± {half:.3f}" for mean, half in cells)])
    return rows(["MAML, biased table", "accuracy", *names.values()], body)


def mann() -> str:
    """Accuracy of the memory-augmented network by how often it has seen the class."""
    (result,) = load("results/fewshot/mann-omniglot.json")
    measured = {row["steps"] + 1: percent(row["accuracy"], row["ci95"]) for row in result["curve"]}
    body = [["MANN paper", *MANN_PAPER.values()], ["metarl", *(measured[instance] for instance in MANN_PAPER)]]
    return rows(["accuracy at a class's instance, %", *(str(instance) for instance in MANN_PAPER)], body)


def robustness() -> str:
    """Accuracy without and with an attack on the queries, trained plainly and on attacked queries."""
    body = []
    for label, file in (("plain", "maml-glyphs-plain"), ("adversarial querying", "maml-glyphs-adversarial")):
        (result,) = load(f"results/fewshot/{file}.json")
        figures = (result["metrics"][name] for name in ("natural_accuracy", "adversarial_accuracy"))
        body.append([label, *(percent(f["mean"], f["ci95"]) for f in figures)])
    return rows(["MAML, glyphs, accuracy in %", "natural", "attacked"], body)


def copy() -> str:
    """Bits lost per vector of 8 bits by the length of the sequence."""
    (figures,) = load("benchmarks/copy.json")
    titles = {"ntm": "Neural Turing Machine", "lstm": "LSTM"}
    body = []
    for name, title in titles.items():
        result = figures["networks"][name]
        bits = {int(length): value for length, value in result["bits_per_vector"].items()}
        trained = max(bits[length] for length in range(1, figures["config"]["max_length"] + 1))
        further = (f"{bits[length]:.2g}" for length in figures["config"]["test_lengths"])
        minutes = f"{result['training_seconds'] / 60:.0f}"
        body.append([title, f"{result['parameters']:,}", minutes, f"{trained:.2g}", *further])
    lengths = (f"length {length}" for length in figures["config"]["test_lengths"])
    return rows(["bits lost per vector of 8", "parameters", "minutes, 1 core", "worst of 1 to 20", *lengths], body)


def optimizer() -> str:
    """Loss after 100 steps on unseen quadratics, of the learned optimizer and of others at their best rate."""
    (figures,) = load("benchmarks/l2o.json")
    titles = {"learned": "LSTM, learned", "adam": "Adam", "rmsprop": "RMSprop", "sgd": "SGD"}
    body = []
    for name, title in titles.items():
        result = figures["optimizers"][name]
        rate = f"{result['learning_rate']:.3g}" if "learning_rate" in result else "–"
        loss = f"{result['final_loss']:.3f} ± {result['final_loss_error']:.3f}"
        body.append([title, rate, loss, f"{result['final_loss_median']:.3f}"])
    return rows(["10-d quadratics, 100 steps", "step size", "loss ± standard error", "median"], body)


def fewshot_speed() -> str:
    """Milliseconds of a training step of supervised MAML, and how many times those of others take."""
    (figures,) = load("benchmarks/fewshot.json")
    titles = {"sinusoid": "25 sine waves, 5 inner steps", "images": "32 × 5-way 1-shot images, 1 inner step"}
    body = []
    for name, title in titles.items():
        ratios = [f"{figures['times_faster'][name][peer]:.1f} ×" for peer in ("loop over tasks", "higher")]
        share = f"{figures['drawing_share'][name]:.1%}"
        body.append([title, f"{figures['milliseconds'][name]['metarl']:.0f}", *ratios, share])
    return rows(["MAML, second order", "ms", "loop over tasks", "higher", "drawing episodes"], body)


OMNIGLOT_PAPERS = {
    ("protonet", 1): "98.8",
    ("protonet", 5): "99.7",
    ("maml", 1): "98.7",
    ("maml", 5): "99.9",
    ("reptile", 1): "97.7",
    ("reptile", 5): "99.5",
    ("matching", 1): "98.1",
    ("matching", 5): "98.9",
    ("siamese", 1): "97.3",
    ("siamese", 5): "98.4",
    ("metanet", 1): "98.9",
    ("snail", 1): "99.1",
    ("snail", 5): "99.8",
    ("cnp", 1): "95.3",
    ("cnp", 5): "98.5",
}
"""Snell et al. 2017, table 1; Finn et al. 2017; Nichol et al. 2018 (transductive); Vinyals et al. 2016, table 1 (its
Siamese row included); Munkhdalai and Yu 2017; Mishra et al. 2018; Garnelo et al. 2018, table 2."""
MANN_PAPER = {1: "36.4", 2: "82.8", 5: "94.9", 10: "98.1"}
"""Santoro et al. 2016, table 1, one-hot labels, five classes."""
DEVICE_FAMILIES = {
    "HalfCheetahVel-v0": "family",
    "AntGoal-v0": "family",
    "HumanoidDir-v0": "family",
    "ML1-reach-v3": "family",
    "ML1-pick-place-v3": "family",
    "ML1-door-open-v3": "family",
    "ML10-v3": "set",
    "MT50-v3": "set",
}
REACH_SECONDS = "RL² on `ML1-reach-v3` to 80 % success, seconds"
CHEETAH_SECONDS = "MAML on `HalfCheetahDir-v0`, 100 iterations of 100 episodes a task (CPU: 20), seconds"
DEVICE_FIGURES = {
    **{f"`{id}`, steps/s": (f"{kind} {id}", "steps_per_second", ",.0f") for id, kind in DEVICE_FAMILIES.items()},
    "scripted policies, 50 tasks × 2 goals, success": ("scripted policies", "solved", ".0%"),
    REACH_SECONDS: ("learning RL2 reach", "seconds_to_goal", ",.0f"),
    CHEETAH_SECONDS: ("learning MAML cheetah", "seconds", ",.0f"),
    "MAML on 100,000 points, 10 iterations, seconds": ("learning MAML points", "seconds", ",.0f"),
    "times as fast as mtcworldmjx on reach": ("peer mtcworldmjx", "times_as_fast_reach-v3", ".2f"),
}
"""Label → line, name of its figure in campaign.json, and form."""
METAWORLD_PEERS = ("envpool", "gymnasium", "single tasks")
TABLES: dict[str, Callable[[], str]] = {
    "maml": maml,
    "beside_sb3": beside_sb3,
    "bandit": bandit,
    "reach": reach,
    "speed": speed,
    "learn": learn,
    "learn_beside": learn_beside,
    "rollout": rollout,
    "metaworld": metaworld,
    "omniglot": omniglot,
    "sinusoid": sinusoid,
    "fairness": fairness,
    "robustness": robustness,
    "mann": mann,
    "copy": copy,
    "optimizer": optimizer,
    "fewshot_speed": fewshot_speed,
    "sizes": sizes,
    "device": device,
    "cheetah": cheetah,
    "short_episodes": short_episodes,
    "environments": environments,
}


def render(text: str) -> str:
    """`text` with every table made anew."""

    def replace(match: re.Match[str]) -> str:
        return f"<!-- table: {match[1]} -->\n\n{TABLES[match[1]]()}\n\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", replace, text, flags=re.DOTALL)


if __name__ == "__main__":
    old = README.read_text()
    new = render(old)
    if "--check" in sys.argv:
        sys.exit(None if new == old else "README.md: the tables are not those of docs/: run make tables")
    README.write_text(new)
