"""The inner loop against closed forms and finite differences."""

import pytest
import torch

from metarl.adaptation import adapt, gradient_of, stack

CURVATURES = torch.tensor([[1.0, 3.0], [0.5, 2.0]], dtype=torch.float64)  # [M, P]
CENTRES = torch.tensor([[1.0, -1.0], [0.0, 4.0]], dtype=torch.float64)


def quadratic(parameters):
    return (0.5 * CURVATURES * (parameters["x"] - CENTRES).square()).sum(1)


def test_steps_on_quadratics_follow_the_closed_form():
    x = torch.tensor([0.3, -0.7], dtype=torch.float64)
    steps = [gradient_of(quadratic)] * 3
    adapted = adapt(stack({"x": x}, 2), steps, [0.1, 0.2, 0.2])["x"]
    shrink = (1 - 0.1 * CURVATURES) * (1 - 0.2 * CURVATURES) ** 2
    torch.testing.assert_close(adapted, CENTRES + shrink * (x - CENTRES))


@pytest.mark.parametrize("first_order", [False, True])
def test_meta_gradient_of_quadratics(first_order):
    x = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)
    adapted = adapt(stack({"x": x}, 2), [gradient_of(quadratic)], [0.1], first_order=first_order)
    quadratic(adapted).mean().backward()
    slope = CURVATURES * (adapted["x"].detach() - CENTRES)
    jacobian = torch.ones_like(slope) if first_order else 1 - 0.1 * CURVATURES
    torch.testing.assert_close(x.grad, (jacobian * slope).mean(0))


def test_meta_gradient_of_a_network_matches_finite_differences():
    """Two-layer regression networks, two inner steps, every parameter moved in turn."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, 6, 2, generator=generator, dtype=torch.float64)
    targets = torch.randn(3, 6, 1, generator=generator, dtype=torch.float64)

    def loss(p):
        return (torch.bmm(torch.bmm(inputs, p["w0"]).tanh(), p["w1"]) - targets).square().mean((1, 2))

    def outer(flat):
        start = {"w0": flat[:8].reshape(2, 4), "w1": flat[8:].reshape(4, 1)}
        return loss(adapt(stack(start, 3), [gradient_of(loss)] * 2, [0.3, 0.3])).mean()

    flat = torch.randn(12, generator=generator, dtype=torch.float64)
    leaf = flat.clone().requires_grad_()
    outer(leaf).backward()
    eps = 1e-6
    numeric = [(outer(flat + eps * e) - outer(flat - eps * e)) / (2 * eps) for e in torch.eye(12, dtype=torch.float64)]
    torch.testing.assert_close(leaf.grad, torch.stack(numeric), rtol=1e-6, atol=1e-9)


def test_adapting_without_gradients_tracks_nothing():
    with torch.no_grad():
        adapted = adapt(stack({"x": torch.zeros(2, dtype=torch.float64)}, 2), [gradient_of(quadratic)], [0.1])
    assert not adapted["x"].requires_grad
