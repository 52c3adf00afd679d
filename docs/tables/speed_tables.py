"""How fast it is, beside bounds, peers and versions before."""

from sources import load, load_lines, rows

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
    (reach,) = load_lines("results/rl2-ML1-reach-v3.metrics.jsonl")
    (learning,) = load("benchmarks/learn.json")
    return {
        REACH_SECONDS: next(row["wall_seconds"] for row in reach if row["success_mean"] >= 0.8),
        CHEETAH_SECONDS: 100 * learning["settings"]["maml-cheetah-quarter"]["seconds"],
    }


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
