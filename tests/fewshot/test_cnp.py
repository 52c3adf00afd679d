"""Conditional neural processes by naive loops and other libraries' likelihood."""

import pytest
import torch

from metarl.errors import UsageError
from metarl.fewshot.data import open_data
from metarl.fewshot.episodes import Episodes, EpisodeShape, Samples
from metarl.fewshot.learners.cnp import CNPConfig, ConditionalNeuralProcess, gaussian_nll


def run(learner: ConditionalNeuralProcess, name: str, vector: torch.Tensor) -> torch.Tensor:
    """h or g of one vector, layer by layer."""
    layers = 1 + max(
        int(key.removeprefix(f"map.{name}.weight")) for key in learner.parameters if f"{name}.weight" in key
    )
    for layer in range(layers):
        weight, bias = (learner.parameters[f"map.{name}.{part}{layer}"] for part in ("weight", "bias"))
        vector = weight @ vector + bias
        if layer < layers - 1:
            vector = vector.clamp(min=0)
    return vector


def test_regression_by_loops():
    data = open_data("sinusoid")
    shape = EpisodeShape(1, 4, 3)
    learner = ConditionalNeuralProcess(CNPConfig(hidden=(7, 5), representation=6, min_std=0.2), data.spec(shape))
    episodes = data.episodes("test", 2, shape, seed=0)
    support, query = episodes.support, episodes.query
    with torch.no_grad():
        predicted = learner.adapt(support)(query.x)
        memory = learner.read(support.x, support.y)
        mean, std = learner.distribution(memory, query.x)
        for task in range(2):
            pairs = zip(support.x[task], support.y[task], strict=True)
            r = sum(run(learner, "h", torch.cat([x, y])) for x, y in pairs) / 4
            for row in range(3):
                mu, omega = run(learner, "g", torch.cat([query.x[task, row], r]))
                torch.testing.assert_close(predicted[task, row, 0], mu, rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(mean[task, row, 0], mu, rtol=1e-4, atol=1e-5)
                sigma = 0.2 + 0.8 * torch.log1p(omega.exp())
                torch.testing.assert_close(std[task, row, 0], sigma, rtol=1e-4, atol=1e-5)


def test_classes_of_unequal_size_by_loops(rows):
    spec = rows.spec(EpisodeShape(3, 1, 1))
    learner = ConditionalNeuralProcess(CNPConfig(hidden=(7,), representation=4), spec)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(1, 6, 3, generator=generator), torch.tensor([[2, 0, 0, 1, 2, 0]])
    query = torch.randn(1, 2, 3, generator=generator)
    with torch.no_grad():
        scores = learner.answer(learner.read(x, torch.eye(3)[y]), query)
        means = []
        for way in range(3):
            members = [run(learner, "h", torch.cat([x[0, i], torch.eye(3)[way]])) for i in range(6) if y[0, i] == way]
            means.append(sum(members) / len(members))
        for row in range(2):
            expected = run(learner, "g", torch.cat([query[0, row], *means]))
            torch.testing.assert_close(scores[0, row], expected, rtol=1e-4, atol=1e-5)


def test_likelihood_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    mean, values = torch.randn(2, 3, 4, 1, generator=generator)
    std = 0.1 + torch.rand(3, 4, 1, generator=generator)
    expected = -torch.distributions.Normal(mean, std).log_prob(values).mean()
    torch.testing.assert_close(gaussian_nll(mean, std, values), expected)


def test_training_judges_all_points_given_a_part_of_the_support():
    data = open_data("sinusoid")
    shape = EpisodeShape(1, 4, 3)
    config = CNPConfig(hidden=(8,), representation=6)
    episodes = data.episodes("train", 2, shape, seed=0)
    points = torch.cat([episodes.support.x, episodes.query.x], 1), torch.cat([episodes.support.y, episodes.query.y], 1)
    sizes = set()
    for seed in range(12):
        learner = ConditionalNeuralProcess(config, data.spec(shape))
        possible = []
        with torch.no_grad():
            for size in range(1, 5):
                memory = learner.read(episodes.support.x[:, :size], episodes.support.y[:, :size])
                mean, std = learner.distribution(memory, points[0])
                possible.append(float(-torch.distributions.Normal(mean, std).log_prob(points[1]).mean()))
        loss = learner.fit(episodes, seed=seed)["loss"]
        matches = [size for size, value in enumerate(possible, 1) if value == pytest.approx(loss, rel=1e-5)]
        assert len(matches) == 1
        sizes |= set(matches)
    assert len(sizes) > 1


def constants(tasks: int, noise: float, seed: int) -> Episodes:
    """y = c + ε with c ~ N(0, 1) and ε ~ N(0, noise²), whatever x: one support example and 60 queries."""
    generator = torch.Generator().manual_seed(seed)
    x, error = torch.randn(2, tasks, 61, 1, generator=generator)
    y = torch.randn(tasks, 1, 1, generator=generator) + noise * error
    return Episodes(Samples(x[:, :1], y[:, :1]), Samples(x[:, 1:], y[:, 1:]))


@pytest.mark.parametrize("noise", [0.5, 1.0])
def test_it_learns_what_bayes_says(noise):
    """Given y of one example, that of another is N(y / (1 + noise²), noise² + noise² / (1 + noise²))."""
    config = CNPConfig(hidden=(32,), representation=32, learning_rate=3e-3, halve_every=150)
    learner = ConditionalNeuralProcess(config, open_data("sinusoid").spec(EpisodeShape(1, 1, 60)))
    for seed in range(400):
        learner.fit(constants(64, noise, seed), seed=seed)
    test = constants(200, noise, 1000)
    with torch.no_grad():
        mean, std = learner.distribution(learner.read(test.support.x, test.support.y), test.query.x)
    expected = (test.support.y / (1 + noise**2)).expand_as(mean)
    assert (mean - expected).square().mean() < 0.02
    assert float(std.mean()) == pytest.approx(noise * (1 + 1 / (1 + noise**2)) ** 0.5, rel=0.05)


def test_wrong_options_are_refused():
    with pytest.raises(UsageError, match="min_std must lie in"):
        CNPConfig(min_std=0.0)
    with pytest.raises(UsageError, match="representation"):
        CNPConfig(representation=0)
