"""Prototypical networks by hand."""

import dataclasses

import torch

from metarl.fewshot.episodes import EpisodeShape, Samples
from metarl.fewshot.learners.protonet import ProtoNet, class_means, squared_distances


def test_means_and_distances_by_hand():
    embedded = torch.tensor([[[0.0, 0.0], [4.0, 0.0], [2.0, 2.0]]])
    means = class_means(embedded, torch.tensor([[1, 0, 1]]))
    torch.testing.assert_close(means, torch.tensor([[[4.0, 0.0], [1.0, 1.0]]]))
    distances = squared_distances(torch.tensor([[[0.0, 0.0], [4.0, 1.0]]]), means)
    torch.testing.assert_close(distances, torch.tensor([[[16.0, 2.0], [1.0, 9.0]]]))


def test_an_episode_by_hand(images, shape):
    spec = images.spec(shape)
    learner = ProtoNet(dataclasses.replace(ProtoNet.default_config(spec), train_ways=3, width=4), spec)
    for seed in range(3):
        learner.fit(images.episodes("train", 1, shape, seed=seed), seed=seed)
    episode = images.episodes("test", 1, shape, seed=0)
    with torch.no_grad():
        scores = learner.adapt(episode.support)(episode.query.x)[0]
        support, query = learner.embed(episode.support.x[0]), learner.embed(episode.query.x[0])
    for row, embedded in enumerate(query):
        for way in range(3):
            prototype = support[episode.support.y[0] == way].mean(0)
            expected = -(embedded - prototype).square().sum()
            torch.testing.assert_close(scores[row, way], expected, rtol=1e-3, atol=1e-3)


def test_predictions_depend_on_no_other_query_and_on_no_order(images, shape):
    spec = images.spec(shape)
    learner = ProtoNet(dataclasses.replace(ProtoNet.default_config(spec), train_ways=3, width=4), spec)
    episode = images.episodes("test", 1, shape, seed=0)
    order = torch.tensor([3, 5, 0, 2, 4, 1])
    shuffled = Samples(episode.support.x[:, order], episode.support.y[:, order])
    with torch.no_grad():
        scores = learner.adapt(episode.support)(episode.query.x)
        torch.testing.assert_close(learner.adapt(shuffled)(episode.query.x), scores, rtol=1e-4, atol=1e-4)
        alone = learner.adapt(episode.support)(episode.query.x[:, :1])
    torch.testing.assert_close(alone, scores[:, :1], rtol=1e-4, atol=1e-4)


def test_it_learns_and_takes_any_number_of_classes(images):
    spec = images.spec(EpisodeShape(5, 1, 5))
    learner = ProtoNet(dataclasses.replace(ProtoNet.default_config(spec), train_ways=5, width=8), spec)
    test = images.episodes("test", 20, EpisodeShape(8, 1, 5), seed=0)
    for seed in range(40):
        learner.fit(images.episodes("train", 1, learner.training_shape, seed=seed), seed=seed)
    with torch.no_grad():
        accuracy = learner.score(learner.adapt(test.support)(test.query.x), test.query)["accuracy"]
    assert accuracy > 0.5  # chance: 0.125
