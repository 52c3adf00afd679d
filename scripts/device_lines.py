"""The lines of `metarl benchmark device`, in order of worth, and what their rows say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROBOTS = ("HalfCheetahVel-v0", "AntGoal-v0", "HumanoidDir-v0")
SINGLE_TASKS = ("ML1-reach-v3", "ML1-pick-place-v3", "ML1-door-open-v3")
SETS = {"ML10-v3": (10, 512), "MT50-v3": (50, 128)}
"""Tasks, and environments of each."""
LEARNED_ON = "HalfCheetahDir-v0"
FAMILIES = (*ROBOTS, *SINGLE_TASKS, *SETS, LEARNED_ON)
"""All families of the campaign that Warp steps."""
WORLDS = (1024, 4096, 8192, 16384)
PEER_TASKS = ("reach-v3", "pick-place-v3", "door-open-v3")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """What one process measures: `kind` is a function of `device_worker`, `options` are its further arguments."""

    name: str
    kind: str
    options: Mapping[str, Any]
    limit: float
    """Seconds after which it is ended, if so many are left."""
    counted: bool = True
    """Whether its time is part of the campaign's minutes."""


def full_lines(peer_python: str | None) -> tuple[Line, ...]:
    """The campaign on a GPU."""
    speed = {"num_envs": WORLDS, "seconds": 0.5, "repeats": 3, "apart": 4096}
    parity = {"num_tasks": 8, "envs_per_task": 8, "steps": 20}
    peer = {"python": peer_python, "envs": PEER_TASKS, "num_envs": 4096, "steps": 50, "seconds": 1.0}
    point = {"num_tasks": 1000, "envs_per_task": 100, "curvature_fraction": 0.1}
    return (
        Line("gpu tests", "gpu_tests", {}, 120.0),
        *(_family(id, speed, parity, 90.0) for id in (*ROBOTS, *SINGLE_TASKS)),
        *(_set(id, tasks, tasks * each, 0.5, 3, 90.0) for id, (tasks, each) in SETS.items()),
        Line("scripted policies", "scripted", {"names": None, "goals": 2, "steps": 500}, 90.0),
        _learning("learning RL2 reach", 240.0, "rl2", "ML1-reach-v3", iterations=200, preset="gpu", until=0.8),
        _learning("learning MAML cheetah", 150.0, "maml", LEARNED_ON, iterations=100, preset="gpu"),
        _learning(
            "learning MAML points",
            90.0,
            "maml",
            "PointNavigation-v0",
            iterations=10,
            agent_options=point,
            env_options={"horizon": 50},
        ),
        Line("peer mtcworldmjx", "peer", peer, 120.0),
    )


def rehearsal_lines(peer_python: str | None) -> tuple[Line, ...]:
    """The same on Warp's CPU device, as small as can be. What it compiles beforehand does not count."""
    speed = {"num_envs": (8,), "seconds": 0.01, "repeats": 1, "apart": 8}
    parity = {"num_tasks": 2, "envs_per_task": 2, "steps": 5}
    peer = {"python": peer_python, "envs": PEER_TASKS[:1], "num_envs": 8, "steps": 5, "seconds": 0.01}
    few = {"num_tasks": 2, "envs_per_task": 2}
    short = {"horizon": 5}
    rl2 = {"num_tasks": 2, "minibatches": 1, "epochs": 1}
    families, limit = (ROBOTS[0], SINGLE_TASKS[0]), 180.0
    return (
        *(Line(f"kernels of {id}", "kernels", {"env": id, "num_tasks": 2}, 600.0, False) for id in (*families, *SETS)),
        Line("gpu tests", "gpu_tests", {}, limit),
        *(_family(id, speed, parity, limit) for id in families),
        *(_set(id, 2, 4, 0.01, 1, limit) for id in SETS),
        Line("scripted policies", "scripted", {"names": PEER_TASKS[:1], "goals": 1, "steps": 20}, limit),
        _learning(
            "learning RL2 reach", limit, "rl2", "ML1-reach-v3", 1, agent_options=rl2, env_options=short, until=0.8
        ),
        _learning("learning MAML cheetah", limit, "maml", ROBOTS[0], 1, agent_options=few, env_options=short),
        _learning("learning MAML points", limit, "maml", "PointNavigation-v0", 1, agent_options=few),
        Line("peer mtcworldmjx", "peer", peer, limit),
    )


def _family(id: str, speed: Mapping[str, Any], parity: Mapping[str, Any], limit: float) -> Line:
    options = {"speed_options": {"env": id, **speed}, "parity_options": {"env": id, **parity}}
    return Line(f"family {id}", "family", options, limit)


def _set(id: str, tasks: int, count: int, seconds: float, repeats: int, limit: float) -> Line:
    options = {"env": id, "num_envs": (count,), "num_tasks": tasks, "seconds": seconds, "repeats": repeats}
    return Line(f"set {id}", "speed", options | {"apart": count}, limit)


def _learning(name: str, limit: float, agent: str, env: str, iterations: int, **options: Any) -> Line:
    return Line(name, "learning", {"agent": agent, "env": env, "iterations": iterations, **options}, limit)


def figures_of(kind: str, rows: Sequence[Row]) -> dict[str, float]:
    """The figures that a line's rows come down to, by name; empty if there are none yet."""
    found: dict[str, float] = {}
    speeds = [row for row in rows if "steps_per_second" in row]
    for graph, name in (("default", "steps_per_second"), ("off", "steps_per_second_without_graph")):
        measured = [row for row in speeds if row["graph"] == graph]
        if measured:
            best = max(measured, key=lambda row: row["steps_per_second"])
            found |= {name: best["steps_per_second"], f"{name}_worlds": best["num_envs"]}
    for row in rows:
        if "quantity" in row:
            found[f"max_error_{row['quantity']}"] = row["max_error"]
        elif "solved" in row:
            found["solved"] = row["solved"] / row["episodes"]
        elif "ratio" in row:
            found[f"times_as_fast_{row['env']}"] = row["ratio"]
        elif kind == "gpu_tests" and row.get("run"):
            found |= {name: row[name] for name in ("tests", "failures", "errors", "skipped")}
        elif "whole" in row:
            found |= {name: row["whole"][name] for name in ("seconds", "iteration", "env_steps", "return_mean")}
            found |= {"seconds_to_goal": row["whole"]["seconds"]} if row["reached"] else {}
    return found


def told(figures: Mapping[str, float]) -> str:
    """Figures in words."""
    return ", ".join(
        f"{name.replace('_', ' ')} {value:,.0f}" if value >= 1000 else f"{name.replace('_', ' ')} {value:.3g}"
        for name, value in figures.items()
    )
