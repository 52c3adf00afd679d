"""Matching networks by hand, and full-context embeddings against torch's LSTM and a loop over examples."""

import dataclasses
import math

import pytest
import torch

from metarl.errors import UsageError
from metarl.fewshot.episodes import Episodes, EpisodeShape, Samples
from metarl.fewshot.learners.matching import Matching, MatchingConfig, log_class_attention

SHAPE = EpisodeShape(ways=3, shots=2, queries=4)


@pytest.fixture(params=[False, True], ids=["plain", "full-context"])
def learner(request, images) -> Matching:
    """Four filters, three training steps."""
    config = MatchingConfig(num_tasks=2, width=4, full_context=request.param, processing_steps=3)
    learner = Matching(config, images.spec(SHAPE))
    for seed in range(3):
        learner.fit(images.episodes("train", 2, SHAPE, seed=seed), seed=seed)
    return learner


def predict(learner: Matching, support: Samples, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return learner.adapt(support)(x)


def test_an_episode_by_hand(rows):
    """Class 1 is at (1, 0, 0), class 0 at (0, 2, 0) and (3, 4, 0); the query (0, 1, 0) has cosines 0, 1 and 0.8."""
    config = MatchingConfig(hidden=(3,), sharpness=1.0, learn_sharpness=False)
    learner = Matching(config, rows.spec(EpisodeShape(2, 1, 1)))
    with torch.no_grad():
        learner.parameters["weight0"].copy_(torch.eye(3))
    support = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [3.0, 4.0, 0.0]]])
    scores = predict(learner, Samples(support, torch.tensor([[1, 0, 0]])), torch.tensor([[[0.0, 1.0, 0.0]]]))
    total = 1 + math.e + math.exp(0.8)
    expected = torch.tensor([[[(math.e + math.exp(0.8)) / total, 1 / total]]])
    torch.testing.assert_close(scores.exp(), expected)


def test_class_attention_is_a_sum_over_examples():
    similarity = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[0, 2, 1, 2, 2], [1, 1, 0, 2, 0]])
    probabilities = log_class_attention(similarity, labels).exp()
    for task in range(2):
        for query in range(3):
            weights = [math.exp(value) for value in similarity[task, query].tolist()]
            for way in range(3):
                mine = sum(w for w, label in zip(weights, labels[task].tolist(), strict=True) if label == way)
                assert float(probabilities[task, query, way]) == pytest.approx(mine / sum(weights), rel=1e-5)


def test_attention_so_sharp_that_probabilities_vanish_has_finite_scores_and_gradients():
    similarity = torch.tensor([[[5e4, -5e4, 0.0]]], requires_grad=True)
    scores = log_class_attention(similarity, torch.tensor([[0, 1, 1]]))
    scores.sum().backward()
    torch.testing.assert_close(scores.detach(), torch.tensor([[[0.0, -5e4]]]))
    assert similarity.grad is not None
    assert similarity.grad.isfinite().all()


def test_full_context_embeddings_are_those_of_the_equations(rows):
    """g by torch's bidirectional LSTM; f by the equations of appendix A.1, one query and one gate at a time."""
    learner = Matching(MatchingConfig(hidden=(4,), full_context=True, processing_steps=3), rows.spec(SHAPE), seed=3)
    parameters = {name: value.detach() for name, value in learner.parameters.items()}
    episode = rows.episodes("test", 1, SHAPE, seed=0)
    encode = lambda x: x @ parameters["weight0"].T + parameters["bias0"]  # noqa: E731
    support, queries = encode(episode.support.x[0]), encode(episode.query.x[0])
    lstm = torch.nn.LSTM(4, 4, bidirectional=True)
    with torch.no_grad():
        for name, suffix in (("forward", ""), ("backward", "_reverse")):
            getattr(lstm, f"weight_ih_l0{suffix}").copy_(parameters[f"{name}.input"])
            getattr(lstm, f"weight_hh_l0{suffix}").copy_(parameters[f"{name}.recurrent"])
            getattr(lstm, f"bias_ih_l0{suffix}").copy_(parameters[f"{name}.bias"])
            getattr(lstm, f"bias_hh_l0{suffix}").zero_()
        context = lstm(support)[0].unflatten(1, (2, 4)).sum(1) + support
    scores = predict(learner, episode.support, episode.query.x)[0]
    for row, x in enumerate(queries):
        hidden, cell = x, torch.zeros(4)
        for _ in range(3):
            weights = torch.tensor([math.exp(float(hidden @ g)) for g in context])
            readout = sum(w * g for w, g in zip(weights / weights.sum(), context, strict=True))
            gates = parameters["query.input"] @ x + parameters["query.bias"]
            gates = gates + parameters["query.recurrent"] @ torch.cat([hidden, readout])
            cell = torch.sigmoid(gates[4:8]) * cell + torch.sigmoid(gates[:4]) * torch.tanh(gates[8:12])
            hidden = torch.sigmoid(gates[12:]) * torch.tanh(cell) + x
        weights = torch.tensor([math.exp(10 * torch.cosine_similarity(hidden, g, dim=0)) for g in context])
        expected = [float(weights[episode.support.y[0] == way].sum() / weights.sum()) for way in range(3)]
        torch.testing.assert_close(scores[row].exp(), torch.tensor(expected), rtol=1e-4, atol=1e-6)


