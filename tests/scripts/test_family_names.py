"""The family that a command measures an agent on: options laid over those of the training, and leaks refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import metarl
from metarl.errors import EnvironmentFault, NumericalFault
from metarl.scripts import cli, resume
from metarl.scripts.cli import main
from metarl.seen_tasks import num_shared

FAMILY = """
import torch
import metarl
from metarl.envs.native.point_navigation import PointNavigation

class Goals(PointNavigation):
    def __init__(self, horizon=10, goals_seed=0, goal_radius=0.01):
        super().__init__(horizon)
        self.id, self.goals_seed, self.goal_radius = "Goals-v0", goals_seed, goal_radius

    def all_tasks(self, split):
        generator = torch.Generator().manual_seed(self.goals_seed + (split == "test"))
        return metarl.Tasks({"goal": torch.rand(6, 2, generator=generator) - 0.5})

    _sample = metarl.TaskDistribution._sample

def make(**options):
    return Goals(**options)
"""
SMALL = ("--iterations", "1", "--num-tasks", "2", "--envs-per-task", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    """A working directory with the family's file and two runs on it: `named`, and `unnamed`, on an instance."""
    path = tmp_path_factory.mktemp("work")
    (path / "goals_file.py").write_text(FAMILY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setattr(sys, "path", list(sys.path))
        options = ("--env-options", "goals_seed=1", "goal_radius=0.2")
        assert main(["train", "random", "--env", "goals_file:make", *options, *SMALL, "--output", "named"]) == 0
        instance = metarl.make("goals_file:Goals")
        vars(instance)["origin"] = None
        config = metarl.TrainConfig("random", instance, iterations=1, output=Path("unnamed"))
        metarl.train(config, progress=False)
        yield path


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def evaluated_goals(run: str) -> list:
    return json.loads((Path(run) / "evaluation.json").read_text())["tasks"]["parameters"]["goal"]


def test_options_are_laid_over_those_of_the_training(capsys: pytest.CaptureFixture):
    assert main(["evaluate", "named", "--tasks", "6", "--env-options", "horizon=20"]) == 0
    assert capsys.readouterr().err == "metarl: unlike the training of named: horizon 20 instead of 10\n"
    expected = metarl.make("goals_file:make", goals_seed=1).sample(6, split="test", seed=0)
    assert evaluated_goals("named") == expected.parameters["goal"].tolist()
    for same in ([], ["--env", "goals_file:make"], ["--env-options", "goals_seed=1"]):
        assert main(["evaluate", "named", "--tasks", "6", *same]) == 0
        assert capsys.readouterr().err == "", same
        assert evaluated_goals("named") == expected.parameters["goal"].tolist()
    assert main(["evaluate", "named", "--tasks", "6", "--env-options", "goal_radius=0.1"]) == 0
    assert "goal_radius 0.1 instead of 0.2" in capsys.readouterr().err


def test_training_tasks_are_refused_as_test_tasks(capsys: pytest.CaptureFixture):
    for leak in (["--env-options", "goals_seed=0"], ["--env", "goals_file:Goals"]):
        assert main(["evaluate", "named", "--tasks", "6", *leak]) == 2
        assert "6 of 6 test tasks of Goals-v0 are training tasks of the agent" in capsys.readouterr().err
        assert main(["evaluate", "named", "--tasks", "6", *leak, "--allow-training-tasks"]) == 0
        assert main(["evaluate", "named", "--tasks", "6", *leak, "--split", "train"]) == 0
    assert main(["evaluate", "named", "--tasks", "6", "--env-options", "goals_seed=5"]) == 0
    capsys.readouterr()


def test_adapt_does_the_same(capsys: pytest.CaptureFixture):
    family = metarl.make("goals_file:make", goals_seed=1)
    seen, unseen = (json.dumps({"goal": family.all_tasks(s).parameters["goal"][0].tolist()}) for s in ("train", "test"))
    assert main(["adapt", "named", "--task", seen]) == 2
    assert "1 of 1 test tasks" in capsys.readouterr().err
    assert main(["adapt", "named", "--task", seen, "--allow-training-tasks"]) == 0
    assert main(["adapt", "named", "--task", unseen, "--env-options", "horizon=4"]) == 0
    shown = capsys.readouterr()
    assert "random on Goals-v0" in shown.out
    assert shown.err == "metarl: unlike the training of named: horizon 4 instead of 10\n"


def test_another_family_of_the_same_spaces_is_named(capsys: pytest.CaptureFixture):
    assert main(["evaluate", "named", "--tasks", "5", "--env", "SparsePointNavigation-v0"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "metarl: unlike the training of named: SparsePointNavigation-v0 instead of goals_file:make, "
    )
    assert "horizon 20 instead of 10" in line
    assert "task parameter 'goal' Box float32 [2] [-1, 1] [0, 1] instead of" in line


def test_a_run_on_an_instance_is_opened_with_its_family(capsys: pytest.CaptureFixture):
    for command in (
        ["evaluate"],
        ["resume"],
        ["adapt", "--task", '{"goal": [0, 0]}'],
        ["evaluate", "--split", "train"],
    ):
        assert main([command[0], "unnamed", *command[1:]]) == 2
        assert "'Goals-v0' as its env, which no name makes again: give it, env=... or --env MODULE:NAME" in (
            capsys.readouterr().err
        )
        assert main([command[0], "unnamed", *command[1:], "--env", "goals_file:make"]) == 0
    capsys.readouterr()
    options = ["--env", "goals_file:make", "--env-options", "goals_seed=3", "horizon=5"]
    assert main(["evaluate", "unnamed", "--tasks", "5", *options]) == 0
    line = "metarl: not what unnamed was trained on: horizon 5 instead of 10, other test tasks\n"
    assert capsys.readouterr().err == line


def test_a_family_whose_code_changed_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    module = sys.modules["goals_file"]
    monkeypatch.setattr(module, "make", lambda **options: module.Goals(**{**options, "horizon": 12}))
    assert main(["evaluate", "named", "--tasks", "5"]) == 0
    assert capsys.readouterr().err == "metarl: not what named was trained on: horizon 12 instead of 10\n"


def test_a_run_is_opened_in_another_process_and_by_every_command(folder: Path):
    """The module is found in the working directory."""
    words = [sys.executable, "-m", "metarl.scripts.cli", "evaluate", "named", "--tasks", "5"]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert main(["check", "goals_file:make"]) == 0
    assert main(["resume", "named"]) == 0
    assert main(["adapt", "named", "--task", '{"goal": [0, 0]}']) == 0


def test_the_goals_of_meta_world_do_not_leak(tmp_path: Path, capsys: pytest.CaptureFixture):
    """Options that were given to the training once were dropped: 50 of 50 test goals had been training goals."""
    run = str(tmp_path / "run")
    words = ["--env", "ML1-push-v3", "--env-options", "horizon=10", "goals_seed=1", "reward=v1"]
    assert main(["train", "random", *words, *SMALL, "--output", run]) == 0
    assert main(["evaluate", run, "--tasks", "6", "--env-options", "horizon=20"]) == 0
    assert capsys.readouterr().err.endswith("horizon 20 instead of 10\n")
    expected = metarl.make("ML1-push-v3", goals_seed=1).sample(6, split="test", seed=0)
    evaluated = json.loads((Path(run) / "evaluation.json").read_text())["tasks"]["parameters"]["rand_vec"]
    assert evaluated == expected.parameters["rand_vec"].tolist()
    assert main(["evaluate", run, "--tasks", "50", "--env-options", "goals_seed=0"]) == 2
    assert "50 of 50 test tasks of ML1-push-v3 are training tasks" in capsys.readouterr().err


def test_the_bound_on_faults_reaches_the_run(capsys: pytest.CaptureFixture):
    train = ["train", "random", "--env", "Bandit-v0", *SMALL]
    assert main([*train, "--max-faults", "7", "--output", "bounded"]) == 0
    assert metarl.load_run("bounded").config.max_faults == 7
    assert main([*train, "--max-faults", "-1", "--output", "wrong"]) == 2
    assert "max_faults must be a whole number of at least 0" in capsys.readouterr().err
    assert not Path("wrong").exists()


@pytest.mark.parametrize("fault", [EnvironmentFault, NumericalFault])
def test_faults_of_numbers_get_one_line_and_exit_code_1(fault, monkeypatch: pytest.MonkeyPatch, capsys):
    def broken(arguments):
        raise fault("Mine-v0, task 3, environment 2:\nreward is nan at step 7")

    monkeypatch.setattr(resume, "main", broken)
    assert main(["resume", "anything"]) == 1
    assert capsys.readouterr().err == "metarl: error: Mine-v0, task 3, environment 2: reward is nan at step 7\n"
    assert cli.COMMANDS["resume"][0] == resume.__name__


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is in both splits")
@pytest.mark.parametrize("id", metarl.list_distributions())
def test_every_registered_family_is_evaluated_as_it_was_trained(id: str, tmp_path: Path, capsys):
    horizon = ["--env-options", "pulls=2" if id == "Bandit-v0" else "horizon=2"]
    run = str(tmp_path / "run")
    assert main(["train", "random", "--env", id, *horizon, *SMALL, "--output", run]) == 0
    capsys.readouterr()
    assert main(["evaluate", run, "--tasks", "2"]) == 0
    # Families of which training and test have the same tasks say so; nothing else is worth a remark.
    family = metarl.make(id, **({"pulls": 2} if id == "Bandit-v0" else {"horizon": 2}))
    remarks = capsys.readouterr().err.splitlines()
    assert len(remarks) == bool(num_shared(family))
    assert all(remark.endswith("are training tasks of it too") for remark in remarks)
