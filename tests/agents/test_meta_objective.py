"""MAML-RL's gradient and curvature against finite differences and autograd, in float64."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from thread_ranks import on_ranks

from metarl.adaptation import stack
from metarl.agents.meta_objective import SCALE, InnerStep, LocalModel, MetaObjective, split
from metarl.nn import blocks, wide
from metarl.nn.policy import PolicyBatch, PolicyGradient, PolicyNetwork
from metarl.nn.wide import without_constant_columns
from metarl.threads import torch_threads

M, N, D, WIDE = 3, 16, 3, 300
SPACES = {"box": gym.spaces.Box(-1, 1, (2,)), "discrete": gym.spaces.Discrete(3)}


def make_batch(network, parameters, generator, observations=None):
    if observations is None:
        observations = torch.randn(M, N, D, generator=generator, dtype=torch.float64)
    phi = network(parameters, observations)
    actions = network.head.sample(phi, generator)
    valid = torch.rand(M, N, generator=generator) < 0.9
    weights = torch.randn(M, N, generator=generator, dtype=torch.float64) * valid / valid.sum(1, keepdim=True)
    return PolicyBatch(observations, actions, weights, valid, network.head.log_prob(phi, actions))


def with_scales(theta, generator):
    """θ and learned scales of step sizes, between 0.5 and 1.5."""
    drawn = {name: torch.rand(v.shape, generator=generator, dtype=torch.float64) for name, v in theta.items()}
    return theta | {f"{SCALE}{name}": 0.5 + value for name, value in drawn.items()}


def make_objective(kind="box", inner_steps=1, step_size=0.5, likelihood_ratio=False, learned=False, **options):
    generator = torch.Generator().manual_seed(3)
    network = PolicyNetwork(gym.spaces.Box(-np.inf, np.inf, (D,)), SPACES[kind], (5, 4))
    theta = {
        n: 0.7 * torch.randn(v.shape, generator=generator, dtype=torch.float64)
        for n, v in network.initialize(generator).items()
    }
    theta = with_scales(theta, generator) if learned else theta
    policy, scales = split(theta)
    current, steps = stack(policy, M), []
    for _ in range(inner_steps):
        gradient = PolicyGradient(network, make_batch(network, current, generator), likelihood_ratio=likelihood_ratio)
        steps.append(InnerStep(gradient, current, step_size, scales))
        current = steps[-1].after
    return MetaObjective(network, steps, make_batch(network, current, generator), **options), theta


def flatten(parameters):
    return torch.cat([value.flatten() for value in parameters.values()])


def unflatten(vector, like):
    parts = vector.split([value.numel() for value in like.values()])
    return {name: part.reshape(like[name].shape) for name, part in zip(like, parts, strict=True)}


def numeric_gradient(function, flat, eps=1e-6):
    eye = torch.eye(len(flat), dtype=torch.float64)
    return torch.stack([(function(flat + eps * e) - function(flat - eps * e)) / (2 * eps) for e in eye])


CASES = [
    pytest.param({}, id="one step"),
    pytest.param({"kind": "discrete"}, id="discrete"),
    pytest.param({"inner_steps": 2}, id="two steps"),
    pytest.param({"likelihood_ratio": True}, id="likelihood ratio inside"),
    pytest.param({"learned": True, "inner_steps": 2}, id="learned step sizes"),
]


@pytest.mark.parametrize("options", CASES)
def test_the_meta_gradient_matches_finite_differences(options):
    objective, theta = make_objective(**options)
    numeric = numeric_gradient(lambda flat: objective.loss(unflatten(flat, theta))[0], flatten(theta))
    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    by_autograd = torch.autograd.grad(objective.loss(leaves)[0], list(leaves.values()))
    torch.testing.assert_close(flatten(dict(zip(theta, by_autograd, strict=True))), numeric, rtol=1e-6, atol=1e-8)
    model = LocalModel(objective)
    local = torch.cat([model.gradient[name].flatten() for name in theta])
    torch.testing.assert_close(local, numeric, rtol=1e-6, atol=1e-8)
    assert model.loss == pytest.approx(float(objective.loss(theta)[0]))


@pytest.mark.parametrize("options", CASES)
def test_the_curvature_is_the_hessian_of_the_mean_kl(options):
    objective, theta = make_objective(**options)
    old = tuple(value.detach() for value in objective.phi(theta))

    def slope(flat):
        leaves = unflatten(flat.clone().requires_grad_(), theta)
        kl = objective.query.mean(objective.network.head.kl(old, objective.phi(leaves))).mean()
        return flatten(dict(zip(leaves, torch.autograd.grad(kl, list(leaves.values())), strict=True)))

    flat = flatten(theta)
    assert slope(flat).abs().max() < 1e-12
    vector = torch.randn(len(flat), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    eps = 1e-5
    expected = (slope(flat + eps * vector) - slope(flat - eps * vector)) / (2 * eps)
    product = LocalModel(objective).curvature_product(unflatten(vector, theta))
    torch.testing.assert_close(torch.cat([product[n].flatten() for n in theta]), expected, rtol=1e-4, atol=1e-7)


def make_wide_objective(learned=False):
    """Two inner steps. Each stage sees other columns vary, and other constants."""
    generator = torch.Generator().manual_seed(3)
    network = PolicyNetwork(gym.spaces.Box(-np.inf, np.inf, (WIDE,)), SPACES["box"], (5, 4))
    network.scale.update(torch.linspace(0.0, 3.0, WIDE)[None])
    theta = {
        n: 0.3 * torch.randn(v.shape, generator=generator, dtype=torch.float64)
        for n, v in network.initialize(generator).items()
    }

    def batch(parameters, stage):
        observations = torch.zeros(M, N, WIDE, dtype=torch.float64)
        observations[..., 200:205], observations[..., 205 + stage] = 2.0, 1.0 + stage
        varying = slice(100 + 4 * stage, 109 + 4 * stage)
        observations[..., varying] = torch.randn(M, N, 9, generator=generator, dtype=torch.float64)
        return make_batch(network, parameters, generator, without_constant_columns(observations))

    theta = with_scales(theta, generator) if learned else theta
    policy, scales = split(theta)
    current, steps = stack(policy, M), []
    for stage in range(2):
        steps.append(InnerStep(PolicyGradient(network, batch(current, stage)), current, 0.5, scales))
        current = steps[-1].after
    return MetaObjective(network, steps, batch(current, 2)), theta


def dense(objective):
    """The same objective, with observations that have all their columns."""

    def everywhere(batch):
        short = batch.observations
        full = short.constants.repeat(M, N, 1).index_copy_(-1, short.varying, short.values)
        return dataclasses.replace(batch, observations=full)

    steps = [
        InnerStep(PolicyGradient(objective.network, everywhere(step.gradient.batch)), step.before, 0.5, step.scales)
        for step in objective.steps
    ]
    return dataclasses.replace(objective, steps=steps, query=everywhere(objective.query))


@pytest.mark.parametrize("fraction", [1.0, 0.5])
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("learned", [False, True], ids=["one step size", "learned step sizes"])
def test_wide_observations_give_the_same_model_as_dense_ones(learned, first_order, fraction, monkeypatch):
    objective, theta = make_wide_objective(learned)
    objective = dataclasses.replace(objective, first_order=first_order)
    model = LocalModel(objective, fraction)
    generator = torch.Generator().manual_seed(1)
    vector = {n: torch.randn(v.shape, generator=generator, dtype=torch.float64) for n, v in theta.items()}
    product, (loss, phi) = model.curvature_product(vector), objective.loss(theta)
    local, _ = objective.steps[0].gradient.linearize(objective.steps[0].before)
    assert local.basis.varying.tolist() == list(range(100, 109))
    monkeypatch.setattr(wide, "MANY_COLUMNS", 10**9)
    full = dense(objective)
    local, _ = full.steps[0].gradient.linearize(full.steps[0].before)
    assert local.basis is None
    whole = LocalModel(full, fraction)
    expected, (whole_loss, whole_phi) = whole.curvature_product(vector), full.loss(theta)
    torch.testing.assert_close(loss, whole_loss)
    torch.testing.assert_close(phi, whole_phi)
    for name in theta:
        torch.testing.assert_close(model.gradient[name], whole.gradient[name], rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(product[name], expected[name], rtol=1e-6, atol=1e-9)


def test_first_order_takes_the_jacobian_as_the_identity():
    objective, _ = make_objective(first_order=True)
    adapted = {name: value.clone().requires_grad_() for name, value in objective.steps[-1].after.items()}
    log_prob = objective.network.head.log_prob(
        objective.network(adapted, objective.query.observations), objective.query.actions
    )
    gain = ((log_prob - objective.query.log_probs).exp() * objective.query.weights).sum(1).mean()
    expected = torch.autograd.grad(-gain, list(adapted.values()))
    model = LocalModel(objective)
    for name, value in zip(adapted, expected, strict=True):
        torch.testing.assert_close(model.gradient[name], value.sum(0))
    second_order = LocalModel(make_objective()[0])
    assert not torch.allclose(model.gradient["weight0"], second_order.gradient["weight0"])


def test_curvature_from_all_samples_is_the_same_and_from_some_an_estimate():
    objective, theta = make_objective()
    exact = LocalModel(objective).curvature_product(theta)
    whole = LocalModel(objective, fraction=0.999).curvature_product(theta)
    part = LocalModel(objective, fraction=0.5)
    for name in theta:
        torch.testing.assert_close(whole[name], exact[name])
        torch.testing.assert_close(part.gradient[name], LocalModel(objective).gradient[name])
    assert not torch.allclose(part.curvature_product(theta)["weight0"], exact["weight0"])


@pytest.mark.parametrize("kind", ["one step", "two steps", "discrete", "wide"])
@pytest.mark.parametrize("numbers", [1, 2 * N * 5])
@pytest.mark.parametrize("threads", [1, 2])
def test_blocks_of_tasks_and_threads_change_nothing(kind, numbers, threads, monkeypatch):
    """One task a block, or two: of three tasks, the last block is then smaller."""
    options = {"two steps": {"inner_steps": 2}, "discrete": {"kind": "discrete"}}
    weights = torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64)

    def results():
        objective, theta = make_wide_objective() if kind == "wide" else make_objective(**options.get(kind, {}))
        objective = dataclasses.replace(objective, exploration_weights=weights, inner_kl_penalty=0.3)
        moved = {name: (value + 0.1).requires_grad_() for name, value in theta.items()}
        model = LocalModel(objective, fraction=0.5)
        loss, gradient = objective.loss_and_gradient(moved)
        values = objective.loss_and_kl(moved, model.phi)
        expected = torch.autograd.grad(objective.loss(moved)[0], list(moved.values()))
        torch.testing.assert_close(list(gradient.values()), list(expected))
        after, product = objective.steps[-1].after, model.curvature_product(theta)
        return [objective.loss(moved)[0].detach(), after, model.gradient, product, loss, gradient, values, model.loss]

    whole = results()
    monkeypatch.setattr(blocks, "CACHED", numbers)
    monkeypatch.setattr("metarl.threads.LARGE", 0)
    parts = [(part.start, part.stop) for part in blocks.task_blocks(M, M * N * 5, torch.device("cpu"))]
    assert parts == ([(0, 1), (1, 2), (2, 3)] if numbers == 1 else [(0, 2), (2, 3)])
    with torch_threads(threads):
        torch.testing.assert_close(results(), whole)


def test_clipping_and_the_initial_policy_terms_by_hand():
    weights = torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64)
    objective, theta = make_objective(clip=0.1, inner_kl_penalty=0.3, exploration_weights=weights)
    plain, _ = make_objective()
    # At θ itself ratios are 1: no clipping, no distance, and the exploration term is its weights' mean.
    torch.testing.assert_close(objective.loss(theta)[0], plain.loss(theta)[0] - weights.mean())
    moved = {name: value + 0.2 for name, value in theta.items()}
    batch = objective.steps[0].gradient.batch
    phi = objective.network(stack(moved, M), batch.observations)
    ratio = (objective.network.head.log_prob(phi, batch.actions) - batch.log_probs).exp()
    per_task = torch.stack([(v[ok] - 1 - v[ok].log()).mean() for v, ok in zip(ratio, batch.valid, strict=True)])
    bonus = torch.stack([v[ok].mean() for v, ok in zip(ratio, batch.valid, strict=True)]) * weights
    torch.testing.assert_close(objective.initial_policy_loss(moved), 0.3 * per_task.mean() - bonus.mean())
    query = objective.query
    ratio = (objective.network.head.log_prob(objective.phi(moved), query.actions) - query.log_probs).exp()
    clipped = torch.minimum(ratio * query.weights, ratio.clamp(0.9, 1.1) * query.weights).sum(1).mean()
    torch.testing.assert_close(objective.loss(moved)[0] - objective.initial_policy_loss(moved), -clipped)


def half(objective, ranks):
    """The part of an objective that a rank has: tasks 0 and 1, or 2 and 3."""
    rows = slice(2 * ranks.rank, 2 * ranks.rank + 2)

    def part(batch):
        return PolicyBatch(*(getattr(batch, name)[rows] for name in PolicyBatch.__dataclass_fields__))

    steps = []
    for step in objective.steps:
        before = {name: value[rows] for name, value in step.before.items()}
        gradient = PolicyGradient(objective.network, part(step.gradient.batch))
        steps.append(InnerStep(gradient, before, step.step_size))
    return MetaObjective(objective.network, steps, part(objective.query), ranks=ranks)


def test_two_ranks_with_half_of_the_tasks_each_make_the_same_update(monkeypatch):
    monkeypatch.setitem(globals(), "M", 4)
    objective, theta = make_objective()
    moved = {name: value + 0.1 for name, value in theta.items()}

    def work(ranks):
        mine = half(objective, ranks)
        model = LocalModel(mine)
        return model, model.curvature_product(theta), mine.loss_and_kl(moved, model.phi)

    found = on_ranks(2, work)
    whole = LocalModel(objective)
    loss, kl = objective.loss_and_kl(moved, whole.phi)
    for model, product, values in found:
        assert model.loss == pytest.approx(whole.loss)
        assert values == (pytest.approx(loss), pytest.approx(kl))
        for name in theta:
            torch.testing.assert_close(model.gradient[name], whole.gradient[name])
            torch.testing.assert_close(product[name], whole.curvature_product(theta)[name])
