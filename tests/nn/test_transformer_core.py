"""The transformer by a plain loop and by PyTorch's layers. test_sequence.py has what every core must do."""

import math

import pytest
import torch

from metarl.errors import UsageError
from metarl.nn.sequence import choose_state, orthogonal
from metarl.nn.transformer import Transformer, sinusoids

INPUTS, STEPS, BATCH = 3, 7, 2


def make(core, seed=0):
    """Parameters none of which is zero, and inputs, in float64."""
    generator = torch.Generator().manual_seed(seed)
    parameters = {
        name: (value + 0.3 * torch.randn(value.shape, generator=generator)).double()
        for name, value in core.initialize(generator).items()
    }
    return parameters, torch.randn(STEPS, BATCH, core.inputs, generator=generator).double()


def loop(core, parameters, sequence):
    """Element by element, head by head, number by number, from the equations."""
    d, size = core.outputs, core.outputs // core.heads

    def norm(name, x):
        centred = x - x.mean()
        scale, shift = parameters[f"{name}scale"], parameters[f"{name}shift"]
        return centred / math.sqrt(float((centred**2).mean()) + 1e-5) * scale + shift

    def linear(name, x):
        return parameters[name] @ x + parameters[f"{name}_bias"]

    def code(t):
        angles = [t / 10_000 ** (2 * i / d) for i in range(d // 2)]
        return torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles])

    hidden = [math.sqrt(d) * linear("embedding", x) + code(t) for t, x in enumerate(sequence)]
    for n in range(core.layers):
        rows = [linear(f"attention{n}", norm(f"attention{n}_", h)) for h in hidden]
        after = []
        for t, h in enumerate(hidden):
            found = []
            for k in range(core.heads):
                part = slice(k * size, (k + 1) * size)
                q = rows[t][:d][part]
                weights = [math.exp(float(q @ row[d : 2 * d][part]) / math.sqrt(size)) for row in rows[: t + 1]]
                values = [w * row[2 * d :][part] for w, row in zip(weights, rows[: t + 1], strict=True)]
                found.append(sum(values) / sum(weights))
            h = h + linear(f"mixing{n}", torch.cat(found))
            after.append(h + linear(f"contraction{n}", linear(f"expansion{n}", norm(f"expansion{n}_", h)).clamp(min=0)))
        hidden = after
    return torch.stack([norm("", h) for h in hidden])


@pytest.mark.parametrize("heads", [1, 3])
def test_it_is_the_plain_loop(heads):
    core = Transformer(INPUTS, units=6, length=STEPS, heads=heads)
    parameters, inputs = make(core)
    outputs, _ = core.sequence(parameters, inputs)
    for row in range(BATCH):
        torch.testing.assert_close(outputs[:, row], loop(core, parameters, inputs[:, row]))


