"""Validation during training: what is held out, the best state, early stopping, and exact resume."""

import json
from pathlib import Path

import pytest
import torch

import metarl
import metarl.fewshot
from metarl import UsageError
from metarl.experiment.checkpoints import load_checkpoint
from metarl.experiment.metrics import read_any_metrics
from metarl.fewshot import FewShotConfig, resume, train
from metarl.fewshot.data import open_data
from metarl.fewshot.data.tables import FavourablePool
from metarl.fewshot.episodes import EpisodeShape, Pool
from metarl.fewshot.learners.protonet import ProtoNet, ProtoNetConfig
from metarl.fewshot.preprocessing import Preprocessing
from metarl.fewshot.training import FewShotTraining
from metarl.fewshot.validation import Selection, Validated, hold_out, validation_shape


def config(output: Path, iterations: int = 6, **more) -> FewShotConfig:
    options = {"iterations": iterations, "num_tasks": 2, "hidden": (8,)}
    given = {"validate_every": 2, "validation_episodes": 5, "checkpoint_every": 2, "episodes": 10} | more
    return FewShotConfig("protonet", "iris", learner_options=options, output=output, shots=2, queries=3, **given)


def test_whole_classes_are_held_out_where_the_test_has_others(rows):
    kept, held = hold_out(rows.pools["train"], 0.25)
    assert (len(kept.classes), len(held.classes)) == (9, 3)
    assert not set(kept.classes.tolist()) & set(held.classes.tolist())
    shape, plain = EpisodeShape(3, 2, 4), Preprocessing((3,))
    drawn = held.episodes(20, shape, plain, torch.Generator().manual_seed(0))
    assert drawn.members is not None
    assert set(drawn.members.query.unique().tolist()) == set(held.classes.tolist())
    original = {
        tuple(row) for c in held.classes.tolist() for row in rows.pools["train"].inputs[10 * c : 10 * c + 10].tolist()
    }
    assert {tuple(row) for row in drawn.query.x.flatten(0, 1).tolist()} <= original


def test_rows_are_held_out_of_each_class_and_all_rows_of_a_patient_together():
    labels, x = torch.arange(80) // 40, torch.arange(80.0)[:, None]
    kept, held = hold_out(Pool(x, labels, units=torch.arange(80), unit_name="rows"), 0.25)
    assert held.counts.tolist() == [10, 10]
    assert sorted(torch.cat([kept.inputs, held.inputs]).flatten().tolist()) == list(range(80))
    patients = torch.arange(80) % 8
    kept, held = hold_out(Pool(x, labels, units=patients, unit_name="values of patient"), 0.25)
    assert not set(kept.units.tolist()) & set(held.units.tolist())
    assert torch.equal(held.inputs[:, 0].long() % 8, held.units)
    pool = FavourablePool(x, labels, favourable=0, units=torch.arange(80), unit_name="rows")
    _, held = hold_out(pool, 0.25)
    drawn = held.draw(5, EpisodeShape(2, 1, 2), torch.Generator())
    assert bool((held.inputs[drawn[:, 1]] < 40).all())  # label 1 is the favourable class


def test_the_test_split_is_never_validated_on():
    data = open_data("iris")
    split = Validated(data, 0.2)
    rows = {name: {tuple(row) for row in pool.inputs.tolist()} for name, pool in split.pools.items()}
    assert split.pools["test"] is data.pools["test"]
    units = [set(pool.units.tolist()) for pool in split.pools.values()]
    assert not units[0] & units[1]
    assert not (units[0] | units[1]) & units[2]
    assert len(rows["train"] | rows["validation"]) <= 105
    assert split.class_names("validation") == ["0", "1", "2"]


