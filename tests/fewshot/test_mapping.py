"""What the mapping models have in common, and that each learns."""

import dataclasses

import pytest
import torch

from metarl.fewshot.data import open_data
from metarl.fewshot.episodes import Episodes, EpisodeShape, Samples
from metarl.fewshot.learner import Learner
from metarl.fewshot.learners import learner_class
from metarl.fewshot.learners.mapping import MappingLearner, reread
from metarl.fewshot.objectives.plain import Objective, ObjectiveConfig

SMALL = {
    "cnp": {"hidden": (64, 64), "representation": 64},
    "rnn": {"units": 48},
    "snail": {"filters": 12, "keys": 8},
}
NAMES = tuple(SMALL)


def make(name: str, spec, **options) -> Learner:
    cls = learner_class(name)
    return cls(dataclasses.replace(cls.default_config(spec), **options), spec)


def small(name: str, spec) -> MappingLearner:
    """A learner in double precision with running statistics that are not the initial ones."""
    learner = make(name, spec, width=4, embedding=8, **SMALL[name])
    assert isinstance(learner, MappingLearner)
    generator = torch.Generator().manual_seed(0)
    learner.buffers = {k: 0.5 + torch.rand(v.shape, generator=generator).double() for k, v in learner.buffers.items()}
    learner.parameters = {k: v.detach().double().requires_grad_() for k, v in learner.parameters.items()}
    return learner


def double(samples: Samples) -> Samples:
    y = samples.y.double() if samples.y.is_floating_point() else samples.y
    return Samples(samples.x.double(), y)


@pytest.mark.parametrize("data", ["images", "rows", "sinusoid"])
@pytest.mark.parametrize("name", NAMES)
def test_tasks_and_queries_are_read_by_themselves(name, data, toy_data, shape):
    shape = toy_data[data].default_shape() if data == "sinusoid" else shape
    spec = toy_data[data].spec(shape)
    learner = small(name, spec)
    episodes = toy_data[data].episodes("test", 3, shape, seed=0)
    support, query = double(episodes.support), double(episodes.query)
    with torch.no_grad():
        together = learner.adapt(support)(query.x)
        for task in range(3):
            predictor = learner.adapt(support[task : task + 1])
            for row in range(0, query.x.shape[1], 5):
                alone = predictor(query.x[task : task + 1, row : row + 1])
                torch.testing.assert_close(alone[0, 0], together[task, row])


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_support_set_matters_only_to_sequences(name, images, shape):
    learner = small(name, images.spec(shape))
    episodes = images.episodes("test", 2, shape, seed=0)
    support, query = double(episodes.support), double(episodes.query)
    order = torch.tensor([3, 5, 0, 2, 4, 1])
    with torch.no_grad():
        scores = learner.adapt(support)(query.x)
        shuffled = learner.adapt(Samples(support.x[:, order], support.y[:, order]))(query.x)
    assert torch.allclose(scores, shuffled, rtol=1e-9, atol=1e-12) == (name == "cnp")


