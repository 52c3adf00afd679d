"""What every learner promises, for each one that there is and each kind of data that it learns."""

import dataclasses

import pytest
import torch

from metarl.errors import NumericalFault, UsageError
from metarl.fewshot.episodes import Samples
from metarl.fewshot.evaluation import evaluate
from metarl.fewshot.learner import Learner
from metarl.fewshot.learners import learner_class
from metarl.registry import list_learners

CASES = [
    (name, data)
    for name in list_learners()
    for data, kind in (("images", "classification"), ("rows", "classification"), ("sinusoid", "regression"))
    if kind in learner_class(name).kinds
]


def make(name: str, data, shape, seed: int = 0, **options) -> Learner:
    shape = dataclasses.replace(shape, ways=1) if data.kind == "regression" else shape
    spec = data.spec(shape)
    cls = learner_class(name)
    config = dataclasses.replace(cls.default_config(spec), width=4, hidden=(8,), num_tasks=2, **options)
    if config.train_ways is not None:
        config = dataclasses.replace(config, train_ways=shape.ways + 1)
    if config.train_shots is not None:
        config = dataclasses.replace(config, train_shots=3)
    return cls(config, spec, seed=seed)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_it_trains_predicts_and_is_saved(name: str, kind: str, toy_data, shape):
    data = toy_data[kind]
    learner, copy = make(name, data, shape), make(name, data, shape, seed=7)
    before = torch.random.get_rng_state()
    batches = [data.episodes("train", 2, learner.training_shape, seed=seed) for seed in range(3)]
    for seed in range(2):
        metrics = learner.fit(batches[seed], seed=seed)
        assert metrics.keys() >= {"loss", learner.metric}
        assert all(isinstance(value, float) for value in metrics.values())
    assert learner.updates == 2
    copy.load_state(*learner.state())
    for each in (learner, copy):  # and both go on in the same way
        each.fit(batches[2], seed=2)
    episode = data.episodes("test", 1, learner.spec.shape, seed=0)
    support, query = episode.support, episode.query
    found = [each.predict(support.x[0], support.y[0], query.x[0]) for each in (learner, copy)]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    assert found[0].shape == (query.x.shape[1], learner.spec.outputs)
    if learner.spec.kind == "classification":
        torch.testing.assert_close(found[0].sum(1), torch.ones(len(found[0])))
        assert (found[0] >= 0).all()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert learner.normalisation in ("transductive", "support-statistics", "none")


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_tasks_of_a_batch_do_not_meet_and_query_labels_are_not_looked_at(name: str, kind: str, toy_data, shape):
    data = toy_data[kind]
    learner = make(name, data, shape)
    episodes = data.episodes("test", 3, learner.spec.shape, seed=1)
    with torch.no_grad():
        together = learner.adapt(episodes.support)(episodes.query.x)
        for task in range(3):
            one = episodes[task : task + 1]
            alone = learner.adapt(one.support)(one.query.x)
            # Reptile's Adam divides by small gradients, which makes much of a rounding error.
            torch.testing.assert_close(alone, together[task : task + 1], rtol=2e-2, atol=2e-2)

    class Mislabelled(type(data)):
        def __init__(self) -> None:
            pass

        def episodes(self, *arguments, **options):
            drawn = data.episodes(*arguments, **options)
            return type(drawn)(drawn.support, Samples(drawn.query.x, drawn.query.y.flip(1), drawn.query.groups))

    seen: list[torch.Tensor] = []
    measure = learner.objective.measure
    learner.objective.measure = lambda *given: (seen.append(given[2]), measure(*given))[1]  # type: ignore[method-assign]
    for source in (data, Mislabelled()):
        evaluate(learner, source, episodes=2)
    assert torch.equal(seen[0], seen[1])


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_each_query_is_predicted_by_itself(name: str, kind: str, toy_data, shape):
    learner = make(name, toy_data[kind], shape)
    learner.fit(toy_data[kind].episodes("train", 2, learner.training_shape, seed=0), seed=0)
    episodes = toy_data[kind].episodes("test", 1, learner.spec.shape, seed=1)
    given, queries = (episodes.support.x[0], episodes.support.y[0]), episodes.query.x[0]
    together = learner.predict(*given, queries)
    alone = torch.cat([learner.predict(*given, query[None]) for query in queries])
    torch.testing.assert_close(alone, together, rtol=1e-3, atol=1e-4)
    assert learner.normalisation != "transductive"


