"""The commands, each through `main` as a shell would call it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import imageio
import pytest

import metarl
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
    assert main(["envs"]) == 0
    assert all(id in capsys.readouterr().out for id in ["PointNavigation-v0"])


def test_evaluate_prints_and_writes_the_stages(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    file = tmp_path / "result.json"
    assert main(["evaluate", str(run), "--tasks", "5", "--episodes", "8", "--seed", "1", "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    result = json.loads(file.read_text())
    assert file.read_text() == (run / "evaluation.json").read_text()
    assert (run / "plots" / "adaptation.png").read_bytes().startswith(b"\x89PNG")
    agent = metarl.load_agent(run)
    expected = metarl.evaluate(agent, metarl.make("PointNavigation-v0", horizon=8), num_tasks=5, episodes=8, seed=1)
    assert result == json.loads(expected.to_json())
    assert result["episodes_used"] == [0, 4, 8]
    for row in result["summary"]:
        for key in ("return_mean", "return_iqm", "return_low", "return_high"):
            assert f"{row[key]:.2f}" in shown


def test_evaluate_on_another_family_shows_success(run: Path, capsys: pytest.CaptureFixture):
    arguments = ["--env", "SparsePointNavigation-v0", "--tasks", "2", "--env-options", "goal_radius=0.5", "horizon=4"]
    assert main(["evaluate", str(run), *arguments]) == 0
    assert "success" in capsys.readouterr().out
    assert json.loads((run / "evaluation.json").read_text())["success"] is not None


def test_adapt_prints_each_stage_and_films_before_and_after(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    task, video = tmp_path / "task.json", tmp_path / "film.mp4"
    task.write_text('{"goal": [0.3, 0.1]}')
    assert main(["adapt", str(run), "--task", str(task), "--episodes", "4", "--video", str(video)]) == 0
    from_file = capsys.readouterr().out
    with imageio.get_reader(video) as reader:
        assert reader.count_frames() == 2 * 8, "an episode before and one after"
    assert main(["adapt", str(run), "--task", '{"goal": [0.3, 0.1]}', "--episodes", "4"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == from_file.splitlines()[1:]
    agent, distribution = metarl.load_agent(run), metarl.make("PointNavigation-v0", horizon=8)
    expected = metarl.evaluate(agent, distribution, tasks=distribution.task(goal=[0.3, 0.1]), episodes=4)
    for used, value in zip(expected.episodes_used, expected.returns[0].tolist(), strict=True):
        assert any(str(used) in line and f"{value:.2f}" in line for line in from_file.splitlines())


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
