"""The commands, each through `main` as a shell would call it."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from films import frames_of

import metarl
from metarl import registry
from metarl.envs.native.point_navigation import PointNavigation
from metarl.scripts.arguments import key_values
from metarl.scripts.cli import COMMANDS, main

TRAIN = ("--env", "PointNavigation-v0", "--env-options", "horizon=8", "--iterations", "2")
SMALL = ("--num-tasks", "3", "--envs-per-task", "4", "--hidden", "8", "--first-order")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "maml"
    assert main(["train", "maml", *TRAIN, *SMALL, "--seed", "5", "--output", str(path)]) == 0
    return path


def test_help_and_the_list_of_commands_do_not_wait_for_torch():
    program = "import sys; from metarl.scripts.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


def test_the_installed_command_answers():
    command = Path(sys.executable).with_name("metarl")
    done = subprocess.run([command, "envs", "--json"], capture_output=True, text=True)
    assert done.returncode == 0
    assert [row["id"] for row in json.loads(done.stdout)] == metarl.list_distributions()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as exit:
        main([name, "--help"])
    assert exit.value.code == 0
    assert f"usage: metarl {name}" in capsys.readouterr().out


def test_the_agent_and_the_environment_decide_the_options(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        main(["train", "maml", "--help"])
    shown = capsys.readouterr().out
    assert "--inner-lr FLOAT" in shown
    assert "--first-order" in shown
    assert "default: 0.1" in shown
    with pytest.raises(SystemExit):
        main(["train", "random", "--help"])
    assert "--inner-lr" not in capsys.readouterr().out
    for env in ("Bandit-v0", "PointNavigation-v0"):
        with pytest.raises(SystemExit):
            main(["train", "rl2", "--env", env, "--help"])
        spec = metarl.EnvSpec.of(metarl.make(env))
        expected = metarl.registry.agent_class("rl2").default_config(spec).num_tasks
        assert f"Tasks per iteration (M). (default: {expected})" in capsys.readouterr().out


def test_train_passes_its_options_on(run: Path):
    config = metarl.load_run(run).config
    assert (config.agent, config.env, config.env_options) == ("maml", "PointNavigation-v0", {"horizon": 8})
    assert (config.iterations, config.steps, config.seed) == (2, None, 5)
    options = config.agent_options
    assert (options.num_tasks, options.envs_per_task, options.hidden) == (3, 4, (8,))
    assert options.first_order


@pytest.mark.parametrize("command", ["train", "evaluate", "adapt", "resume"])
def test_a_command_makes_its_distribution_once(
    command: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    copy, made = shutil.copytree(run, tmp_path / "copy"), []

    def factory(horizon: int) -> PointNavigation:
        made.append(horizon)
        return PointNavigation(horizon=horizon)

    monkeypatch.setitem(registry._distributions, "PointNavigation-v0", factory)
    arguments = {
        "train": ["maml", *TRAIN, *SMALL, "--output", str(tmp_path / "new")],
        "evaluate": [str(copy), "--tasks", "2", "--episodes", "4"],
        "adapt": [str(copy), "--task", '{"goal": [0.3, 0.1]}', "--episodes", "4"],
        "resume": [str(copy)],
    }
    assert main([command, *arguments[command]]) == 0
    assert made == [8]


def test_nested_options_of_the_command_line_keep_the_defaults_of_the_agent(tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "my_agent.py").write_text(OWN_AGENT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    words = ["my_agent:Mine", *TRAIN, "--num-tasks", "2", "--envs-per-task", "2", "--region.max-kl", "0.02"]
    assert main(["train", *words]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path == Path("runs/my_agent-Mine-PointNavigation-v0-seed0")
    options = metarl.load_run(path).config.agent_options
    assert (options.region.max_kl, options.region.damping) == (0.02, 0.008)
    config = metarl.TrainConfig("my_agent:Mine", "PointNavigation-v0", agent_options={"region": {"max_kl": 0.02}})
    assert config.resolve().options.region.damping == 0.1


OWN_AGENT = """
from dataclasses import dataclass, field
from metarl import AgentConfig
from metarl.agents.random import RandomAgent

@dataclass(frozen=True)
class Region:
    max_kl: float = 0.01
    damping: float = 1e-5

@dataclass(frozen=True)
class MineConfig(AgentConfig):
    region: Region = field(default_factory=Region)

