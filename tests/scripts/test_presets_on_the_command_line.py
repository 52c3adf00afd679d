"""`metarl train --preset` and `metarl presets`."""

import json
from pathlib import Path

import pytest
import yaml

import metarl
from metarl import UsageError, registry
from metarl.agents.maml import MAMLConfig
from metarl.presets import Preset
from metarl.scripts.cli import main

PRESET = Preset(
    name="small",
    env="SparsePointNavigation-v0",
    env_options={"horizon": 6, "goal_radius": 0.3},
    config=MAMLConfig(num_tasks=3, envs_per_task=4, hidden=(8,), first_order=True, inner_lr=0.2),
    iterations=2,
    source="a test",
    expected="2 iterations",
)
TRAIN = ("train", "maml", "--env", "SparsePointNavigation-v0", "--preset", "small")


@pytest.fixture(autouse=True)
def presets(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.list_agents()  # loads the plugins
    monkeypatch.setitem(registry._presets, "maml", (PRESET,))


def trained(folder: Path, *flags: str) -> dict:
    assert main([*TRAIN, *flags, "--output", str(folder)]) == 0
    return yaml.safe_load((folder / "config.yaml").read_text())


def test_a_run_has_the_options_of_its_preset(tmp_path: Path):
    config = trained(tmp_path / "run")
    assert config["env_options"] == {"horizon": 6, "goal_radius": 0.3}
    assert (config["iterations"], config["steps"]) == (2, None)
    options = config["agent_options"]
    assert (options["num_tasks"], options["hidden"], options["inner_lr"]) == (3, [8], 0.2)
    assert metarl.load_agent(tmp_path / "run").config == PRESET.config


def test_any_flag_takes_the_place_of_what_the_preset_says(tmp_path: Path):
    config = trained(tmp_path / "run", "--num-tasks", "2", "--env-options", "horizon=5", "--steps", "80")
    assert config["env_options"] == {"horizon": 5, "goal_radius": 0.3}
    assert config["agent_options"]["num_tasks"] == 2
    assert config["agent_options"]["inner_lr"] == 0.2
    assert (config["iterations"], config["steps"]) == (None, 80)


def test_help_shows_the_options_of_the_preset_as_defaults(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        main([*TRAIN, "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for text in ("(default: small)", "(default: horizon=6 goal_radius=0.3)", "(default: 0.2)", "(default: 3)"):
        assert text in shown


def test_python_gets_the_same_training():
    config = metarl.preset("maml", "SparsePointNavigation-v0", "small")
    experiment = config.resolve()
    assert experiment.options == PRESET.config
    assert experiment.distribution.horizon == 6
    assert experiment.config.iterations == 2


@pytest.mark.parametrize(
    ("agent", "env", "name", "hint"),
    [
        (
            "maml",
            "SparsePointNavigation-v0",
            "smal",
            "maml has no preset 'smal' for SparsePointNavigation-v0; there it has small",
        ),
        ("maml", "Bandit-v0", "small", "it has that one for SparsePointNavigation-v0"),
        ("maml", "Bandit-v0", "large", "it has small for SparsePointNavigation-v0"),
        ("random", "Bandit-v0", "small", "random has no presets"),
    ],
)
def test_a_preset_that_is_not_there_is_one_line(agent, env, name, hint, capsys: pytest.CaptureFixture):
    assert main(["train", agent, "--env", env, "--preset", name]) == 2
    shown = capsys.readouterr().err
    assert hint in shown
    assert shown.count("\n") == 1
    with pytest.raises(UsageError, match="has no preset"):
        metarl.preset(agent, env, name)


def test_presets_are_listed_with_source_and_expectation(capsys: pytest.CaptureFixture):
    assert main(["presets", "maml"]) == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("SparsePointNavigation-v0", "small", "a test", "2 iterations"))
    assert main(["presets", "--json"]) == 0
    (found,) = (row for row in json.loads(capsys.readouterr().out) if row["agent"] == "maml")
    assert found["config"]["inner_lr"] == 0.2
    assert found["env_options"] == {"horizon": 6, "goal_radius": 0.3}
    assert main(["presets", "mmal"]) == 2
    assert "did you mean maml" in capsys.readouterr().err
