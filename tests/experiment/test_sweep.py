"""Sweep files: what they expand to, and what is refused before the first trial starts."""

import json
from pathlib import Path

import pytest

import metarl
from metarl.experiment.sweep import Sweep
from metarl.scripts.cli import main

GOOD = """
agents:
  maml: {inner_lr: [0.05, 0.1], trust_region: {max_kl: [0.01, 0.02]}, hidden: [[8, 8]]}
  rl2: {}
families:
  - PointNavigation-v0: {horizon: [5, 10]}
  - SparsePointNavigation-v0
seeds: [0, 3]
iterations: 2
"""


def read(text: str, folder: Path) -> Sweep:
    (folder / "sweep.yaml").write_text(text)
    return Sweep.read(folder / "sweep.yaml")


def test_every_combination_is_a_trial(tmp_path):
    sweep = read(GOOD, tmp_path)
    of_maml, of_rl2 = 2 * 2 * (2 + 1) * 2, (2 + 1) * 2
    assert len(sweep.trials) == of_maml + of_rl2
    first = sweep.trials[0]
    assert first.name == "maml-PointNavigation-v0-inner_lr=0.05-trust_region.max_kl=0.01-hidden=-8-8--horizon=5-seed0"
    options = {"inner_lr": 0.05, "trust_region": {"max_kl": 0.01}, "hidden": [8, 8]}
    assert first.config == metarl.TrainConfig(
        "maml", "PointNavigation-v0", {"horizon": 5}, options, iterations=2, seed=0
    )
    assert first.config.resolve().options.trust_region.max_kl == 0.01
    assert sweep.trials[-1].name == "rl2-SparsePointNavigation-v0-seed3"
    assert sweep.retries == 2


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("maml:", "mmal:"), "unknown agent 'mmal'; did you mean maml"),
        (("inner_lr:", "inner_rl:"), "has no option 'inner_rl'; did you mean inner_lr"),
        (("0.05", "fast"), "option 'inner_lr': want float, got 'fast'"),
        (("max_kl", "max_lk"), "has no option 'max_lk'"),
        (("- SparsePointNavigation", "- SparsePointNvigation"), "did you mean SparsePointNavigation-v0"),
        (("horizon", "horizn"), "horizn"),
        (("[0, 3]", "[0, -3]"), "seed must be a whole number of at least 0, got -3"),
        (("[0, 3]", "2"), "seeds must be a list"),
        (("[0, 3]", "[0, 0]"), "two trials"),
        (("iterations", "itrations"), "has no option 'itrations'; did you mean iterations"),
        (("iterations: 2", "iterations: 0"), "iterations must be"),
        (("iterations: 2", "retries: -1"), "retries must be"),
        (("iterations: 2", "evaluate: {task: 3}"), "evaluate takes tasks and episodes, got 'task'"),
        (("iterations: 2", "evaluate: {tasks: 0}"), "evaluate: tasks must be"),
        (("iterations: 2", "device: cuda:77"), "is not there"),
        (("seeds: [0, 3]", "seeds: ["), "is no YAML"),
        (("maml: {inner", "maml: [inner"), "is no YAML"),
        (("rl2: {}", "rl2: 3"), "agents are names with options"),
        (("rl2: {}", "maml: {}"), "names 'maml' twice: leave one out"),
        (("iterations: 2", "iterations: 2\niterations: 3"), "names 'iterations' twice: leave one out"),
        (("[5, 10]", "[]"), "horizon is an empty list"),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_a_mistake_is_one_line_before_anything_starts(change, complaint, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert change[0] in GOOD
    Path("sweep.yaml").write_text(GOOD.replace(*change))
    assert main(["sweep", "sweep.yaml"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("metarl: error: sweep file sweep.yaml")
    assert complaint in said
    assert len(said.splitlines()) == 1
    assert not Path("sweeps").exists()


def test_the_agent_and_the_family_may_have_an_option_of_the_same_name(tmp_path, monkeypatch):
    (tmp_path / "crowded.py").write_text(
        "import metarl\ndef family(num_tasks=1):\n    return metarl.make('PointNavigation-v0', horizon=num_tasks)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    options = "num_tasks: [2, 3]"
    sweep = read(f"agents: {{random: {{{options}}}}}\nfamilies: {{'crowded:family': {{{options}}}}}", tmp_path)
    assert len(sweep.trials) == 4
    assert sweep.trials[1].name == "random-crowded-family-num_tasks=2-env.num_tasks=3-seed0"


def test_a_device_of_other_machines_need_not_be_here(tmp_path):
    (tmp_path / "sweep.yaml").write_text(GOOD + "device: cuda:77\n")
    sweep = Sweep.read(tmp_path / "sweep.yaml", elsewhere=True)
    assert {trial.config.device for trial in sweep.trials} == {"cuda:77"}


@pytest.mark.parametrize("text", ["", "maml", "[1, 2]", "agents: {maml: }", "agents: []\nfamilies: []"])
def test_other_files_are_refused(text, tmp_path):
    with pytest.raises(metarl.UsageError, match="sweep file"):
        read(text, tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(metarl.UsageError, match=r"nothing\.yaml cannot be read: No such file"):
        Sweep.read(tmp_path / "nothing.yaml")


def test_too_many_trials_are_refused_quickly(tmp_path):
    axes = ", ".join(f"option{i}: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]" for i in range(12))
    with pytest.raises(metarl.UsageError, match="more than 10000 trials"):
        read(f"{{agents: {{maml: {{{axes}}}}}, families: [PointNavigation-v0]}}", tmp_path)


def test_a_sweep_that_goes_on_may_only_have_more_trials(tmp_path):
    record = tmp_path / "trials.json"
    before = read(GOOD, tmp_path)
    before.check_continues(record)  # there is none
    record.write_text(json.dumps(before.record()))
    before.check_continues(record)
    read(GOOD.replace("[0, 3]", "[0, 3, 4]"), tmp_path).check_continues(record)
    with pytest.raises(metarl.UsageError, match=r"has the trial .*seed3, the file has it no more; .*another --output"):
        read(GOOD.replace("[0, 3]", "[0, 4]"), tmp_path).check_continues(record)
    with pytest.raises(metarl.UsageError, match="has changed: iterations 9 instead of 2"):
        read(GOOD.replace("iterations: 2", "iterations: 9"), tmp_path).check_continues(record)
    record.write_text("{")
    with pytest.raises(metarl.UsageError, match=r"trials\.json is damaged"):
        before.check_continues(record)


def test_ray_is_asked_for_where_it_is_not_installed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "sweep.yaml").write_text(GOOD)
    assert main(["sweep", str(tmp_path / "sweep.yaml"), "--address", "localhost:6379"]) == 2
    assert "Ray is not installed: pip install 'metarl-kit[ray]'" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["1e-3", "1.0e-3", "0.001", "1E-3", ".1e-2", "+1e-3"])
def test_numbers_are_those_that_people_write(number, tmp_path):
    """PyYAML takes 1e-3 for text."""
    file = tmp_path / "sweep.yaml"
    file.write_text(
        f"agents: {{rl2: {{lr: [{number}], num_tasks: 4}}}}\nfamilies: [PointNavigation-v0]\niterations: 1\n"
    )
    (trial,) = Sweep.read(file).trials
    assert trial.config.agent_options["lr"] == 0.001