class Mine(RandomAgent):
    config_class = MineConfig

    @classmethod
    def default_config(cls, spec):
        return MineConfig(region=Region(damping=spec.horizon / 1000))
"""


def test_results_go_to_stdout_and_progress_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["train", "random", *TRAIN, "--output", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{tmp_path / 'run'}\n"
    assert "iteration 2/2" in shown.err
    assert "\x1b" not in shown.err
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'run'}\n"


def test_envs_prints_what_the_distributions_are(capsys: pytest.CaptureFixture):
    assert main(["envs", "--json"]) == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == metarl.list_distributions()
    assert rows["PointNavigation-v0"] == {
        "id": "PointNavigation-v0",
        "observation_shape": [2],
        "action_shape": [2],
        "num_actions": None,
        "horizon": 100,
        "backends": ["torch"],
    }
    assert rows["Bandit-v0"]["num_actions"] == 5


def test_envs_folds_the_fifty_of_a_kind_and_a_pattern_shows_them(capsys: pytest.CaptureFixture):
    def shown(*words: str) -> list[str]:
        assert main(["envs", *words]) == 0
        return [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith(("│", "|"))]

    folded = shown()
    assert len(folded) < 40
    assert {"PointNavigation-v0", "ML1-...", "MT1-...", "ML10-v3"} <= set(folded)
    every = metarl.list_distributions()
    assert shown("ml1-") == [id for id in every if id.startswith("ML1-")]
    assert shown("ML1-door*") == [id for id in every if id.startswith("ML1-door")]
    assert main(["envs", "cheetah", "--json"]) == 0
    assert all("HalfCheetah" in row["id"] for row in json.loads(capsys.readouterr().out))
    assert main(["envs", "PontNavigation"]) == 2
    assert "no task distribution has 'PontNavigation' in its id; did you mean" in capsys.readouterr().err


def test_evaluate_prints_and_writes_the_stages(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    file = tmp_path / "result.json"
    assert main(["evaluate", str(run), "--tasks", "5", "--episodes", "8", "--seed", "1", "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    result = json.loads(file.read_text())
    assert file.read_text() == (run / "evaluation.json").read_text()
    assert (run / "plots" / "adaptation.png").read_bytes().startswith(b"\x89PNG")
    agent = metarl.load_agent(run)
    expected = metarl.evaluate(agent, metarl.make("PointNavigation-v0", horizon=8), num_tasks=5, episodes=8, seed=1)
    assert result == json.loads(dataclasses.replace(expected, iteration=2).to_json())
    assert result["episodes_used"] == [0, 4, 8]
    for row in result["summary"]:
        for key in ("return_mean", "return_iqm", "return_low", "return_high"):
            assert f"{row[key]:.2f}" in shown


def test_few_tasks_have_no_interval(run: Path, capsys: pytest.CaptureFixture):
    """Two goals once each: the means alone, and a line that says why."""
    assert main(["evaluate", str(run), "--tasks", "2", "--episodes", "4"]) == 0
    shown = capsys.readouterr().out
    assert "2 tasks once each: no interval" in shown
    assert "95 % interval" not in shown
    rows = json.loads((run / "evaluation.json").read_text())["summary"]
    assert rows[0]["return_low"] is None
    assert f"{rows[0]['return_mean']:.2f}" in shown
    assert main(["report", str(run), "--output", str(run.parent / "report")]) == 0
    assert f"return after 0 episodes {rows[0]['return_mean']:.4g};" in capsys.readouterr().out


def test_evaluate_on_another_family_shows_success(run: Path, capsys: pytest.CaptureFixture):
    arguments = ["--env", "SparsePointNavigation-v0", "--tasks", "2", "--env-options", "goal_radius=0.5", "horizon=4"]
    assert main(["evaluate", str(run), *arguments]) == 0
    assert "success" in capsys.readouterr().out
    assert json.loads((run / "evaluation.json").read_text())["success"] is not None


def test_adapt_prints_each_stage_and_films_before_and_after(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    task, video = tmp_path / "task.json", tmp_path / "film.mp4"
    task.write_text('{"goal": [0.3, 0.1]}')
    assert main(["adapt", str(run), "--task", str(task), "--episodes", "4", "--video", str(video)]) == 0
    from_file, _, said = capsys.readouterr().out.rstrip("\n").rpartition("\n")
    assert said == str(video), "where the film is"
    assert len(frames_of(video, 304, 528)) == 8 + 1 + 30, "an episode before beside one after, and its end for a second"
    assert main(["adapt", str(run), "--task", '{"goal": [0.3, 0.1]}', "--episodes", "4"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == from_file.splitlines()[1:]
    agent, distribution = metarl.load_agent(run), metarl.make("PointNavigation-v0", horizon=8)
    expected = metarl.evaluate(agent, distribution, tasks=distribution.task(goal=[0.3, 0.1]), episodes=4)
    for used, value in zip(expected.episodes_used, expected.returns[0].tolist(), strict=True):
        assert any(str(used) in line and f"{value:.2f}" in line for line in from_file.splitlines())


def test_adapt_goes_on_without_a_film_that_cannot_be_drawn(tmp_path: Path, capsys: pytest.CaptureFixture):
    """Without an OpenGL that works: `MUJOCO_GL=glfw` and no display."""
    config = metarl.TrainConfig("random", "HopperRandParams-v0", {"horizon": 5}, iterations=1, output=tmp_path / "run")
    run = metarl.train(dataclasses.replace(config, agent_options={"num_tasks": 1, "envs_per_task": 1}), progress=False)
    family = metarl.make("HopperRandParams-v0", horizon=5)
    task = json.dumps({n: v[0].tolist() for n, v in family.sample(1, split="test", seed=0).parameters.items()})
    command = [sys.executable, "-m", "metarl.scripts.cli", "adapt", str(run), "--task", task, "--video", "film.mp4"]
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"} | {"MUJOCO_GL": "glfw"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "episodes used" in done.stdout
    assert "going on without the film: MuJoCo cannot draw with MUJOCO_GL=glfw" in done.stderr
    assert not (tmp_path / "film.mp4").exists()


OWN_FAMILY = """
from metarl.envs.native.point_navigation import PointNavigation

