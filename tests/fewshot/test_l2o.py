"""The learned optimizer: against loops, against closed forms on quadratics, and as a few-shot learner."""

import math

import numpy as np
import pytest
import torch

from metarl.errors import UsageError
from metarl.fewshot.data import DataConfig
from metarl.fewshot.data.sinusoid import Sinusoid
from metarl.fewshot.episodes import Episodes, EpisodeShape
from metarl.fewshot.learners.l2o import L2O, L2OConfig, LearnedOptimizer, log_and_sign
from metarl.fewshot.objectives.plain import task_score
from metarl.fewshot.quadratics import (
    RATES,
    Quadratics,
    QuadraticsConfig,
    compare,
    designed_losses,
    learned_losses,
    train,
)
from metarl.randomness import make_generator

SHAPE = EpisodeShape(1, 5, 6)
CONFIG = L2OConfig(hidden=(4,), inner_steps=3, test_steps=4, optimizer_size=5)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def naive_update(rule, gradient, state):
    """One coordinate: preprocessing, two LSTM layers (torch's order of gates: input, forget, cell, output), readout."""
    if abs(gradient) >= math.exp(-10):
        x = np.array([math.log(abs(gradient)) / 10, math.copysign(1.0, gradient)])
    else:
        x = np.array([-1.0, math.exp(10) * gradient])
    new = []
    for layer, (h, c) in zip((rule.first, rule.second), state, strict=True):
        w = {name: value.detach().double().numpy() for name, value in layer.named_parameters()}
        gates = w["weight_ih"] @ x + w["bias_ih"] + w["weight_hh"] @ h + w["bias_hh"]
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        x = sigmoid(o) * np.tanh(c)
        new.append((x, c))
    out = rule.readout.weight.detach().double().numpy() @ x + rule.readout.bias.detach().double().numpy()
    return rule.scale * float(out[0]), new


def test_update_is_the_papers():
    rule = LearnedOptimizer(units=6, scale=0.3, generator=make_generator("rule"))
    gradients = torch.tensor([[0.5, -2.0, 1e-6, -3e-6, 0.0], [1e3, 1e-4, -1e-5, 4e-5, 1.0]])
    state = rule.initial(5)
    slow = [[(np.zeros(6), np.zeros(6))] * 2 for _ in range(5)]
    for row in gradients:
        update, state = rule(row, state)
        for coordinate in range(5):
            want, slow[coordinate] = naive_update(rule, float(row[coordinate]), slow[coordinate])
            assert float(update.detach()[coordinate]) == pytest.approx(want, abs=1e-6)


def test_gradients_of_every_size_come_in_small():
    values = log_and_sign(torch.tensor([1.0, -math.e, 1e-30, 0.0, math.exp(-10)]))
    assert values[0].tolist() == [0.0, 1.0]
    assert values[1].tolist() == pytest.approx([0.1, -1.0])
    assert values[3].tolist() == [-1.0, 0.0]
    assert values[4].tolist() == pytest.approx([-1.0, 1.0])
    assert values.isfinite().all()


def quadratics(count=4, seed=0):
    return Quadratics.draw(count, 10, make_generator("some", seed))


def test_gradient_of_quadratics():
    functions = quadratics()
    theta = functions.start.clone().requires_grad_()
    losses = functions.loss(theta)
    for b in range(4):
        residual = functions.matrix[b].double() @ functions.start[b].double() - functions.target[b].double()
        assert float(losses[b].detach()) == pytest.approx(float(residual @ residual), rel=1e-4)
    (want,) = torch.autograd.grad(losses.sum(), theta)
    torch.testing.assert_close(functions.gradient(theta.detach()), want)


def test_sgd_in_closed_form():
    """θ_t − θ* = (I − 2 α WᵀW)^t (θ_0 − θ*)."""
    functions, rate = quadratics(), 0.004
    losses = designed_losses("sgd", rate, functions, 30)
    for b in range(4):
        matrix, target = functions.matrix[b].double(), functions.target[b].double()
        best = torch.linalg.solve(matrix, target)
        shrink = torch.eye(10, dtype=torch.float64) - 2 * rate * matrix.mT @ matrix
        theta = best + torch.linalg.matrix_power(shrink, 30) @ (functions.start[b].double() - best)
        assert float(losses[30, b]) == pytest.approx(float((matrix @ theta - target).square().sum()), rel=1e-3)


@pytest.mark.parametrize(("name", "first"), [("adam", 1.0), ("rmsprop", 10.0)])
def test_first_step_of_the_adaptive_ones(name, first):
    """Adam starts with α sgn ∇; RMSprop, whose average of squares starts at zero, with α sgn ∇ / √0.01."""
    functions = quadratics()
    theta = functions.start - 0.01 * first * functions.gradient(functions.start).sign()
    torch.testing.assert_close(
        designed_losses(name, 0.01, functions, 1)[1], functions.loss(theta), rtol=1e-4, atol=1e-4
    )


def test_functions_do_not_meet():
    rule, functions = LearnedOptimizer(6, 0.1, make_generator("rule")), quadratics()
    together = learned_losses(rule, functions, 5)
    alone = Quadratics(functions.matrix[2:3], functions.target[2:3], functions.start[2:3])
    torch.testing.assert_close(learned_losses(rule, alone, 5)[:, 0], together[:, 2])


