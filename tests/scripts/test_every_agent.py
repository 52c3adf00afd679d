"""Every agent by the command line on every kind of family: trains, resumes exactly, is evaluated, adapts and films."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch

import metarl
from metarl.envs.physics.opengl import choose_opengl
from metarl.errors import RenderingUnavailable
from metarl.experiment.checkpoints import load_checkpoint
from metarl.registry import list_agents
from metarl.scripts.cli import main

FAMILIES = {
    "PointNavigation-v0": {"horizon": 6},
    "PendulumParams-v0": {"horizon": 6},
    "HalfCheetahVel-v0": {"horizon": 6},
    "ML1-reach-v3": {"horizon": 6},
}
TABLES = {"psrl": "TabularMDP-v0"} | dict.fromkeys(("gittins", "ucb1", "thompson", "greedy"), "Bandit-v0")
"""Agents for one family of the native kind only."""
OPTIONS = {
    "maml": ["--hidden", "8"],
    "reptile": ["--hidden", "8", "--inner-steps", "2"],
    "rl2": ["--hidden", "8"],
    "varibad": ["--hidden", "8", "--policy-hidden", "8"],
    "pearl": ["--hidden", "8", "--train-tasks", "4", "--updates", "2", "--initial-episodes", "1"],
    "multitask": ["--hidden", "8"],
    "oracle": ["--hidden", "8"],
    "sb3-ppo": ["--n-steps", "6", "--batch-size", "6"],
    "sb3-recurrent-ppo": ["--n-steps", "6", "--batch-size", "6"],
    "sb3-sac": ["--batch-size", "6"],
}
PAIRS = [(agent, id) for agent in list_agents() for id in ([TABLES[agent]] if agent in TABLES else FAMILIES)]


@pytest.fixture(scope="module")
def opengl() -> bool:
    """Whether pictures can be drawn here."""
    try:
        choose_opengl()
    except RenderingUnavailable:
        return False
    return True


def command(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.mark.slow
@pytest.mark.parametrize(("agent", "id"), PAIRS)
def test_it_trains_resumes_exactly_is_evaluated_adapts_and_films(
    agent: str, id: str, tmp_path: Path, opengl: bool
) -> None:
    if agent == "sb3-recurrent-ppo":
        pytest.importorskip("sb3_contrib")
    run, other = tmp_path / "run", tmp_path / "other"
    horizon = ["--env-options", f"horizon={FAMILIES[id]['horizon']}"] if id in FAMILIES else []
    options = ["--num-tasks", 2, "--envs-per-task", 2, *OPTIONS.get(agent, [])]
    bounds = ["--iterations", 3, "--checkpoint-every", 1, "--output", run]
    assert command("train", agent, "--env", id, *horizon, *options, *bounds) == 0
    shutil.copytree(run, other)
    for path in other.glob("checkpoints/iteration-000003.*"):  # as if killed in the third iteration
        path.unlink()
    assert command("resume", other) == 0
    straight, resumed = load_checkpoint(run).tensors, load_checkpoint(other).tensors
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    file = tmp_path / "evaluation.json"
    assert command("evaluate", run, "--tasks", 2, "--episodes", 2, "--json", file) == 0
    assert torch.tensor(json.loads(file.read_text())["returns"]).isfinite().all()
    task = metarl.make(id, **FAMILIES.get(id, {})).sample(1, split="test", seed=3)
    given = json.dumps({name: value[0].tolist() for name, value in task.parameters.items()})
    drawn = opengl and id in FAMILIES and (id != "PendulumParams-v0" or importlib.util.find_spec("pygame") is not None)
    film = ["--video", tmp_path / "adapt.mp4"] if drawn else []
    assert command("adapt", run, "--task", given, "--episodes", 2, *film) == 0
    assert not film or (tmp_path / "adapt.mp4").stat().st_size > 0
