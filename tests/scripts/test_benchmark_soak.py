"""`metarl benchmark soak`: turns of training and evaluation, in a run folder that can be kept."""

import itertools

import pytest

import metarl
from metarl.scripts import benchmark_soak
from metarl.scripts.benchmark_soak import Arguments


@pytest.fixture
def minutes(monkeypatch):
    """A clock that is a minute later whenever it is read."""
    clock = itertools.count(0.0, 60.0)
    monkeypatch.setattr(benchmark_soak.time, "monotonic", lambda: next(clock))


def test_a_kept_run_is_a_training_of_the_preset(tmp_path, monkeypatch, minutes):
    turns = []
    for name in ("train", "resume"):
        real = getattr(benchmark_soak, name)
        monkeypatch.setattr(
            benchmark_soak, name, lambda *args, real=real, **options: turns.append(real) or real(*args, **options)
        )
    arguments = Arguments(
        agent="psrl",
        env="TabularMDP-v0",
        preset="paper",
        minutes=3.0,
        warm_up=0.0,
        evaluate_every=0.01,
        output=tmp_path / "run",
    )
    figures = benchmark_soak.run(arguments)
    assert [sample["minutes"] for sample in figures["samples"]] == [1, 2, 3]
    assert turns == [metarl.train, metarl.resume, metarl.resume]
    assert (figures["agent"], figures["preset"]) == ("psrl", "paper")
    metarl.load_agent(tmp_path / "run")


def test_too_short_a_run_has_no_slope(minutes):
    with pytest.raises(metarl.UsageError, match="too short"):
        benchmark_soak.run(Arguments(agent="random", minutes=1.0, evaluate_every=1e-6))