def test_a_transductive_prediction_comes_with_a_warning(images, shape):
    episodes = images.episodes("test", 1, shape, seed=1)
    learner = make("maml", images, shape, normalisation="transductive")
    with pytest.warns(UserWarning, match="transductive: a prediction depends on the queries"):
        learner.predict(episodes.support.x[0], episodes.support.y[0], episodes.query.x[0])


def test_other_ways_than_trained_are_refused(images, shape):
    more = dataclasses.replace(shape, ways=5)
    with pytest.raises(UsageError, match="MAMLLearner was trained for 3 ways: it cannot be tested with 5"):
        evaluate(make("maml", images, shape), images, episodes=2, shape=more)
    assert evaluate(make("protonet", images, shape), images, episodes=2, shape=more)["ways"] == 5


def test_predictions_that_are_no_numbers_are_not_scored(images, shape):
    learner = make("maml", images, shape)
    learner.parameters["weight4"].data.fill_(torch.nan)
    with pytest.raises(NumericalFault, match="a prediction"):
        evaluate(learner, images, episodes=2)


SET_BASED = ("maml", "fomaml", "anil", "protonet")


@pytest.mark.parametrize(("name", "kind"), [case for case in CASES if case[0] in SET_BASED])
def test_the_order_of_the_support_does_not_matter(name: str, kind: str, toy_data, shape):
    learner = make(name, toy_data[kind], shape)
    episodes = toy_data[kind].episodes("test", 2, learner.spec.shape, seed=2)
    support = Samples(episodes.support.x.flip(1), episodes.support.y.flip(1))
    with torch.no_grad():
        scores, flipped = (learner.adapt(each)(episodes.query.x) for each in (episodes.support, support))
    torch.testing.assert_close(flipped, scores, rtol=1e-3, atol=1e-3)


def test_mistakes_in_a_support_set_are_told(images, rows, shape):
    learner = make("maml", images, shape)
    x = torch.zeros(3, 16, 16, dtype=torch.uint8)
    for labels, message in (
        ([0.0, 1.0, 2.0], "labels must be integers, got float64"),
        ([0, 1], "support_x has 3 examples, support_y 2"),
        ([0, 1, 3], r"want labels 0, 1, … N-1, each at least once; got \[0, 1, 3\]"),
        ([-1, 0, 1], "want labels 0, 1"),
        ([0, 1, 1], "MAMLLearner was trained for 3 classes, got 2"),
        ([[0], [1], [2]], "one label for each example"),
    ):
        with pytest.raises(UsageError, match=message):
            learner.predict(x, labels, x)
    with pytest.raises(UsageError, match="query_x: want images"):
        learner.predict(x, [0, 1, 2], torch.zeros(3, 2, 16, 16))
    assert make("protonet", rows, shape).predict(torch.randn(4, 3), [0, 1, 1, 0], torch.randn(5, 3)).shape == (5, 2)


def test_states_of_another_learner_are_refused(images, rows, shape):
    with pytest.raises(UsageError, match="not of this MAML"):
        make("maml", images, shape).load_state(*make("maml", rows, shape).state())


def test_learners_that_cannot_are_refused(toy_data, shape):
    with pytest.raises(UsageError, match="ProtoNet learns classification, not regression"):
        make("protonet", toy_data["sinusoid"], shape)
    with pytest.raises(UsageError, match="leave --train-ways out"):
        make("maml", toy_data["images"], shape, train_ways=4)
    with pytest.raises(UsageError, match="unknown learner 'malm'; did you mean"):
        learner_class("malm")


def test_an_evaluation_says_how_it_was_made(images, shape):
    learner = make("maml", images, shape)
    result = evaluate(learner, images, episodes=25)
    assert {"accuracy", "ci95", "episodes", "ways", "shots", "normalisation", "curve"} <= result.keys()
    assert result["episodes"] == 25
    assert result["normalisation"] == "support-statistics"
    assert result["interval"].startswith(("over", "none over"))
    assert [row["steps"] for row in result["curve"]] == [0, 1, 2, 3]
    assert result["curve"][-1]["accuracy"] == pytest.approx(result["accuracy"])
    assert evaluate(learner, images, episodes=25)["accuracy"] == result["accuracy"]
