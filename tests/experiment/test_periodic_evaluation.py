"""Evaluations in training change nothing in it, and metrics reach loggers of one's own."""

import importlib.util
import sys

import pytest
import torch

import metarl
from metarl.experiment.checkpoints import load_checkpoint
from metarl.experiment.loggers import check_loggers
from metarl.experiment.metrics import read_metrics

AGENTS = {
    "maml": {"num_tasks": 2, "envs_per_task": 3},
    "rl2": {"num_tasks": 2},
    "sb3-sac": {"num_tasks": 2, "learning_starts": 8, "batch_size": 8},
    "sb3-ppo": {"num_tasks": 2, "n_steps": 8, "batch_size": 8},
    "random": {},
}


def train(agent, output, iterations=3, **options):
    config = metarl.TrainConfig(
        agent,
        "PointNavigation-v0",
        {"horizon": 5},
        AGENTS[agent],
        iterations=iterations,
        checkpoint_every=1,
        output=output,
        **options,
    )
    return metarl.train(config, progress=False)


def tensors(run):
    return load_checkpoint(run).tensors


def without_time(rows):
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


TIMES = ("wall_seconds", "steps_per_second")


@pytest.mark.parametrize("agent", AGENTS)
def test_training_does_not_notice(agent, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = train(agent, tmp_path / "plain")
        after = torch.random.get_rng_state()
        torch.manual_seed(0)
        measured = train(agent, tmp_path / "measured", evaluate_every=2, evaluate_tasks=3)
        assert torch.equal(after, torch.random.get_rng_state()), "nor does the caller's random state"
    one, other = tensors(plain), tensors(measured)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    rows = without_time(read_metrics(measured))
    tests = [{name: value for name, value in row.items() if name.startswith("test_")} for row in rows]
    assert [bool(test) for test in tests] == [False, True, False]
    for row, test in zip(rows, tests, strict=True):
        for name in test:
            del row[name]
    assert rows == without_time(read_metrics(plain))


def test_a_resumed_run_measures_the_same(tmp_path, monkeypatch):
    whole = train("maml", tmp_path / "whole", iterations=4, evaluate_every=2, evaluate_tasks=3)
    from metarl.experiment.agent_training import AgentTraining

    iterate = AgentTraining.iterate

    def stop(self, iteration):
        if iteration == 3:
            raise KeyboardInterrupt
        return iterate(self, iteration)

    monkeypatch.setattr(AgentTraining, "iterate", stop)
    with pytest.raises(KeyboardInterrupt):
        train("maml", tmp_path / "torn", iterations=4, evaluate_every=2, evaluate_tasks=3)
    monkeypatch.undo()
    torn = metarl.resume(tmp_path / "torn", progress=False)
    assert without_time(read_metrics(torn)) == without_time(read_metrics(whole))
    assert all(torch.equal(tensors(torn)[name], value) for name, value in tensors(whole).items())


def test_the_last_evaluation_is_the_one_that_evaluate_makes(tmp_path):
    run = train("maml", tmp_path / "run", iterations=2, evaluate_every=2, evaluate_tasks=6)
    from metarl.randomness import derive_seed

    opened = metarl.load_run(run)
    found = metarl.evaluate(
        opened.agent, opened.distribution, num_tasks=6, seed=derive_seed("evaluation in training", 0)
    )
    row = read_metrics(run)[-1]
    for stage in found.summary():
        assert row[f"test_return_{stage['episodes_used']}"] == pytest.approx(stage["return_mean"])


class Listing:
    """A logger of one's own."""

    seen: list = []

    def __init__(self, path, title, config):
        self.seen.append((path.name, title, config["agent"]))

    def log(self, row):
        self.seen.append(row["iteration"])

    def close(self):
        self.seen.append("closed")


def test_metrics_reach_a_logger_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setattr(Listing, "seen", [])
    train("random", tmp_path / "run", iterations=2, logger=(f"{Listing.__module__}:Listing",))
    assert Listing.seen == [("run", "random on PointNavigation-v0", "random"), 1, 2, "closed"]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (
            "import a_package_that_is_missing",
            "cannot be imported.*a_package_that_is_missing.*pip install --upgrade trackio",
        ),
        ("init = log = print", "trackio has no finish"),
    ],
)
def test_a_damaged_installation_of_a_logger_is_named(tmp_path, monkeypatch, source, complaint):
    (tmp_path / "trackio.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "trackio", raising=False)
    with pytest.raises(metarl.UsageError, match=complaint):
        train("random", tmp_path / "run", logger=("trackio",))
    assert not (tmp_path / "run").exists()
    sys.modules.pop("trackio", None)


def test_unusable_loggers_are_refused_before_anything_is_made(tmp_path):
    missing = [name for name in ("wandb", "trackio") if importlib.util.find_spec(name) is None]
    for name in missing:
        with pytest.raises(metarl.UsageError, match=f"logger {name} is not installed: pip install {name}"):
            train("random", tmp_path / "run", logger=(name,))
    with pytest.raises(metarl.UsageError, match="unknown logger 'tensorbored'"):
        train("random", tmp_path / "run", logger=("tensorbored",))
    with pytest.raises(metarl.UsageError, match="named twice"):
        check_loggers(("wandb", "wandb"))
    for name in ("evaluate_every", "evaluate_tasks"):
        with pytest.raises(metarl.UsageError, match=name):
            train("random", tmp_path / "run", **{name: 0})
    assert not (tmp_path / "run").exists()
