"""Meta networks against algorithm 1 of the paper, written as loops over examples and coordinates."""

import math

import pytest
import torch
import torch.nn.functional as F

from metarl.errors import UsageError
from metarl.fewshot.episodes import Episodes, EpisodeShape, Samples
from metarl.fewshot.learners.l2o import log_and_sign
from metarl.fewshot.learners.metanet import LOG_RANGE, MetaNet, MetaNetConfig
from metarl.fewshot.parameter_names import part
from metarl.fewshot.support_order import by_content

SHAPE = EpisodeShape(ways=3, shots=2, queries=4)


@pytest.fixture
def learner(images) -> MetaNet:
    """Four filters, three training steps."""
    learner = MetaNet(MetaNetConfig(num_tasks=2, width=4, units=5), images.spec(SHAPE))
    for seed in range(3):
        learner.fit(images.episodes("train", 2, SHAPE, seed=seed), seed=seed)
    return learner


def predict(learner: MetaNet, support: Samples, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return learner.adapt(support)(x)


def test_gradients_are_preprocessed_as_in_learning_to_learn():
    """By hand: log |g| / 7 and the sign from e⁻⁷ on, below it −1 and e⁷ g."""
    values = log_and_sign(torch.tensor([1.0, -math.exp(-3.5), math.exp(-8), 0.0]), LOG_RANGE)
    expected = torch.tensor([[0.0, 1.0], [-0.5, -1.0], [-1.0, math.exp(-1)], [-1.0, 0.0]])
    torch.testing.assert_close(values, expected)


def test_gradients_of_single_examples_are_those_of_finite_differences(rows):
    learner = MetaNet(MetaNetConfig(units=3, hidden=(4,)), rows.spec(SHAPE))
    generator = torch.Generator().manual_seed(0)
    slow = {name: value.detach().double() for name, value in part("base.layers.", learner.parameters).items()}
    features = torch.randn(1, 2, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([[2, 0]])
    gradients = learner.example_gradients(slow, features, labels)

    def loss(parameters: dict[str, torch.Tensor], example: int) -> float:
        hidden = (parameters["weight0"] @ features[0, example] + parameters["bias0"]).relu()
        outputs = parameters["weight1"] @ hidden + parameters["bias1"]
        return float(-outputs.log_softmax(0)[labels[0, example]])

    for name, value in slow.items():
        for example in range(2):
            for place in range(value.numel()):
                step = torch.zeros_like(value).view(-1)
                step[place] = 1e-6
                ahead, behind = (loss({**slow, name: value + s * step.view_as(value)}, example) for s in (1, -1))
                found = float(gradients[name][0, example].reshape(-1)[place])
                assert found == pytest.approx((ahead - behind) / 2e-6, abs=1e-7)


def algorithm_1(p: dict[str, torch.Tensor], support: Samples, query: torch.Tensor) -> torch.Tensor:
    """Scores of one query `[D]` given one support set, by the paper, with linear encoders and one example at a time.

    The LSTM is torch's, the gradients are autograd's of a loss of one example.
    """
    d = torch.nn.LSTMCell(2, 20)
    with torch.no_grad():
        d.weight_ih.copy_(p["lstm.input"])
        d.weight_hh.copy_(p["lstm.recurrent"])
        d.bias_ih.copy_(p["lstm.bias"])
        d.bias_hh.zero_()

    def m(gradient: torch.Tensor) -> torch.Tensor:
        def one(g: torch.Tensor) -> torch.Tensor:
            hidden = (p["rule.weight0"] @ log_and_sign(g, LOG_RANGE) + p["rule.bias0"]).relu()
            hidden = (p["rule.weight1"] @ hidden + p["rule.bias1"]).relu()
            return (p["rule.weight2"] @ hidden + p["rule.bias2"])[0]

        return torch.stack([one(g) for g in gradient.reshape(-1)]).view_as(gradient)

    def encode(net: str, x: torch.Tensor) -> torch.Tensor:
        return p[f"{net}.encoder.weight0"] @ x + p[f"{net}.encoder.bias0"]

    def gradients(net: str, x: torch.Tensor, label: int) -> list[torch.Tensor]:
        w0, b0, w1, b1 = (
            p[f"{net}.layers.{name}"].clone().requires_grad_() for name in ("weight0", "bias0", "weight1", "bias1")
        )
        outputs = w1 @ (w0 @ encode(net, x) + b0).relu() + b1
        return list(torch.autograd.grad(F.cross_entropy(outputs, torch.tensor(label)), [w0, b0, w1, b1]))

    examples = list(zip(support.x[0], support.y[0].tolist(), strict=True))
    chosen = [next(x for x, label in examples if label == way) for way in range(3)]
    read = [gradients("meta", x, way) for way, x in enumerate(chosen)]
    fast_q = []
    for index in range(2):  # the hidden layer's weight and bias
        values = []
        for coordinates in zip(*(r[index].reshape(-1) for r in read), strict=True):
            state = (torch.zeros(1, 20), torch.zeros(1, 20))
            for g in coordinates:
                state = d(log_and_sign(g, LOG_RANGE)[None], state)
            values.append((p["lstm.output"] @ state[0][0])[0])
        fast_q.append(torch.stack(values).view_as(read[0][index]))

    def represent(x: torch.Tensor) -> torch.Tensor:
        features = encode("meta", x)
        slow = (p["meta.layers.weight0"] @ features + p["meta.layers.bias0"]).relu()
        return slow + (fast_q[0] @ features + fast_q[1]).relu()

    memory = [[m(g) for g in gradients("base", x, label)] for x, label in examples]
    cosines = torch.stack([torch.cosine_similarity(represent(x), represent(query), dim=0) for x, _ in examples])
    attention = (p["log_sharpness"].exp() * cosines).softmax(0)
    w0, b0, w1, b1 = (sum(a * entry[i] for a, entry in zip(attention, memory, strict=True)) for i in range(4))
    features = encode("base", query)
    hidden = (p["base.layers.weight0"] @ features + p["base.layers.bias0"]).relu() + (w0 @ features + b0).relu()
    return p["base.layers.weight1"] @ hidden + p["base.layers.bias1"] + w1 @ hidden + b1


def test_predictions_are_those_of_the_algorithm(rows):
    learner = MetaNet(MetaNetConfig(num_tasks=4, units=3, hidden=(4,), learning_rate=1e-2), rows.spec(SHAPE), seed=2)
    for seed in range(5):
        learner.fit(rows.episodes("train", 4, SHAPE, seed=seed), seed=seed)
    episode = rows.episodes("test", 1, SHAPE, seed=0)
    scores = predict(learner, episode.support, episode.query.x)[0]
    parameters = {name: value.detach() for name, value in learner.parameters.items()}
    for row in range(0, 12, 3):
        expected = algorithm_1(parameters, by_content(episode.support), episode.query.x[0, row]).detach()
        torch.testing.assert_close(scores[row], expected, rtol=1e-3, atol=1e-4)


def test_training_reaches_every_parameter(rows):
    learner = MetaNet(MetaNetConfig(num_tasks=4, units=8, hidden=(8,)), rows.spec(SHAPE))
    learner.fit(rows.episodes("train", 4, SHAPE, seed=0), seed=0)
    silent = {name for name, value in learner.parameters.items() if value.grad is None or not value.grad.any()}
    assert silent == {"meta.layers.weight1", "meta.layers.bias1"}  # u's output layer is there for its gradients alone


def test_a_batch_of_tasks_is_the_tasks_one_by_one_and_queries_do_not_touch_each_other(learner, images):
    episodes = images.episodes("test", 3, SHAPE, seed=0)
    scores = predict(learner, episodes.support, episodes.query.x)
    for task in range(3):
        one = episodes[task : task + 1]
        for query in (slice(0, 1), slice(1, 12)):
            alone = predict(learner, one.support, one.query.x[:, query])
            torch.testing.assert_close(alone[0], scores[task, query], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shots", [1, 2])
def test_the_support_is_a_set(learner, images, shots):
    episode = images.episodes("test", 1, EpisodeShape(3, shots, 4), seed=0)
    y = episode.support.y
    by_class = y.argsort(dim=1, stable=True)
    backwards = torch.arange(3 * shots - 1, -1, -1)[None]
    results = []
    for order in (by_class, backwards):
        shuffled = Samples(episode.support.x[:, order[0]], y[:, order[0]])
        results.append(predict(learner, shuffled, episode.query.x))
    scores = predict(learner, episode.support, episode.query.x)
    for found in results:
        torch.testing.assert_close(found, scores, rtol=1e-3, atol=1e-4)


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


def test_it_learns(rows):
    spec = rows.spec(EpisodeShape(3, 1, 4))
    learner = MetaNet(MetaNetConfig(num_tasks=8, units=6, hidden=(16, 6), learning_rate=1e-2), spec)
    for seed in range(80):
        learner.fit(rows.episodes("train", 8, spec.shape, seed=seed), seed=seed)
    test = rows.episodes("test", 50, spec.shape, seed=0)
    assert learner.score(predict(learner, test.support, test.query.x), test.query)["accuracy"] > 0.6  # chance: 0.333


@pytest.mark.parametrize("options", [{"units": 0}, {"sharpness": -1.0}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        MetaNetConfig(**options)
