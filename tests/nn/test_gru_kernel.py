"""The GRU's sequence on the CPU against its single steps under autograd, and against finite differences."""

import pytest
import torch

from metarl.errors import UsageError
from metarl.nn.gru_kernel import CHUNK, GRUSequence
from metarl.nn.recurrent import GRU
from metarl.nn.sequence import choose_state

UNITS, INPUTS = 3, 2


def make(steps, batch, dtype=torch.float64, units=UNITS):
    generator = torch.Generator().manual_seed(steps)
    sizes = [
        (steps, batch, INPUTS),
        (batch, units),
        (3 * units, INPUTS),
        (3 * units, units),
        (3 * units,),
        (3 * units,),
    ]
    return [torch.randn(size, generator=generator, dtype=dtype).requires_grad_() for size in sizes]


def starts_of(steps, batch):
    return torch.rand(steps, batch, generator=torch.Generator().manual_seed(1)) < 0.15


def by_steps(inputs, state, *weights_and_starts):
    *weights, starts = weights_and_starts
    core = GRU(INPUTS, state.shape[1])
    parameters = dict(zip(("input", "recurrent", "bias", "recurrent_bias"), weights, strict=True))
    states, outputs = (state,), []
    for t, row in enumerate(inputs):
        if starts is not None:
            states = choose_state(starts[t], core.initial(len(state), row), states)
        output, states = core.step(parameters, row, states)
        outputs.append(output)
    return torch.stack(outputs)


@pytest.mark.parametrize("blanked", [False, True], ids=["whole", "starts"])
@pytest.mark.parametrize("steps", [1, CHUNK - 1, CHUNK, 2 * CHUNK + 5])
@pytest.mark.parametrize("batch", [1, 4])
def test_outputs_and_gradients_are_those_of_single_steps(steps, batch, blanked):
    arguments = make(steps, batch)
    starts = starts_of(steps, batch) if blanked else None
    expected, outputs = by_steps(*arguments, starts), GRUSequence.apply(*arguments, starts)
    torch.testing.assert_close(outputs, expected)
    outside = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(2), dtype=outputs.dtype)
    for ours, theirs in zip(*(torch.autograd.grad(o, arguments, outside) for o in (outputs, expected)), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("blanked", [False, True], ids=["whole", "starts"])
def test_gradients_are_those_of_finite_differences(blanked):
    starts = starts_of(CHUNK + 2, 2) if blanked else None
    assert torch.autograd.gradcheck(lambda *a: GRUSequence.apply(*a, starts), make(CHUNK + 2, 2))


def test_single_precision_is_as_exact_as_torchs_own_kernel():
    """Both against double precision, over the length of a trial."""
    arguments = make(300, 4, units=32)
    arguments[3] = (arguments[3] / 6).detach().requires_grad_()

    def gradients(run, dtype):
        own = [value.detach().to(dtype).requires_grad_() for value in arguments]
        return [value.double() for value in torch.autograd.grad(run(own).sum(), own)]

    def torchs(own):
        return torch.gru(own[0], own[1][None], own[2:], True, 1, 0.0, True, False, False)[0]

    exact = gradients(torchs, torch.float64)
    errors = [
        [
            float((value - true).norm() / true.norm())
            for value, true in zip(gradients(run, torch.float32), exact, strict=True)
        ]
        for run in (lambda own: GRUSequence.apply(*own, None), torchs)
    ]
    for ours, theirs in zip(*errors, strict=True):
        assert ours < 2 * theirs + 1e-6


def test_gradients_are_not_differentiable_again():
    arguments = make(3, 2)
    outputs = GRUSequence.apply(*arguments, None)
    with pytest.raises(UsageError, match="differentiated again"):
        torch.autograd.grad(outputs.sum(), arguments[:1], create_graph=True)


def test_arguments_are_left_as_they_were():
    arguments = make(5, 2)
    before = [value.detach().clone() for value in arguments]
    starts = starts_of(5, 2)
    outputs = GRUSequence.apply(*arguments, starts)
    kept = outputs.detach().clone()
    outputs.sum().backward()
    torch.testing.assert_close(outputs, kept, rtol=0, atol=0)
    for value, old in zip(arguments, before, strict=True):
        torch.testing.assert_close(value, old, rtol=0, atol=0)
