"""The written-out derivatives of the MLP against torch.func, in float64."""

import pytest
import torch

from metarl.nn.mlp import MLP, tanh_, times_slope_

TASKS, SAMPLES = 3, 7


def stacked(mlp, seed):
    generator = torch.Generator().manual_seed(seed)
    sizes = {name: value.shape for name, value in mlp.initialize(generator).items()}
    return {n: torch.randn(TASKS, *s, generator=generator, dtype=torch.float64) for n, s in sizes.items()}


@pytest.fixture(params=[(4, 3), (4, 8, 3), (4, 8, 6, 3), (2, 5, 5, 5, 1), (300, 3), (300, 8, 6, 3)], ids=str)
def case(request):
    mlp = MLP(request.param)
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(TASKS, SAMPLES, request.param[0], generator=generator, dtype=torch.float64)
    inputs[..., 5:280] = 0  # of wide inputs, most columns
    inputs[..., 7:12] = torch.arange(5, dtype=torch.float64)[: max(request.param[0] - 7, 0)]  # and some are constant
    cotangent = torch.randn(TASKS, SAMPLES, request.param[-1], generator=generator, dtype=torch.float64)
    return mlp, stacked(mlp, 1), stacked(mlp, 2), inputs, cotangent


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-10, atol=1e-10)


def test_forward_is_a_torch_sequential_per_task(case):
    mlp, parameters, _, inputs, _ = case
    outputs = mlp(parameters, inputs)
    torch.testing.assert_close(mlp.linearize(parameters, inputs).output, outputs)
    for task in range(TASKS):
        layers = []
        for layer, (fan_in, fan_out) in enumerate(zip(mlp.sizes, mlp.sizes[1:], strict=False)):
            linear = torch.nn.Linear(fan_in, fan_out, dtype=torch.float64)
            linear.weight.data = parameters[f"weight{layer}"][task]
            linear.bias.data = parameters[f"bias{layer}"][task]
            layers += [linear, torch.nn.Tanh()]
        torch.testing.assert_close(torch.nn.Sequential(*layers[:-1])(inputs[task]), outputs[task])


def test_jvp_and_vjp(case):
    mlp, parameters, direction, inputs, cotangent = case
    local = mlp.linearize(parameters, inputs)
    _, tangent = torch.func.jvp(lambda p: mlp(p, inputs), (parameters,), (direction,))
    torch.testing.assert_close(local.jvp(direction), tangent)
    _, pull_back = torch.func.vjp(lambda p: mlp(p, inputs), parameters)
    assert_same(local.vjp(cotangent), pull_back(cotangent)[0])


def test_hvp_is_the_derivative_of_the_gradient(case):
    mlp, parameters, direction, inputs, cotangent = case

    def gradient(p):
        # A loss whose cotangent depends on the output, so that its own derivative matters.
        return torch.func.grad(lambda q: (mlp(q, inputs).sin() * cotangent).sum())(p)

    _, expected = torch.func.jvp(gradient, (parameters,), (direction,))
    local = mlp.linearize(parameters, inputs)
    local.vjp(local.output.cos() * cotangent)
    tangent = local.jvp(direction)
    assert_same(local.hvp(direction, -local.output.sin() * tangent * cotangent), expected)


def test_products_can_be_taken_again_from_the_same_linearization(case):
    mlp, parameters, direction, inputs, cotangent = case
    local = mlp.linearize(parameters, inputs)
    local.vjp(cotangent)

    def product(vector):
        local.jvp(vector)
        return {n: v.clone() for n, v in local.hvp(vector, torch.zeros_like(cotangent)).items()}

    once = product(direction)
    product(parameters)
    assert_same(product(direction), once)


def test_what_is_not_kept_gives_the_same_and_leaves_what_was(case):
    mlp, parameters, direction, inputs, cotangent = case
    local = mlp.linearize(parameters, inputs)
    gradient = local.vjp(cotangent.clone())
    assert torch.equal(local.jvp(direction, keep=False), local.jvp(direction))
    other = local.vjp(2 * cotangent, keep=False)
    assert_same(other, {name: 2 * value for name, value in gradient.items()})
    again = mlp.linearize(parameters, inputs)
    again.vjp(cotangent.clone())
    again.jvp(direction)
    zeros = torch.zeros_like(cotangent)
    assert_same(local.hvp(direction, zeros.clone()), again.hvp(direction, zeros))


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tanh_and_its_slope(recorded, dtype):
    x = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([0.0, 1e-6, 1e30, -1e38, torch.inf, -torch.inf])])
    x = x.to(dtype).requires_grad_(recorded)
    expected, slope = x.detach().double().tanh(), 1 - x.detach().double().tanh().square()
    error = 3e-7 if dtype == torch.float32 else 1e-15
    hidden = tanh_(x if recorded else x.clone())
    torch.testing.assert_close(hidden.detach().double(), expected, rtol=0, atol=error)
    torch.testing.assert_close(
        times_slope_(torch.ones_like(x).detach(), hidden.detach()).double(), slope, rtol=0, atol=2 * error
    )
    if recorded:
        (found,) = torch.autograd.grad(hidden.sum(), x)
        torch.testing.assert_close(found.double(), slope, rtol=0, atol=2 * error)
    assert tanh_(torch.tensor([torch.nan], dtype=dtype)).isnan()


def test_initialization_is_xavier_uniform():
    parameters = MLP((30, 50)).initialize(torch.Generator().manual_seed(0))
    bound = (6 / 80) ** 0.5
    assert parameters["weight0"].abs().max() <= bound
    assert parameters["weight0"].std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert not parameters["bias0"].any()


def test_constant_columns_are_left_out_and_no_others():
    mlp = MLP((300, 4, 2))
    inputs = torch.zeros(TASKS, SAMPLES, 300, dtype=torch.float64)
    inputs[0, 0, 7] = inputs[2, 3, 299] = 1.0
    assert mlp.linearize(stacked(mlp, 1), inputs).inputs[0].shape == (TASKS, SAMPLES, 2)
    inputs[..., 100:120] = 2.0
    assert mlp.linearize(stacked(mlp, 1), inputs).inputs[0].shape == (TASKS, SAMPLES, 3), "one for all constants"
    dense = torch.rand(inputs.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert mlp.linearize(stacked(mlp, 1), dense).inputs[0] is dense