class Mine(PointNavigation):
    def __init__(self):
        super().__init__(horizon=6)
        self.id = "Mine-v0"

class Lying(Mine):
    def observe(self, state):
        return super().observe(state).double()

broken = Lying()
"""


def test_a_family_of_ones_own_is_named_by_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    (tmp_path / "my_own_family.py").write_text(OWN_FAMILY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["train", "random", "--env", "my_own_family:Mine", "--iterations", "1"]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path == Path("runs/random-my_own_family-Mine-seed0")
    assert main(["evaluate", str(path), "--tasks", "6"]) == 0
    assert "random on Mine-v0, 6 test tasks" in capsys.readouterr().out
    assert metarl.load_run(path).distribution.horizon == 6
    assert metarl.make("my_own_family:broken").id == "Mine-v0"


def test_check_judges_a_family_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    (tmp_path / "my_family.py").write_text(OWN_FAMILY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["check", "my_family:Mine"]) == 0
    assert "Mine-v0 keeps the contract" in capsys.readouterr().out
    assert main(["check", "my_family:broken"]) == 1
    assert "float32" in capsys.readouterr().err


def test_an_error_of_the_program_is_no_error_of_the_user(tmp_path: Path):
    """A module that raises when imported shows its traceback, with exit code 1."""
    (tmp_path / "broken.py").write_text("1 / 0")
    command = Path(sys.executable).with_name("metarl")
    done = subprocess.run([command, "check", "broken:X"], capture_output=True, text=True, cwd=tmp_path, env=os.environ)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_numbers_of_options_are_those_that_people_write():
    """PyYAML alone takes 1e-3 for text."""
    found = key_values(["a=1e-3", "b=-2", "c=true", "d=[1e2, x]", "e=.5e1", "f='1e-3'"], "--env-options")
    assert found == {"a": 0.001, "b": -2, "c": True, "d": [100.0, "x"], "e": 5.0, "f": "1e-3"}
    with pytest.raises(metarl.UsageError, match="--env-options a: '\\[' is not valid YAML"):
        key_values(["a=["], "--env-options")


def test_check_gives_options_to_the_family(capsys):
    assert main(["check", "PointNavigation-v0", "--env-options", "horizon=7"]) == 0
    assert "keeps the contract" in capsys.readouterr().out
    assert main(["check", "PointNavigation-v0", "--env-options", "horizon=0"]) == 2
    assert "horizon" in capsys.readouterr().err