def test_tasks_drawn_by_a_seed_are_validated_on_others():
    data = Validated(open_data("biased"), 0.2)
    shape = data.default_shape()
    drawn = [data.episodes(split, 2, shape, seed=3).query.x for split in ("train", "validation", "test")]
    assert not any(torch.equal(drawn[a], drawn[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_the_best_state_comes_back_and_training_goes_on_from_the_last():
    data = open_data("biased")
    shape = EpisodeShape(2, 2, 4)
    make = lambda: ProtoNet(ProtoNetConfig(hidden=(8,)), data.spec(shape), seed=0)  # noqa: E731
    selection = Selection(make())
    learner = selection.learner
    scores, states = [0.5, 0.7, 0.6], []
    for step, score in enumerate(scores, 1):
        learner.fit(data.episodes("train", 2, shape, seed=step), seed=step)
        states.append(learner.state()[0])
        selection.note(score, step, None)
    other = Selection(make())
    other.load_state(*selection.state())
    assert other.best == selection.best
    assert (other.best.score, other.best.step, other.best.waited) == (0.7, 2, 1)
    for found, wanted in ((other.load_best(make()), states[1]), (other.learner, states[2])):
        state = found.state()[0]
        assert state.keys() == wanted.keys()
        assert all(torch.equal(state[name], wanted[name]) for name in wanted)


def test_a_lower_error_is_better():
    data = open_data("sinusoid")
    learner = metarl.fewshot.FewShotConfig("maml", data).resolve().make_learner()
    selection = Selection(learner)
    assert [selection.note(score, 1, None) for score in (2.0, 3.0, 1.0)] == [True, False, True]


def test_a_run_validates_tests_its_best_state_and_loads_it(tmp_path: Path):
    run = train(config(tmp_path / "run"), progress=False)
    rows = read_any_metrics(run)
    scores = {row["iteration"]: row["validation_accuracy"] for row in rows if "validation_accuracy" in row}
    assert list(scores) == [2, 4, 6]
    result = json.loads((run / "evaluation.json").read_text())
    best = max(scores, key=lambda step: (scores[step], -step))
    assert result["validation"]["step"] == best == result["training_steps"]
    assert metarl.fewshot.load(run).updates == best
    opened = metarl.load_run(run)
    assert opened.trained.learner.updates == 6
    assert f"step {best}" in (run / "MODEL_CARD.md").read_text()
    assert "--validate-every 2" in result["command"]


def test_training_stops_early_and_the_run_is_complete(tmp_path: Path, monkeypatch):
    scores = iter([0.5, 0.9, 0.8, 0.7])
    note = Selection.note
    monkeypatch.setattr(Selection, "note", lambda self, score, step, patience: note(self, next(scores), step, patience))
    run = train(config(tmp_path / "run", iterations=50, patience=2), progress=False)
    result = json.loads((run / "evaluation.json").read_text())
    assert (result["validation"]["step"], result["validation"]["stopped_early"]) == (4, True)
    assert load_checkpoint(run).iteration == 8
    opened = metarl.load_run(run)
    assert opened.finished
    assert resume(run) == run


def test_a_resumed_run_is_bit_identical(tmp_path: Path, monkeypatch):
    whole = train(config(tmp_path / "whole", patience=9), progress=False)
    iterate = FewShotTraining.iterate

    def stopped(self, iteration):
        if iteration == 4:
            raise KeyboardInterrupt
        return iterate(self, iteration)

    monkeypatch.setattr(FewShotTraining, "iterate", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path / "parts", patience=9), progress=False)
    monkeypatch.setattr(FewShotTraining, "iterate", iterate)
    parts = resume(tmp_path / "parts", progress=False)
    one, other = load_checkpoint(whole), load_checkpoint(parts)
    assert one.values == other.values
    assert one.tensors.keys() == other.tensors.keys()
    assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)
    results = [json.loads((run / "evaluation.json").read_text()) for run in (whole, parts)]
    assert results[0]["accuracy"] == results[1]["accuracy"]
    assert results[0]["validation"] == results[1]["validation"]


def test_mistakes_are_told(tmp_path: Path):
    with pytest.raises(UsageError, match="give validate_every too"):
        config(tmp_path, validate_every=None, patience=1).resolve()
    with pytest.raises(UsageError, match="raise validation_share"):
        validation_shape(Validated(open_data("iris"), 0.05), EpisodeShape(3, 5, 5))
    with pytest.raises(UsageError, match="validation_share must lie"):
        Validated(open_data("iris"), 1.0)


def test_rows_of_metrics_end_with_validations(tmp_path: Path):
    experiment = config(tmp_path / "run", iterations=10_000, validate_every=50).resolve()
    with experiment.training(experiment.make()) as training:
        assert training.row_every == 10  # of 20 rows a row, without validation


def test_classes_are_not_held_out_of_episodes_that_share_one():
    pool = FavourablePool(torch.zeros(40, 1), torch.arange(40) // 8, favourable=0)
    with pytest.raises(UsageError, match="every episode has the favourable class"):
        hold_out(pool, 0.2)
