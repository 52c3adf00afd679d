"""A family or an agent of one's own wherever an id can stand, and runs that do not go on with another one."""

import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import hill_climber
import own_families
import pytest
import yaml
from own_families import Goals, ThreeNumbers, make_goals
from run_helpers import assert_same_run, config, timeless

import metarl
from metarl import registry


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    metarl.list_distributions()
    monkeypatch.setitem(registry._distributions, "Goals-v0", "own_families:make_goals")


def goals_config(output: Path, **options) -> metarl.TrainConfig:
    return replace(
        config(output, iterations=2, checkpoint_every=1, env="own_families:Goals", env_options={}), **options
    )


def cut(run: Path) -> Path:
    """The run as it was after its first iteration."""
    for path in run.glob("checkpoints/iteration-000002.*"):
        path.unlink()
    return run


def entries_of(run: Path) -> dict:
    return yaml.safe_load((run / "config.yaml").read_text())


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return metarl.train(goals_config(tmp_path_factory.mktemp("runs") / "named"), progress=False)


SPELLINGS = {
    "id": (lambda: "Goals-v0", "Goals-v0", False),
    "module:class": (lambda: "own_families:Goals", "own_families:Goals", False),
    "module:function": (lambda: "own_families:make_goals", "own_families:make_goals", False),
    "module:instance": (lambda: "own_families:goals", "own_families:goals", False),
    "class": (lambda: Goals, "own_families:Goals", False),
    "function, which is registered": (lambda: make_goals, "Goals-v0", False),
    "instance that make has made": (lambda: metarl.make("own_families:Goals"), "own_families:Goals", False),
    "instance": (lambda: Goals(), "Goals-v0", True),
    "lambda": (lambda: lambda: Goals(), "Goals-v0", True),
}


@pytest.mark.parametrize(("env", "name", "unnamed"), SPELLINGS.values(), ids=SPELLINGS.keys())
def test_a_family_may_be_given_in_any_way(env, name: str, unnamed: bool, reference: Path, tmp_path: Path):
    run = metarl.train(goals_config(tmp_path / "run", env=env()), progress=False)
    assert timeless(run) == timeless(reference)
    assert entries_of(run)["env"] == name
    assert entries_of(run).get("unnamed", []) == ["env"] * unnamed
    again = {"env": env()} if unnamed else {}
    metarl.resume(cut(run), progress=False, **again)
    assert_same_run(run, reference)
    opened = metarl.load_run(run, **again)
    found = metarl.evaluate(opened.agent, env(), num_tasks=3)
    expected = metarl.evaluate(metarl.load_agent(reference), "own_families:Goals", num_tasks=3)
    assert found.to_json() == expected.to_json()


@pytest.mark.parametrize("use", [metarl.resume, metarl.load_run, metarl.load_agent])
def test_a_family_without_a_name_is_asked_for(use, tmp_path: Path):
    run = metarl.train(goals_config(tmp_path / "run", env=Goals()), progress=False)
    with pytest.raises(metarl.UsageError, match=r"'Goals-v0' as its env.*env=\.\.\. or --env MODULE:NAME") as caught:
        use(run)
    assert "\n" not in str(caught.value)
    use(run, env="own_families:make_goals")


def test_options_of_a_family_are_kept_however_it_is_given(tmp_path: Path):
    for number, (env, options) in enumerate([(Goals, {"horizon": 4}), (metarl.make("Goals-v0", horizon=4), {})]):
        run = metarl.train(goals_config(tmp_path / f"{number}", env=env, env_options=options), progress=False)
        assert entries_of(run)["env_options"] == {"horizon": 4}
        assert metarl.load_run(run).distribution.horizon == 4


