"""Names of things: what is registered, what can be imported, and what lies in a script."""

import functools
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest

import metarl
from metarl import registry
from metarl.distribution import Origin
from metarl.envs.native.bandit import Bandit
from metarl.importing import importable_name
from metarl.registry import name_of
from metarl.scripts.cli import main


def test_what_can_be_imported_has_a_name():
    assert importable_name(Bandit) == "metarl.envs.native.bandit:Bandit"
    assert importable_name(metarl.make) == "metarl.registry:make"

    class Local(Bandit):
        pass

    for nameless in (Local, lambda: None, Bandit(), functools.partial(Bandit, arms=3), Bandit.sample, 3):
        assert importable_name(nameless) is None


def test_a_registered_thing_is_named_by_its_id(monkeypatch: pytest.MonkeyPatch):
    assert name_of("environment", Bandit) == "Bandit-v0"
    assert name_of("agent", registry.agent_class("maml")) == "maml"
    short = functools.partial(Bandit, pulls=2)
    monkeypatch.setitem(registry._distributions, "ShortBandit-v0", short)
    assert name_of("environment", short) == "ShortBandit-v0"


def test_a_distribution_knows_what_it_was_made_of():
    assert metarl.make("Bandit-v0", arms=3).origin == Origin("Bandit-v0", {"arms": 3})
    assert metarl.make(Bandit, arms=3).origin == Origin("Bandit-v0", {"arms": 3})
    assert metarl.make(lambda: Bandit()).origin is None
    own = Bandit()
    assert metarl.make(own) is own
    assert own.origin is None
    made = metarl.make("Bandit-v0", arms=3)
    assert metarl.make(made).origin == Origin("Bandit-v0", {"arms": 3})


def test_environments_of_gymnasium_are_told_apart_from_families():
    way_out = r"metarl\.GymnasiumDistribution"
    with pytest.raises(metarl.UsageError, match=f"CartPole-v1 is an environment of Gymnasium.*{way_out}"):
        metarl.make("CartPole-v1")
    with pytest.raises(metarl.UsageError, match=f"CartPoleEnv is no TaskDistribution.*{way_out}"):
        metarl.make("gymnasium.envs.classic_control.cartpole:CartPoleEnv")
    with pytest.raises(metarl.UsageError, match=way_out):
        metarl.make(lambda: gymnasium.make("CartPole-v1"))
    assert metarl.GymnasiumDistribution.__module__ == "metarl.envs.gymnasium_env"
    assert "GymnasiumDistribution" in dir(metarl)


def test_a_file_that_an_installed_module_hides_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "json.py").write_text("class Mine: pass")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(metarl.UsageError, match=r"json has no 'Mine'; it is an installed module that hides json\.py"):
        metarl.make("json:Mine")


SCRIPT = """
import sys
import metarl
from metarl.envs.native.bandit import Bandit

class Mine(Bandit):
    pass

def run():
    config = metarl.TrainConfig("random", Mine, iterations=1, agent_options={"num_tasks": 1, "envs_per_task": 1})
    print(metarl.train(config, progress=False))

GUARD
"""


def test_a_family_in_a_script_is_named_by_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    (tmp_path / "guarded_study.py").write_text(SCRIPT.replace("GUARD", "if __name__ == '__main__':\n    run()"))
    done = subprocess.run([sys.executable, "guarded_study.py"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "runs/random-guarded_study-Mine-seed0\n"), done.stderr
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["resume", done.stdout.strip()]) == 0
    assert "is complete" in capsys.readouterr().err


def test_a_script_that_trains_when_it_is_imported_does_not_train_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    (tmp_path / "unguarded_study.py").write_text(SCRIPT.replace("GUARD", "run()"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["check", "unguarded_study:Mine"]) == 2
    message = "unguarded_study calls metarl.train when it is imported: put the call under if __name__"
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