def test_a_batch_of_tasks_is_the_tasks_one_by_one_and_queries_do_not_touch_each_other(learner, images):
    episodes = images.episodes("test", 3, SHAPE, seed=0)
    scores = predict(learner, episodes.support, episodes.query.x)
    for task in range(3):
        one = episodes[task : task + 1]
        for query in (slice(0, 1), slice(1, 12)):
            alone = predict(learner, one.support, one.query.x[:, query])
            torch.testing.assert_close(alone[0], scores[task, query], rtol=1e-4, atol=1e-4)


def test_only_full_context_embeddings_see_the_order_of_the_support(learner, images):
    episode = images.episodes("test", 1, SHAPE, seed=0)
    order = torch.tensor([3, 5, 0, 2, 4, 1])
    shuffled = Samples(episode.support.x[:, order], episode.support.y[:, order])
    scores, others = (predict(learner, support, episode.query.x) for support in (episode.support, shuffled))
    difference = float((scores - others).abs().max())
    assert difference > 1e-3 if learner.config.full_context else difference < 1e-4


def test_query_labels_change_the_loss_and_no_prediction(learner, images):
    episodes = images.episodes("train", 2, SHAPE, seed=9)
    turned = Episodes(episodes.support, Samples(episodes.query.x, (episodes.query.y + 1) % 3))
    state = learner.state()
    results = []
    for batch in (episodes, turned):
        learner.load_state(*state)
        seen = learner.adapt(batch.support, training=True)(batch.query.x).detach()
        learner.load_state(*state)
        results.append((seen, learner.fit(batch, seed=0)["loss"]))
    torch.testing.assert_close(results[0][0], results[1][0])
    assert results[0][1] != pytest.approx(results[1][1])


@pytest.mark.parametrize("full_context", [False, True])
def test_it_learns_and_takes_any_number_of_classes(images, full_context):
    config = MatchingConfig(num_tasks=2, width=8, full_context=full_context, processing_steps=2, learning_rate=3e-3)
    learner = Matching(config, images.spec(EpisodeShape(5, 1, 5)))
    for seed in range(40):
        learner.fit(images.episodes("train", 2, learner.training_shape, seed=seed), seed=seed)
    test = images.episodes("test", 20, EpisodeShape(8, 1, 5), seed=0)
    assert learner.score(predict(learner, test.support, test.query.x), test.query)["accuracy"] > 0.4  # chance: 0.125


def test_rows_are_told_apart_by_their_direction(rows):
    spec = rows.spec(EpisodeShape(3, 1, 4))
    learner = Matching(dataclasses.replace(Matching.default_config(spec), hidden=(32, 32)), spec)
    for seed in range(60):
        learner.fit(rows.episodes("train", 16, learner.training_shape, seed=seed), seed=seed)
    test = rows.episodes("test", 50, spec.shape, seed=0)
    assert learner.score(predict(learner, test.support, test.query.x), test.query)["accuracy"] > 0.6  # chance: 0.333


@pytest.mark.parametrize("options", [{"sharpness": 0.0}, {"processing_steps": 0}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        MatchingConfig(**options)
