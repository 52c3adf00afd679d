"""Siamese networks by hand and against a loop over pairs."""

import math

import pytest
import torch

from metarl.errors import UsageError
from metarl.fewshot.episodes import Episodes, EpisodeShape, Samples
from metarl.fewshot.learners.siamese import Siamese, SiameseConfig, class_scores, pair_loss
from metarl.fewshot.objectives.plain import Objective, ObjectiveConfig

SHAPE = EpisodeShape(ways=3, shots=2, queries=4)


@pytest.fixture(params=["best", "mean"])
def learner(request, images) -> Siamese:
    """Four filters, three training steps."""
    learner = Siamese(SiameseConfig(num_tasks=2, width=4, embedding=8, by=request.param), images.spec(SHAPE))
    for seed in range(3):
        learner.fit(images.episodes("train", 2, SHAPE, seed=seed), seed=seed)
    return learner


def predict(learner: Siamese, support: Samples, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return learner.adapt(support)(x)


@pytest.mark.parametrize(("by", "expected"), [("best", [0.0, -1.0]), ("mean", [-0.75, -1.0])])
def test_an_episode_by_hand(rows, by, expected):
    """Embeddings sigmoid(x), α = (−2, −4, −8), b = 1; sigmoid(0) = 0.5 and sigmoid(log 3) = 0.75."""
    learner = Siamese(SiameseConfig(hidden=(), embedding=3, by=by), rows.spec(EpisodeShape(2, 1, 1)))
    with torch.no_grad():
        learner.parameters["weight0"].copy_(torch.eye(3))
        learner.parameters["distance_weight"].copy_(torch.tensor([-2.0, -4.0, -8.0]))
        learner.parameters["distance_bias"].fill_(1.0)
    third = math.log(3)  # each feature apart by 0.25 costs 0.5, 1 or 2
    support = torch.tensor([[[0.0, third, 0.0], [0.0, 0.0, third], [third, 0.0, third]]])
    scores = predict(learner, Samples(support, torch.tensor([[0, 1, 0]])), torch.zeros(1, 1, 3))
    torch.testing.assert_close(scores, torch.tensor([[expected]]))


def test_the_loss_is_a_mean_over_each_kind_of_pair():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 5, generator=generator)
    labels = torch.tensor([[0, 1, 0, 1, 0], [2, 1, 0, 1, 0]])
    losses = pair_loss(logits, labels)
    for task in range(2):
        kinds: dict[bool, list[float]] = {True: [], False: []}
        for i in range(5):
            for j in range(i + 1, 5):
                same = bool(labels[task, i] == labels[task, j])
                p_same = 1 / (1 + math.exp(-float(logits[task, i, j])))
                kinds[same].append(-math.log(p_same if same else 1 - p_same))
        expected = sum(sum(values) / len(values) for values in kinds.values()) / 2
        assert float(losses[task]) == pytest.approx(expected, rel=1e-5)


def test_the_gradient_of_the_loss_is_that_of_finite_differences(rows):
    learner = Siamese(SiameseConfig(hidden=(), embedding=4), rows.spec(SHAPE))
    episodes = rows.episodes("train", 1, SHAPE, seed=0)
    x, y = episodes.query.x.double(), episodes.query.y
    learner.parameters = {name: value.detach().double() for name, value in learner.parameters.items()}

    def loss(weight: torch.Tensor) -> torch.Tensor:
        learner.parameters["distance_weight"] = weight
        embedded = learner._encode(x)
        return pair_loss(learner.same_logits(embedded, embedded), y).sum()

    weight = learner.parameters["distance_weight"].clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, (weight,))


def test_scores_are_log_odds_whose_softmax_knows_that_one_class_is_the_same():
    """Two independent looks, "same as class 0?" and "same as class 1?", by Bayes' rule with even priors."""
    odds = torch.tensor([3.0, 0.5])
    scores = class_scores(odds.log()[None, None], torch.tensor([[0, 1]]), "best")
    same, different = odds / (1 + odds), 1 / (1 + odds)
    joint = torch.stack([same[0] * different[1], different[0] * same[1]])
    torch.testing.assert_close(scores.softmax(-1)[0, 0], joint / joint.sum())


def test_a_batch_of_tasks_is_the_tasks_one_by_one_and_queries_do_not_touch_each_other(learner, images):
    episodes = images.episodes("test", 3, SHAPE, seed=0)
    scores = predict(learner, episodes.support, episodes.query.x)
    for task in range(3):
        one = episodes[task : task + 1]
        for query in (slice(0, 1), slice(1, 12)):
            alone = predict(learner, one.support, one.query.x[:, query])
            torch.testing.assert_close(alone[0], scores[task, query], rtol=1e-4, atol=1e-4)


def test_the_support_is_a_set(learner, images):
    episode = images.episodes("test", 1, SHAPE, seed=0)
    order = torch.tensor([3, 5, 0, 2, 4, 1])
    shuffled = Samples(episode.support.x[:, order], episode.support.y[:, order])
    scores = predict(learner, episode.support, episode.query.x)
    torch.testing.assert_close(predict(learner, shuffled, episode.query.x), scores, rtol=1e-4, atol=1e-4)


def test_training_predictions_do_not_know_query_labels(learner, images):
    """The accuracy that `fit` tells is that of the scores which `adapt` gives for the inputs alone."""
    episodes = images.episodes("train", 2, SHAPE, seed=9)
    turned = Episodes(episodes.support, Samples(episodes.query.x, (episodes.query.y + 1) % 3))
    state = learner.state()
    scores = learner.adapt(episodes.support, training=True)(episodes.query.x).detach()
    for batch in (episodes, turned):
        learner.load_state(*state)
        assert learner.fit(batch, seed=0)["accuracy"] == pytest.approx(learner.score(scores, batch.query)["accuracy"])


def test_another_objective_adds_its_loss_to_that_of_the_pairs(images):
    class Doubled(Objective):
        def query_loss(self, predictor, query, generator):
            losses, outputs = super().query_loss(predictor, query, generator)
            return 2 * losses, outputs

    spec, config = images.spec(SHAPE), SiameseConfig(num_tasks=2, width=4, embedding=8)
    episodes = images.episodes("train", 2, SHAPE, seed=0)
    plain, more = Siamese(config, spec), Siamese(config, spec, objective=Doubled(ObjectiveConfig(), spec))
    predictor = Siamese(config, spec).adapt(episodes.support, training=True)
    queries, _ = Objective(ObjectiveConfig(), spec).query_loss(predictor, episodes.query, torch.Generator())
    added = more.fit(episodes, seed=0)["loss"] - plain.fit(episodes, seed=0)["loss"]
    assert added == pytest.approx(2 * float(queries.mean().detach()), rel=1e-4)


def test_it_learns_and_takes_any_number_of_classes(images):
    config = SiameseConfig(num_tasks=2, width=8, embedding=64, learning_rate=3e-3)
    learner = Siamese(config, images.spec(EpisodeShape(5, 1, 5)))
    for seed in range(60):
        learner.fit(images.episodes("train", 2, learner.training_shape, seed=seed), seed=seed)
    test = images.episodes("test", 20, EpisodeShape(8, 1, 5), seed=0)
    assert learner.score(predict(learner, test.support, test.query.x), test.query)["accuracy"] > 0.4  # chance: 0.125


def test_an_embedding_of_no_size_is_refused():
    with pytest.raises(UsageError, match="embedding"):
        SiameseConfig(embedding=0)