def test_pytorch_has_the_same_layers():
    core = Transformer(INPUTS, units=8, length=STEPS, layers=3, heads=2)
    parameters, inputs = make(core)
    layer = torch.nn.TransformerEncoderLayer(8, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
    module = torch.nn.TransformerEncoder(layer, 3, torch.nn.LayerNorm(8), enable_nested_tensor=False).double()
    state = {"norm.weight": parameters["scale"], "norm.bias": parameters["shift"]}
    for n in range(3):
        for theirs, ours in (
            ("self_attn.in_proj_weight", f"attention{n}"),
            ("self_attn.in_proj_bias", f"attention{n}_bias"),
            ("self_attn.out_proj.weight", f"mixing{n}"),
            ("self_attn.out_proj.bias", f"mixing{n}_bias"),
            ("linear1.weight", f"expansion{n}"),
            ("linear1.bias", f"expansion{n}_bias"),
            ("linear2.weight", f"contraction{n}"),
            ("linear2.bias", f"contraction{n}_bias"),
            ("norm1.weight", f"attention{n}_scale"),
            ("norm1.bias", f"attention{n}_shift"),
            ("norm2.weight", f"expansion{n}_scale"),
            ("norm2.bias", f"expansion{n}_shift"),
        ):
            state[f"layers.{n}.{theirs}"] = parameters[ours]
    module.load_state_dict(state)
    embedded = torch.nn.functional.linear(inputs, parameters["embedding"], parameters["embedding_bias"])
    embedded = math.sqrt(8) * embedded + sinusoids(torch.arange(STEPS), 8, torch.float64)[:, None]
    mask = torch.nn.Transformer.generate_square_subsequent_mask(STEPS, dtype=torch.float64)
    expected = module(embedded.transpose(0, 1), mask=mask, is_causal=True)
    torch.testing.assert_close(core.sequence(parameters, inputs)[0], expected.transpose(0, 1))


def test_sinusoids_by_hand():
    codes = sinusoids(torch.tensor([[0], [5]]), 4, torch.float64)
    expected = [math.sin(5), math.sin(5 / 100), math.cos(5), math.cos(5 / 100)]
    torch.testing.assert_close(codes[1, 0], torch.tensor(expected, dtype=torch.float64))
    assert codes[0, 0].tolist() == [0, 0, 1, 1]


def test_parameters_do_not_depend_on_the_length():
    short, long = (Transformer(INPUTS, units=8, length=length) for length in (STEPS, 3 * STEPS))
    parameters, inputs = make(short)
    assert {n: v.shape for n, v in long.initialize(torch.Generator()).items()} == {
        n: v.shape for n, v in parameters.items()
    }
    torch.testing.assert_close(long.sequence(parameters, inputs)[0], short.sequence(parameters, inputs)[0])


def test_first_parameters():
    parameters = Transformer(INPUTS, units=8, length=STEPS).initialize(torch.Generator().manual_seed(0), orthogonal)
    parts = parameters["attention1"].unflatten(0, (3, 8))
    torch.testing.assert_close(parts @ parts.mT, torch.eye(8).expand(3, 8, 8), rtol=0, atol=1e-5)
    assert not parameters["attention1_bias"].any()
    assert (parameters["expansion0_scale"] == 1).all()


def test_rows_of_the_memory_are_the_positions():
    """What lies beyond a sequence's length changes nothing, whatever it is."""
    core = Transformer(INPUTS, units=8, length=STEPS + 2)
    parameters, inputs = make(core)
    _, state = core.sequence(parameters, inputs[:4])
    reset = torch.tensor([False, True])
    length, *memories = choose_state(reset, core.initial(BATCH, inputs), state)
    assert length.tolist() == [4, 0]
    spoilt = [memory.clone() for memory in memories]
    for memory in spoilt:
        memory[0, 4:], memory[1, 0:] = 1e3, -1e3
    expected, _ = core.sequence(parameters, inputs[4:], (length, *memories))
    torch.testing.assert_close(core.sequence(parameters, inputs[4:], (length, *spoilt))[0], expected)
    output, _ = core.step(parameters, inputs[4], (length, *spoilt))
    torch.testing.assert_close(output, expected[0])
    torch.testing.assert_close(core.peek(parameters, inputs[4][:, None], (length, *spoilt))[:, 0], expected[0])


def test_a_sequence_that_is_too_long_is_refused():
    core = Transformer(INPUTS, units=8, length=6)
    parameters, inputs = make(core)
    message = "a transformer was built to remember 6 inputs and is given a sequence of 7"
    with pytest.raises(UsageError, match=message):
        core.sequence(parameters, inputs)
    _, full = core.sequence(parameters, inputs[:6])
    for read in (
        lambda: core.step(parameters, inputs[6], full),
        lambda: core.peek(parameters, inputs[6][:, None], full),
        lambda: core.sequence(parameters, inputs[6:], full),
    ):
        with pytest.raises(UsageError, match=message):
            read()
    starts = torch.zeros(STEPS, BATCH, dtype=torch.bool)
    starts[3] = True
    outputs, state = core.sequence(parameters, inputs, None, starts)  # no sequence in it is too long
    assert outputs.shape == (STEPS, BATCH, 8)
    assert state[0].tolist() == [4, 4]


@pytest.mark.parametrize(("units", "heads", "instead"), [(10, 4, 12), (9, 3, 12), (7, 1, 8)])
def test_units_that_do_not_fit_the_heads_are_refused(units, heads, instead):
    with pytest.raises(UsageError, match=f"choose {instead} instead of {units}"):
        Transformer(INPUTS, units=units, length=5, heads=heads)