def test_comparison_takes_the_best_rate():
    config = QuadraticsConfig(steps=20, test_functions=50)
    results = compare(LearnedOptimizer(4, 0.1, make_generator("rule")), config)
    functions = Quadratics.draw(50, 10, make_generator("quadratics", "test", 0))
    for name in ("adam", "rmsprop", "sgd"):
        finals = [float(designed_losses(name, rate, functions, 20)[-1].double().mean()) for rate in RATES[name]]
        best = min(range(10), key=lambda index: math.inf if math.isnan(finals[index]) else finals[index])
        assert results[name]["learning_rate"] == RATES[name][best]
        assert results[name]["final_loss"] == pytest.approx(finals[best])
        assert 0 < best < 9, "the best of ten rates lies inside their range"
        assert len(RATES[name]) == 10
    assert len(results["learned"]["losses"]) == 21


def test_training_lowers_the_loss():
    config = QuadraticsConfig(epochs=25, batch=32, steps=20, unroll=10, learning_rate=1e-2)
    losses = []
    rule = train(config, lambda epoch, loss: losses.append(loss))
    functions = quadratics(100, 1)
    trained = learned_losses(rule, functions, 20)[-1].mean()
    untrained = LearnedOptimizer(config.units, config.scale, make_generator("quadratics", "rule", 0))
    assert trained < 0.5 * learned_losses(untrained, functions, 20)[-1].mean()
    assert len(losses) == 25


def sines(count=3, seed=0):
    return Sinusoid(DataConfig()).episodes("train", count, SHAPE, seed=seed)


def learner(**options):
    return L2O(L2OConfig(**{**vars(CONFIG), **options}), Sinusoid(DataConfig()).spec(SHAPE))


def test_adaptation_in_loops():
    """Task by task, weight by weight, the gradient by autograd of a network written out."""
    model, episodes = learner(), sines()
    got = model.adapt(episodes.support)(episodes.query.x)
    names = [name for name in model.parameters if not name.startswith("optimizer.")]
    for task in range(3):
        theta = {name: model.parameters[name].detach().clone() for name in names}
        state = {name: [[(np.zeros(5), np.zeros(5))] * 2 for _ in range(theta[name].numel())] for name in names}
        x, y = episodes.support.x[task], episodes.support.y[task]
        for _ in range(CONFIG.test_steps):
            leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
            loss = (forward(leaves, x) - y).square().mean()
            gradients = torch.autograd.grad(loss, list(leaves.values()))
            for name, gradient in zip(names, gradients, strict=True):
                moves = []
                for index, value in enumerate(gradient.flatten().tolist()):
                    move, state[name][index] = naive_update(model.rule, value, state[name][index])
                    moves.append(move)
                theta[name] = theta[name] + torch.tensor(moves).view_as(theta[name])
        torch.testing.assert_close(got[task], forward(theta, episodes.query.x[task]), rtol=1e-4, atol=1e-5)


def forward(parameters, x):
    hidden = (x @ parameters["weight0"].T + parameters["bias0"]).relu()
    return hidden @ parameters["weight1"].T + parameters["bias1"]


def test_curve_is_adaptation_of_so_many_steps():
    episodes = sines()
    curve = learner().curve(episodes)
    assert list(curve) == [0, 1, 2, 3, 4]
    for steps in range(5):
        model = learner(test_steps=steps)
        outputs = model.adapt(episodes.support)(episodes.query.x)
        torch.testing.assert_close(curve[steps], task_score(outputs, episodes.query))


def test_learns_the_start_and_the_rule():
    model = learner()
    before = {name: value.detach().clone() for name, value in model.parameters.items()}
    model.fit(sines(), seed=0)
    still = [name for name, value in model.parameters.items() if torch.equal(value, before[name])]
    assert still == []


def test_meta_gradient_by_finite_differences():
    """Of the readout's bias, by which no gradient of the first step depends: one step, so that nothing is cut."""
    model, episodes = learner(inner_steps=1), sines()
    bias = model.parameters["optimizer.readout.bias"]

    def loss(episodes: Episodes) -> torch.Tensor:
        predictor = model.adapt(episodes.support, training=True)
        return (predictor(episodes.query.x) - episodes.query.y).square().mean()

    (slope,) = torch.autograd.grad(loss(episodes), bias)
    values = []
    for move in (1e-2, -1e-2):
        with torch.no_grad():
            bias += move
            values.append(float(loss(episodes)))
            bias -= move
    assert float(slope) == pytest.approx((values[0] - values[1]) / 2e-2, rel=2e-2)


def test_few_shot_learning_improves_on_its_start():
    model = learner(inner_steps=4, learning_rate=2e-2, hidden=(16,), optimizer_size=10)
    for step in range(150):
        model.fit(sines(16, step), seed=step)
    curve = model.curve(sines(200, 10_000))
    assert float(curve[4].mean()) < 0.9 * float(curve[0].mean())


def test_state_comes_back():
    model, episodes = learner(), sines()
    model.fit(episodes, seed=0)
    other = L2O(CONFIG, model.spec, seed=7)
    other.load_state(*model.state())
    want, got = (one.adapt(episodes.support)(episodes.query.x) for one in (model, other))
    torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="multiple of unroll"):
        QuadraticsConfig(steps=30, unroll=20)
    with pytest.raises(UsageError, match="optimizer_size"):
        L2OConfig(optimizer_size=0)