def test_an_instance_takes_no_options(tmp_path: Path):
    for env in (Goals(), "own_families:goals"):
        with pytest.raises(metarl.UsageError, match="is not a factory: it takes no options"):
            metarl.train(goals_config(tmp_path / "run", env=env, env_options={"horizon": 3}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrong", [dict, lambda: 3, metarl.AgentConfig, "json:JSONDecoder"])
def test_what_is_no_family_is_named(wrong, tmp_path: Path):
    with pytest.raises(metarl.UsageError, match="is no TaskDistribution, nor does it make one"):
        metarl.train(goals_config(tmp_path / "run", env=wrong))


def test_an_agent_may_be_a_class(tmp_path: Path, reference: Path):
    class Local(hill_climber.HillClimber):
        pass

    named = metarl.train(goals_config(tmp_path / "named", agent=hill_climber.HillClimber), progress=False)
    assert entries_of(named)["agent"] == "hill-climber"
    metarl.resume(cut(named), progress=False)
    assert_same_run(named, reference)
    local = metarl.train(goals_config(tmp_path / "local", agent=Local), progress=False)
    assert entries_of(local)["agent"] == "Local"
    with pytest.raises(
        metarl.UsageError, match=r"'Local' as its agent, which no name makes again: give it, agent=\.\.\.$"
    ):
        metarl.load_agent(local)
    assert isinstance(metarl.load_agent(local, agent=Local), Local)
    metarl.resume(cut(local), agent=Local, progress=False)
    assert timeless(local) == timeless(reference)


CHANGES = {
    "horizon": (lambda: Goals(horizon=20), "horizon 20 instead of 10"),
    "tasks": (lambda: Goals(goals_seed=1), "other train tasks, other test tasks"),
    "another family": (lambda: "PointNavigation-v0", "id PointNavigation-v0 instead of Goals-v0"),
    "an option that no space shows": (
        lambda: metarl.make("own_families:Goals", step_cost=0.5),
        "step_cost 0.5 instead of the default",
    ),
}


@pytest.mark.parametrize(("env", "change"), CHANGES.values(), ids=CHANGES.keys())
def test_a_run_does_not_go_on_with_another_family(env, change: str, reference: Path, tmp_path: Path):
    run = cut(shutil.copytree(reference, tmp_path / "run"))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(metarl.UsageError, match=f"cannot go on with something else than it began with: .*{change}"):
        metarl.resume(run, env=env())
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert metarl.load_run(run, env=env()).agent.trained_on.id, "it can still be looked at"


def test_code_that_changed_is_noticed(reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = cut(shutil.copytree(reference, tmp_path / "run"))
    monkeypatch.setattr(own_families, "Goals", lambda: Goals(horizon=20))
    with pytest.raises(metarl.UsageError, match="horizon 20 instead of 10"):
        metarl.resume(run)
    with pytest.warns(UserWarning, match="was trained on something else: horizon 20 instead of 10"):
        metarl.load_run(run)


def test_an_agent_is_not_loaded_for_other_spaces(reference: Path):
    with pytest.raises(metarl.UsageError, match=r"observation space Box float32 \[3\] instead of Box float32 \[2\]"):
        metarl.load_agent(reference, env=ThreeNumbers)


def test_a_run_without_a_fingerprint_is_not_compared(reference: Path, tmp_path: Path):
    """Run folders of 0.2 have none, nor do they have `max_faults`."""
    run = cut(shutil.copytree(reference, tmp_path / "run"))
    entries = entries_of(run)
    assert entries["format"] == 2
    del entries["fingerprint"], entries["max_faults"]
    (run / "config.yaml").write_text(yaml.safe_dump(entries))
    metarl.resume(run, progress=False)
    assert_same_run(run, reference)


@pytest.mark.parametrize("wrong", ["x", [1], 3])
def test_a_damaged_fingerprint_is_named(wrong, reference: Path, tmp_path: Path):
    run = shutil.copytree(reference, tmp_path / "run")
    (run / "config.yaml").write_text(yaml.safe_dump(entries_of(run) | {"fingerprint": wrong}))
    with pytest.raises(metarl.UsageError, match=r"config\.yaml is damaged: fingerprint"):
        metarl.load_run(run)


def test_options_that_would_come_back_as_others_are_refused(tmp_path: Path):
    """JSON makes text of numbers that are keys."""
    with pytest.raises(metarl.UsageError, match=r"must be plain values .* the key 1 is a int"):
        metarl.train(goals_config(tmp_path / "run", env=lambda table: Goals(), env_options={"table": {1: 2}}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrong", [-1, True])
def test_the_bound_on_faults_is_a_count(wrong, tmp_path: Path):
    with pytest.raises(metarl.UsageError, match="max_faults must be a whole number of at least 0"):
        metarl.train(goals_config(tmp_path / "run", max_faults=wrong))


def test_the_bound_on_faults_is_kept(tmp_path: Path):
    run = metarl.train(goals_config(tmp_path / "run", max_faults=3), progress=False)
    opened = metarl.load_run(run)
    assert (entries_of(run)["max_faults"], opened.config.max_faults) == (3, 3)
    with opened.experiment.training(opened.agent) as continued:
        assert continued.max_faults == 3
