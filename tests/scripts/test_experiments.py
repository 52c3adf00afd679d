"""The experiments of scripts/experiments run in a short form, leave their results, and stay short enough to copy."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import metarl
from metarl.scripts.experiments import plan_by_shooting
from metarl.scripts.experiments.arm import ArmTasks

FOLDER = Path(__file__).parent.parent.parent / "scripts" / "experiments"
OF_THE_ARM = {
    "adapt_to_own_task": ["--mass", "3", "--steps", "100"],
    "identify_robot": ["--tasks", "200"],
    "plan_by_shooting": ["--tasks", "2", "--candidates", "2", "4", "--depth", "4"],
}
"""Experiments with a trained agent, and the arguments of their short form."""
OTHERS = {
    "compare_agents": ["--steps", "100", "--agents", "multitask", "random"],
    "demonstrations": ["--tasks", "reach-v3", "--horizon", "60", "--epochs", "2"],
    "domain_randomisation": ["--steps", "100", "--widths", "0.1", "--factors", "0.5", "1"],
}
NO_EXPERIMENTS = {"__init__", "arm", "experiment"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An agent that has hardly been trained on the arm."""
    output = tmp_path_factory.mktemp("arm") / "run"
    config = metarl.TrainConfig("rl2", ArmTasks, iterations=2, output=output, agent_options={"num_tasks": 4})
    return metarl.train(config, progress=False)


def result_of(name: str, arguments: list[str], tmp_path: Path) -> dict:
    importlib.import_module(f"metarl.scripts.experiments.{name}").main([*arguments, "--output", str(tmp_path / "out")])
    return json.loads((tmp_path / "out" / "result.json").read_text())


def test_every_script_is_among_these():
    assert {path.stem for path in FOLDER.glob("*.py")} == OF_THE_ARM.keys() | OTHERS.keys() | NO_EXPERIMENTS


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_a_script_is_short(path):
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    assert len(lines) < 60


def test_the_arm_is_a_family():
    metarl.check_distribution(ArmTasks())


def test_adapting_to_a_task_of_ones_own(run, tmp_path):
    arguments = ["--run", str(tmp_path / "run"), *OF_THE_ARM["adapt_to_own_task"]]
    with pytest.raises(metarl.UsageError, match="a run with other settings"):
        result_of("adapt_to_own_task", ["--run", str(run), *OF_THE_ARM["adapt_to_own_task"]], tmp_path)
    result = result_of("adapt_to_own_task", arguments, tmp_path)
    assert {name: len(returns) for name, returns in result["returns"].items()} == {"unseen tasks": 3, "own task": 3}
    assert (tmp_path / "out" / "result.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("script", "arguments", "refusal"),
    [
        (
            "adapt_to_own_task",
            ["--target", "3", "0.2", "--run", "arm"],
            "task parameter 'target': 3.0 is out of range, want shape (2,) in [-1, 1]",
        ),
        ("domain_randomisation", ["--factors", "1", "9", "--output", "out"], "'body_mass': 9.0 is out of range"),
    ],
)
def test_a_task_out_of_range_is_refused_in_a_line_before_the_training(script, arguments, refusal, tmp_path):
    command = [sys.executable, str(FOLDER / f"{script}.py"), *arguments, "--steps", "1000"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    assert refusal in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_robot_is_identified_better_after_more_of_it(run, tmp_path):
    result = result_of("identify_robot", [str(run), *OF_THE_ARM["identify_robot"]], tmp_path)
    assert result["explained"].keys() == {"1", "2"}
    # Even an untrained memory holds what has happened: far more than nothing can be read off it.
    assert result["explained"]["2"]["friction"] > 0.2


def test_only_a_memory_can_be_read(tmp_path):
    config = metarl.TrainConfig("random", ArmTasks, iterations=1, output=tmp_path / "run")
    run = metarl.train(config, progress=False)
    with pytest.raises(metarl.UsageError, match="memory of rl2"):
        result_of("identify_robot", [str(run)], tmp_path)


def test_planning_beside_an_agent(run, tmp_path):
    result = result_of("plan_by_shooting", [str(run), *OF_THE_ARM["plan_by_shooting"]], tmp_path)
    assert len(result["returns"]) == 4
    assert all(value < 0 for value in result["returns"].values())


def test_a_plan_is_the_best_of_its_candidates():
    """The chosen action, followed from the same state, gives the highest return of all candidates."""
    env = ArmTasks().make_env(num_tasks=2)
    env.set_tasks(ArmTasks().sample(2, seed=0))
    env.reset(seed=0)
    before = {name: rows.clone() for name, rows in env.get_state().items()}
    planner = plan_by_shooting.RandomShooting(env, candidates=6, depth=1)
    chosen = planner.act(torch.zeros(2, 1, 4)).actions.flatten(0, 1)
    assert all(torch.equal(rows, before[name]) for name, rows in env.get_state().items())
    space = env.single_action_space
    unit = torch.rand(2, 12, 2, generator=torch.Generator().manual_seed(0))[0]
    candidates = (torch.as_tensor(space.low) + torch.as_tensor(space.high - space.low) * unit).view(2, 6, 2)
    rewards = []
    for number in range(6):
        env.set_state(before)
        rewards.append(env.step(candidates[:, number])[1])
    env.set_state(before)
    assert torch.equal(env.step(chosen)[1], torch.stack(rewards).amax(0))


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_the_others_in_a_short_form(name, tmp_path):
    result = result_of(name, OTHERS[name], tmp_path)
    if name == "demonstrations":
        assert result["results"]["reach-v3"]["scripted"]["success"] > result["results"]["reach-v3"]["random"]["success"]
    else:
        assert (tmp_path / "out" / "result.png").stat().st_size > 0
