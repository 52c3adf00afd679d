"""MAML, its first-order form and ANIL against closed forms and finite differences; Reptile against torch's Adam."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from metarl.fewshot.episodes import Episodes, EpisodeShape, Samples, TaskSpec
from metarl.fewshot.learners import gradient
from metarl.fewshot.learners.maml import ANIL, FirstOrderMAMLLearner, MAMLLearner
from metarl.fewshot.learners.reptile import Reptile, ReptileConfig
from metarl.fewshot.objectives.plain import task_loss, task_score
from metarl.fewshot.preprocessing import Preprocessing

REGRESSION = TaskSpec("regression", EpisodeShape(1, 6, 5), Preprocessing((2,)), 1)


def regression_episodes(dtype: torch.dtype = torch.float32) -> Episodes:
    generator = torch.Generator().manual_seed(5)

    def samples(n: int) -> Samples:
        x = torch.randn(3, n, 2, generator=generator, dtype=dtype)
        return Samples(x, x.sum(-1, keepdim=True).sin() * torch.tensor([1.0, 2.0, -1.0], dtype=dtype)[:, None, None])

    return Episodes(samples(6), samples(5))


def make(cls: type, **options: object) -> MAMLLearner:
    config = dataclasses.replace(cls.default_config(REGRESSION), num_tasks=3, hidden=(4,), inner_lr=0.05, **options)
    return cls(config, REGRESSION, seed=1)


def in_double(learner: MAMLLearner) -> MAMLLearner:
    learner.train_with({name: value.detach().double() for name, value in learner.parameters.items()})
    return learner


def query_loss(learner: MAMLLearner, episodes: Episodes) -> torch.Tensor:
    return task_loss(learner.adapt(episodes.support, training=True)(episodes.query.x), episodes.query).mean()


def test_one_step_on_a_linear_model_has_a_closed_form():
    learner, episodes = make(MAMLLearner), regression_episodes()
    config = dataclasses.replace(learner.config, hidden=())
    learner = MAMLLearner(config, REGRESSION, seed=1)
    weight, bias = (learner.parameters[name].detach() for name in ("weight0", "bias0"))
    for task in range(3):
        x, y = episodes.support.x[task], episodes.support.y[task]
        error = x @ weight.T + bias - y
        moved = weight - 0.05 * 2 * error.T @ x / len(x), bias - 0.05 * 2 * error.mean(0)
        predictions = episodes.query.x[task] @ moved[0].T + moved[1]
        found = learner.adapt(episodes.support, training=True)(episodes.query.x)[task]
        torch.testing.assert_close(found, predictions)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("cls", [MAMLLearner, ANIL])
def test_the_meta_gradient_is_the_derivative_by_finite_differences(cls: type, steps: int):
    learner, episodes = in_double(make(cls, inner_steps=steps)), regression_episodes(torch.float64)
    gradients = torch.autograd.grad(query_loss(learner, episodes), list(learner.parameters.values()))
    for (_, value), found in zip(learner.parameters.items(), gradients, strict=True):
        numeric = torch.empty_like(found)
        for index in range(value.numel()):
            with torch.no_grad():
                entry, sides = value.view(-1)[index].item(), []
                for shift in (1e-6, -1e-6):
                    value.view(-1)[index] = entry + shift
                    sides.append(query_loss(learner, episodes).item())
                value.view(-1)[index] = entry
            numeric.view(-1)[index] = (sides[0] - sides[1]) / 2e-6
        torch.testing.assert_close(found, numeric, rtol=1e-5, atol=1e-7)


def test_first_order_takes_the_gradient_where_adaptation_ends():
    learner, episodes = make(FirstOrderMAMLLearner, inner_steps=2), regression_episodes()
    found = torch.autograd.grad(query_loss(learner, episodes), list(learner.parameters.values()))
    with torch.no_grad():
        *_, last = learner.path(episodes.support, 2)
    ends = {name: value.requires_grad_() for name, value in last.items()}
    loss = task_loss(learner.network(ends, episodes.query.x), episodes.query).mean()
    expected = [value.sum(0) for value in torch.autograd.grad(loss, list(ends.values()))]
    torch.testing.assert_close(list(found), expected)


def test_late_steps_have_a_size_of_their_own():
    learner, episodes = make(MAMLLearner, inner_steps=2, late_lr=0.02, test_steps=4), regression_episodes()
    values = {name: value.detach()[None].expand(3, *value.shape) for name, value in learner.parameters.items()}
    for size in (0.05, 0.05, 0.02, 0.02):
        values = {name: value.detach().requires_grad_() for name, value in values.items()}
        loss = task_loss(learner.network(values, episodes.support.x), episodes.support).sum()
        slopes = torch.autograd.grad(loss, list(values.values()))
        values = {name: value - size * slope for (name, value), slope in zip(values.items(), slopes, strict=True)}
    found = learner.adapt(episodes.support)(episodes.query.x)
    torch.testing.assert_close(found, learner.network(values, episodes.query.x))


@pytest.mark.parametrize("cls", [MAMLLearner, ANIL, Reptile])
def test_the_curve_ends_where_adaptation_ends(cls: type, images, shape):
    spec = images.spec(shape)
    learner = cls(dataclasses.replace(cls.default_config(spec), width=4, test_steps=4), spec)
    episodes = images.episodes("test", 3, shape, seed=0)
    curve = learner.curve(episodes)
    assert list(curve) == [0, 1, 2, 3, 4]
    with torch.no_grad():
        outputs = learner.adapt(episodes.support)(episodes.query.x)
        start = learner.predictor(learner.start(3), episodes.support)(episodes.query.x)
    torch.testing.assert_close(curve[4], task_score(outputs, episodes.query))
    torch.testing.assert_close(curve[0], task_score(start, episodes.query))


def test_anil_is_maml_with_the_body_held_still(images, shape):
    spec = images.spec(shape)
    config = dataclasses.replace(ANIL.default_config(spec), width=4, inner_steps=2, normalisation="transductive")
    learner, episodes = ANIL(config, spec), images.episodes("train", 3, shape, seed=0)
    fast = {name: value.detach().clone() for name, value in learner.parameters.items()}
    found = learner.adapt(episodes.support, training=True)(episodes.query.x)[0]
    head = [fast[name].requires_grad_() for name in learner.network.head_names()]
    for _ in range(2):
        scores = learner.network(fast, episodes.support.x[:1])[0]
        grads = torch.autograd.grad(F.cross_entropy(scores, episodes.support.y[0]), head)
        for value, grad in zip(head, grads, strict=True):
            value.data -= config.inner_lr * grad
    torch.testing.assert_close(found, learner.network(fast, episodes.query.x[:1])[0], rtol=1e-4, atol=1e-5)


def test_chunks_of_tasks_add_up_to_the_whole(images, shape, monkeypatch: pytest.MonkeyPatch):
    spec, states = images.spec(shape), []
    config = dataclasses.replace(MAMLLearner.default_config(spec), width=4)
    episodes = images.episodes("train", 5, shape, seed=0)
    for size in (1, 2, 8):
        monkeypatch.setattr(gradient, "MAX_CHUNK", size)
        learner = MAMLLearner(config, spec)
        metrics = learner.fit(episodes, seed=0)
        states.append({**{name: value.grad for name, value in learner.parameters.items()}, **metrics})
    for state in states[1:]:
        torch.testing.assert_close(state, states[0], rtol=1e-3, atol=1e-5)


def test_support_statistics_make_a_query_independent_of_the_others(images, shape):
    spec = images.spec(shape)
    episodes = images.episodes("test", 2, shape, seed=0)
    for normalisation, independent in (("support-statistics", True), ("none", True), ("transductive", False)):
        config = dataclasses.replace(MAMLLearner.default_config(spec), width=4, normalisation=normalisation)
        learner = MAMLLearner(config, spec)
        assert learner.normalisation == normalisation
        with torch.no_grad():
            predictor = learner.adapt(episodes.support)
            all_at_once, alone = predictor(episodes.query.x)[:, :3], predictor(episodes.query.x[:, :3])
        assert torch.allclose(all_at_once, alone, atol=1e-4) == independent


def test_reptile_is_torchs_adam_on_each_task():
    """Two training steps and an adaptation: Adam's mean squares are carried over from each to the next."""
    config = ReptileConfig(
        num_tasks=3, hidden=(4,), inner_steps=4, inner_lr=0.01, inner_batch=99, outer_lr=0.5, iterations=4, test_steps=2
    )
    learner, episodes = Reptile(config, REGRESSION, seed=1), regression_episodes()
    start = {name: value.detach().clone() for name, value in learner.parameters.items()}
    squares = {name: torch.zeros_like(value) for name, value in start.items()}
    for updates in range(3):
        ends, left = [], []
        for task in range(3):
            fast = {name: value.clone().requires_grad_() for name, value in start.items()}
            adam = torch.optim.Adam(fast.values(), lr=0.01, betas=(0.0, 0.999))
            for name, value in fast.items():
                adam.state[value] = {
                    "step": torch.tensor(4.0 * updates),
                    "exp_avg": torch.zeros_like(value),
                    "exp_avg_sq": squares[name].clone(),
                }
            for _ in range(4 if updates < 2 else 2):
                adam.zero_grad()
                outputs = learner.network(fast, episodes.support.x[task : task + 1])
                F.mse_loss(outputs[0], episodes.support.y[task]).backward()
                adam.step()
            ends.append({name: value.detach() for name, value in fast.items()})
            left.append({name: adam.state[value]["exp_avg_sq"] for name, value in fast.items()})
        if updates == 2:
            break
        learner.fit(episodes, seed=0)
        rate = 0.5 * (1 - updates / 4)
        squares = {name: torch.stack([value[name] for value in left]).mean(0) for name in start}
        start = {
            name: value + rate * (torch.stack([end[name] for end in ends]).mean(0) - value)
            for name, value in start.items()
        }
        torch.testing.assert_close(dict(learner.parameters), start, rtol=1e-4, atol=1e-5)
    found = learner.adapt(episodes.support)(episodes.query.x)
    for task, end in enumerate(ends):
        expected = learner.network(end, episodes.query.x[task : task + 1])[0]
        torch.testing.assert_close(found[task], expected, rtol=1e-4, atol=1e-5)


