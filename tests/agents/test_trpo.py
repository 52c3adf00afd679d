"""Conjugate gradient against a direct solve; the trust region where the answer is known."""

import pytest
import torch

from metarl.agents.trpo import TrustRegion, conjugate_gradient, trust_region_step


def spd(size, seed=0):
    factor = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return factor @ factor.T / size + torch.eye(size, dtype=torch.float64)


def test_conjugate_gradient_matches_a_direct_solve():
    a, b = spd(12), torch.arange(12, dtype=torch.float64)
    x, image = conjugate_gradient(lambda v: a @ v, b, iterations=12, tolerance=0.0)
    torch.testing.assert_close(x, torch.linalg.solve(a, b), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(image, a @ x)


def test_it_solves_in_as_many_iterations_as_there_are_eigenvalues():
    calls = []

    def product(v):
        calls.append(v)
        return torch.tensor([1.0, 1.0, 5.0, 5.0]) * v

    x, _ = conjugate_gradient(product, torch.ones(4), iterations=10)
    assert len(calls) == 2
    torch.testing.assert_close(x, torch.tensor([1.0, 1.0, 0.2, 0.2]))


def test_a_linear_loss_takes_the_full_step_to_the_edge_of_the_region():
    h, g = spd(5), torch.ones(5, dtype=torch.float64)
    region = TrustRegion(max_kl=0.02, cg_iterations=20, cg_damping=0.0)

    def evaluate(p):
        return float(g @ p), float(0.5 * p @ h @ p) * (1 - 1e-9)  # the edge, but for rounding

    step = trust_region_step(region, torch.zeros(5, dtype=torch.float64), g, lambda v: h @ v, evaluate, 0.0)
    natural = torch.linalg.solve(h, g)
    expected = -natural * torch.sqrt(0.04 / (natural @ g))
    torch.testing.assert_close(step.parameters, expected, rtol=1e-5, atol=1e-8)
    assert step.accepted
    assert step.kl == pytest.approx(0.02)


def test_steps_shrink_until_the_kl_allows_and_nothing_moves_if_none_does():
    region = TrustRegion(max_kl=0.5, cg_damping=0.0, backtracks=4, backtrack_ratio=0.5)
    start, g = torch.zeros(1), torch.ones(1)

    def too_curved(p):
        return float(p), float(6 * p.square())  # the model says KL = p²/2

    step = trust_region_step(region, start, g, lambda v: v, too_curved, 0.0)
    assert (step.backtracks, step.accepted) == (2, True)  # p = −1, −1/2, then −1/4: 6/16 ≤ 1/2
    assert step.parameters.item() == pytest.approx(-0.25)

    refused = trust_region_step(region, start, g, lambda v: v, lambda p: (1.0, 0.0), 0.0)
    assert not refused.accepted
    assert torch.equal(refused.parameters, start)
