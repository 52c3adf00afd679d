"""The order of the support set: learners of sets do not see it, those of sequences say so, and users see none."""

import dataclasses
from typing import Any

import pytest
import torch

from metarl.fewshot import EpisodeShape, Learner, Samples, explain
from metarl.fewshot.data import DataSet, open_data
from metarl.fewshot.learners import learner_class
from metarl.fewshot.support_order import by_content
from metarl.registry import list_learners

SEQUENCES = {"rnn", "snail", "mann", "ntm"}
SHOTS = 12
"""More than a mini-batch of Reptile holds, in all."""


def trained(name: str, data: DataSet, shape: EpisodeShape, **options: Any) -> Learner:
    """A learner after three steps, when its predictions have begun to depend on the support."""
    cls, spec = learner_class(name), data.spec(shape)
    small = {"num_tasks": 2, "train_queries": 2, "warm_up": 0, "controller_size": 16, "slots": 8, "units": 16}
    small |= {"filters": 8, "iterations": 20, "width": 8, "hidden": (16,), **options}
    config = cls.default_config(spec)
    config = dataclasses.replace(config, **{name: value for name, value in small.items() if hasattr(config, name)})
    learner = cls(config, spec, seed=0)
    for step in range(3):
        learner.fit(data.episodes("train", 2, learner.training_shape, seed=step), seed=step)
    return learner


def largest_change(learner: Learner, data: DataSet, shape: EpisodeShape) -> float:
    """The largest change of a prediction over permutations of the support set, in units of the predictions' spread."""
    episodes = data.episodes("test", 2, shape, seed=0)
    support, query, found = episodes.support, episodes.query.x, []
    count = support.x.shape[1]
    orders = [torch.randperm(count, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    for order in (torch.arange(count), torch.arange(count).flip(0), *orders):
        groups = None if support.groups is None else support.groups[:, order]
        with torch.no_grad():
            outputs = learner.adapt(Samples(support.x[:, order], support.y[:, order], groups))(query)
        found.append(outputs.softmax(-1) if learner.metric == "accuracy" else outputs / outputs.std())
    return float((torch.stack(found) - found[0]).abs().max())


@pytest.mark.parametrize("name", list_learners())
def test_only_learners_of_sequences_see_the_order(name: str) -> None:
    data, shape = open_data("biased"), EpisodeShape(2, SHOTS, 3)
    learner = trained(name, data, shape)
    assert learner.order_matters == (name in SEQUENCES)
    change = largest_change(learner, data, shape)
    assert change > 1e-3 if learner.order_matters else change < 1e-4


@pytest.mark.parametrize("name", ["maml", "reptile", "l2o", "cnp", "anil", "fomaml"])
def test_nor_in_regression(name: str) -> None:
    data, shape = open_data("sinusoid"), EpisodeShape(1, SHOTS, 3)
    assert largest_change(trained(name, data, shape), data, shape) < 1e-3


@pytest.mark.parametrize("name", ["maml", "reptile", "protonet", "metanet", "siamese", "cnp"])
def test_nor_on_pictures(name: str, images: DataSet) -> None:
    shape = EpisodeShape(3, 4, 2)
    learner = trained(name, images, shape, train_ways=3, train_shots=4, test_steps=10)
    assert largest_change(learner, images, shape) < 1e-3


def test_full_context_embeddings_say_that_they_see_it() -> None:
    data, shape = open_data("biased"), EpisodeShape(2, SHOTS, 3)
    learner = trained("matching", data, shape, full_context=True)
    assert learner.order_matters
    assert largest_change(learner, data, shape) > 1e-3


def test_the_order_by_content_is_that_of_the_set_and_keeps_examples_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 20, 2, 4, generator=generator)
    x[:, 7] = x[:, 3]  # the same inputs with two labels
    y, groups = torch.arange(20).expand(3, -1) % 5, torch.arange(20).expand(3, -1) % 2
    ordered = by_content(Samples(x, y, groups))
    mixed = torch.stack([torch.randperm(20, generator=generator) for _ in range(3)])
    rows = torch.arange(3)[:, None]
    again = by_content(Samples(x[rows, mixed], y[rows, mixed], groups[rows, mixed]))
    assert ordered.groups is not None
    assert again.groups is not None
    for one, other in ((ordered.x, again.x), (ordered.y, again.y), (ordered.groups, again.groups)):
        assert torch.equal(one, other)
    for task in range(3):
        place = (ordered.x[task, :, None] == x[task]).all((2, 3)).nonzero()
        pairs = {(int(ordered.y[task, row]), int(y[task, old])) for row, old in place.tolist() if old not in (3, 7)}
        assert all(new == old for new, old in pairs)
    assert ordered.y[0].tolist() != sorted(ordered.y[0].tolist())


@pytest.mark.parametrize("name", [*list_learners(), "full context"])
def test_what_a_user_is_told_does_not_depend_on_the_order(name: str) -> None:
    data, shape = open_data("biased"), EpisodeShape(2, SHOTS, 3)
    full = name == "full context"
    learner = trained("matching", data, shape, full_context=True) if full else trained(name, data, shape, test_steps=5)
    episode = data.episodes("test", 1, shape, seed=1)
    x, y, queries = episode.support.x[0], episode.support.y[0], episode.query.x[0]
    by_class = y.argsort(stable=True)
    as_given, as_sorted = (explain(learner, x[order], y[order], queries) for order in (torch.arange(len(y)), by_class))
    torch.testing.assert_close(as_sorted.probabilities, as_given.probabilities, atol=1e-4, rtol=0)
    predicted = learner.predict(x[by_class], y[by_class], queries)
    torch.testing.assert_close(predicted, as_given.probabilities, atol=1e-4, rtol=0)
    for sorted_rows, rows in (
        (as_sorted.support_effect, as_given.support_effect),
        (as_sorted.attention, as_given.attention),
    ):
        if rows is not None and sorted_rows is not None:  # each row's own, wherever it stands
            torch.testing.assert_close(sorted_rows, rows[:, by_class], atol=2e-4, rtol=0)