def test_reptiles_mini_batches_pass_through_the_support_set():
    learner = Reptile(ReptileConfig(inner_batch=2), REGRESSION)
    x = torch.arange(6.0)[None, :, None].expand(2, 6, 2)
    batches = learner._batches(Samples(x, x[..., :1]), 6, torch.Generator().manual_seed(0))
    assert [len(batch.x[0]) for batch in batches] == [2] * 6
    for third in (batches[:3], batches[3:]):
        assert sorted(torch.cat([batch.x[0, :, 0] for batch in third]).tolist()) == [0, 1, 2, 3, 4, 5]
        assert all(torch.equal(batch.x[..., :1], batch.y) for batch in third)


def test_a_long_curve_has_a_few_points(rows, shape):
    learner = Reptile(ReptileConfig(hidden=(8,), test_steps=35), rows.spec(shape))
    assert list(learner.curve(rows.episodes("test", 2, shape, seed=0))) == [*range(11), 20, 35]


def test_the_curve_ends_where_the_test_ends(images, shape):
    spec = images.spec(shape)
    learner = MAMLLearner(dataclasses.replace(MAMLLearner.default_config(spec), width=4), spec)
    episodes = images.episodes("test", 4, shape, seed=0)
    curve = learner.curve(episodes)
    assert list(curve) == [0, 1, 2, 3]
    with torch.no_grad():
        scores = task_score(learner.adapt(episodes.support)(episodes.query.x), episodes.query)
    torch.testing.assert_close(curve[3], scores)


def test_maml_learns_sine_waves(toy_data):
    data = toy_data["sinusoid"]
    spec = data.spec(EpisodeShape(1, 10, 10))
    learner = MAMLLearner(dataclasses.replace(MAMLLearner.default_config(spec), learning_rate=1e-2), spec)
    test = data.episodes("test", 100, spec.shape, seed=0)
    before = learner.curve(test)[0].mean()
    for iteration in range(300):
        learner.fit(data.episodes("train", 25, spec.shape, seed=iteration), seed=iteration)
    after = learner.curve(test)
    assert after[10].mean() < 0.6 * before
    assert after[10].mean() < 0.8 * after[0].mean()  # and it is adaptation that does it