@pytest.mark.parametrize("data", ["images", "sinusoid"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_by_finite_differences(name, data, toy_data):
    shape = EpisodeShape(3, 1, 1) if data == "images" else EpisodeShape(1, 3, 2)
    learner = small(name, toy_data[data].spec(shape))
    episodes = toy_data[data].episodes("train", 2, shape, seed=1)
    support, query = double(episodes.support), double(episodes.query)

    def loss() -> torch.Tensor:
        losses, _ = learner.objective.query_loss(learner.adapt(support), query, torch.Generator())
        return losses.sum()

    loss().backward()
    generator, step = torch.Generator().manual_seed(2), 1e-6
    for tensor_name, tensor in learner.parameters.items():
        if tensor.grad is None or not tensor.grad.any():  # a ReLU that is off, a gate that reads zeros
            continue
        direction = torch.randn(tensor.shape, generator=generator).double()
        with torch.no_grad():
            tensor += step * direction
            above = loss()
            tensor -= 2 * step * direction
            below = loss()
            tensor += step * direction
        expected = (tensor.grad * direction).sum()
        torch.testing.assert_close((above - below) / (2 * step), expected, rtol=2e-4, atol=1e-6, msg=tensor_name)


def test_rereading_permutes_labels_and_order_alone():
    x, y = torch.arange(12.0).reshape(2, 6, 1), torch.tensor([[0, 1, 2, 0, 1, 2], [2, 2, 1, 1, 0, 0]])
    queries = torch.arange(20.0, 28.0).reshape(2, 4, 1)
    query_y = torch.tensor([[0, 1, 2, 0], [1, 1, 0, 2]])
    again = reread(Episodes(Samples(x, y), Samples(queries, query_y)), 50, 3, torch.Generator().manual_seed(0))
    assert len(again) == 100
    orders, relabellings = set(), set()
    for number in range(100):
        task = number % 2
        support_x, support_y = again.support.x[number, :, 0], again.support.y[number]
        assert sorted(support_x.tolist()) == x[task, :, 0].tolist()
        old = y[task][(support_x - 6 * task).long()]
        new = {int(a): int(b) for a, b in zip(old, support_y, strict=True)}
        assert [new[int(a)] for a in old] == support_y.tolist()
        assert sorted(new.values()) == [0, 1, 2]
        assert again.query.x[number].tolist() == queries[task].tolist()
        assert again.query.y[number].tolist() == [new[int(a)] for a in query_y[task]]
        orders.add(tuple(support_x.tolist()))
        relabellings.add((task, *(new[label] for label in range(3))))
    assert len(orders) > 80
    assert len(relabellings) == 12


def test_one_reading_is_the_plain_step_and_so_is_any_other_objective(images, shape):
    class Halved(Objective):
        def query_loss(self, predictor, query, generator):
            assert query.x.ndim == 5  # the images themselves, which an attack may change
            losses, outputs = super().query_loss(predictor, query, generator)
            return losses / 2, outputs

    spec = images.spec(shape)
    episodes = images.episodes("train", 2, shape, seed=0)
    one = make("cnp", spec, width=4, readings=1)
    loss = one.fit(episodes, seed=0)["loss"]
    cls = learner_class("cnp")
    config = dataclasses.replace(one.config, readings=7)
    other = cls(config, spec, objective=Halved(ObjectiveConfig(), spec))
    assert other.fit(episodes, seed=0)["loss"] == pytest.approx(loss / 2)


@pytest.mark.parametrize("name", NAMES)
def test_learns_rows(name, rows):
    """Two classes around centres of their own, told from two examples each."""
    spec = rows.spec(EpisodeShape(2, 2, 4))
    learner = make(name, spec, num_tasks=32, learning_rate=3e-3, **SMALL[name])
    for seed in range(150):
        learner.fit(rows.episodes("train", 32, learner.training_shape, seed=seed), seed=seed)
    test = rows.episodes("train", 200, spec.shape, seed=1000)
    with torch.no_grad():
        assert learner.score(learner.adapt(test.support)(test.query.x), test.query)["accuracy"] > 0.8


@pytest.mark.parametrize(("name", "steps"), [("cnp", 300), ("rnn", 150), ("snail", 150)])
def test_learns_sine_waves(name, steps):
    """Ten points of a wave tell more than their mean."""
    data = open_data("sinusoid")
    spec = data.spec(EpisodeShape(1, 10, 20))
    learner = make(name, spec, num_tasks=32, train_shots=10, learning_rate=3e-3, **SMALL[name])
    for seed in range(steps):
        learner.fit(data.episodes("train", 32, learner.training_shape, seed=seed), seed=seed)
    test = data.episodes("test", 200, spec.shape, seed=0)
    with torch.no_grad():
        error = learner.score(learner.adapt(test.support)(test.query.x), test.query)["mse"]
    mean = test.support.y.mean(1, keepdim=True).expand_as(test.query.y)
    assert error < 0.55 * learner.score(mean, test.query)["mse"]


@pytest.mark.parametrize("name", NAMES)
def test_fits_images(name, images):
    """The loss of one batch of episodes falls by a half, labels permuted anew in every step."""
    spec = images.spec(EpisodeShape(3, 1, 3))
    learner = make(name, spec, width=16, embedding=16, learning_rate=3e-3, **SMALL[name])
    episodes = images.episodes("train", 4, spec.shape, seed=0)
    losses = [learner.fit(episodes, seed=seed)["loss"] for seed in range(120)]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
