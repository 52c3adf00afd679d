"""Every sequence core against itself, read in other ways, and GRU and LSTM against PyTorch's modules."""

import pytest
import torch

from metarl.nn.recurrent import GRU, LSTM, lstm_cell
from metarl.nn.sequence import SequenceCore, choose_state, fan_in_uniform, orthogonal
from metarl.nn.snail import SNAILCore
from metarl.nn.transformer import Transformer

STEPS, BATCH, INPUTS = 9, 3, 4
CORES = {
    "gru": GRU(INPUTS, 5),
    "lstm": LSTM(INPUTS, 5),
    "snail": SNAILCore(INPUTS, filters=3, keys=4, length=STEPS),
    "snail-with-room": SNAILCore(INPUTS, filters=3, keys=4, length=2 * STEPS, reach=STEPS),
    "transformer": Transformer(INPUTS, units=8, length=STEPS, heads=2),
    "transformer-with-room": Transformer(INPUTS, units=8, length=2 * STEPS, heads=2),
}
MODULES = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
STARTS = torch.zeros(STEPS, BATCH, dtype=torch.bool)
STARTS[[3, 5, 4, 0], [0, 0, 1, 1]] = True  # the third sequence goes on all the time


@pytest.fixture(params=list(CORES))
def core(request) -> SequenceCore:
    return CORES[request.param]


def make(core, seed=0, dtype=torch.float64):
    """Parameters none of which is zero, which would hide a mistake, and inputs."""
    generator = torch.Generator().manual_seed(seed)
    parameters = core.initialize(generator)
    for value in parameters.values():
        value += 0.2 * torch.randn(value.shape, generator=generator)
    inputs = torch.randn(STEPS, BATCH, INPUTS, generator=generator)
    return {name: value.to(dtype) for name, value in parameters.items()}, inputs.to(dtype)


def by_steps(core, parameters, inputs, state, starts=None):
    outputs = []
    for t in range(len(inputs)):
        if starts is not None:
            state = choose_state(starts[t], core.initial(inputs.shape[1], inputs), state)
        output, state = core.step(parameters, inputs[t], state)
        outputs.append(output)
    return torch.stack(outputs), state


def same_state(core, parameters, one, other):
    """Whether two states answer alike; what lies in a memory beyond a sequence's length is not compared."""
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(len(one[0]), 2, INPUTS, generator=generator).double()
    if isinstance(core, SNAILCore | Transformer):
        at_end = isinstance(core, SNAILCore)  # where the newest elements lie
        core = longer(core)
        one, other = (pad(core, state, at_end) for state in (one, other))
    torch.testing.assert_close(core.peek(parameters, inputs, one), core.peek(parameters, inputs, other))


def longer(core):
    """The same core with room for one more input."""
    if isinstance(core, SNAILCore):
        return SNAILCore(INPUTS, filters=3, keys=4, length=core.length + 1, reach=STEPS)
    return Transformer(INPUTS, units=8, length=core.length + 1, heads=2)


def pad(core, state, at_end):
    """The same memories in longer ones, so that a full one can be asked for one more answer."""
    padded = []
    for memory, blank in zip(state[1:], core.initial(len(state[0]), state[1])[1:], strict=True):
        room = blank[:, memory.shape[1] :]
        padded.append(torch.cat([room, memory] if at_end else [memory, room], 1))
    return state[0], *padded


def test_each_is_a_core(core):
    assert isinstance(core, SequenceCore)
    parameters, inputs = make(core)
    outputs, state = core.sequence(parameters, inputs)
    assert outputs.shape == (STEPS, BATCH, core.outputs)
    for memory, blank in zip(state, core.initial(BATCH, inputs), strict=True):
        assert memory.shape == blank.shape
        assert memory.dtype == blank.dtype


@pytest.mark.parametrize("starts", [None, STARTS], ids=["whole", "starts"])
def test_steps_are_the_sequence(core, starts):
    parameters, inputs = make(core)
    expected, end = by_steps(core, parameters, inputs, core.initial(BATCH, inputs), starts)
    outputs, state = core.sequence(parameters, inputs, None, starts)
    torch.testing.assert_close(outputs, expected)
    same_state(core, parameters, state, end)


@pytest.mark.parametrize("name", list(MODULES))
def test_pytorch_has_the_same_numbers(name):
    """Weights carry over by name; gates lie in PyTorch's order."""
    core = CORES[name]
    parameters, inputs = make(core)
    module = MODULES[name](INPUTS, core.outputs).double()
    names = {"weight_ih_l0": "input", "weight_hh_l0": "recurrent", "bias_ih_l0": "bias", "bias_hh_l0": "recurrent_bias"}
    module.load_state_dict({theirs: parameters[ours] for theirs, ours in names.items()})
    expected, _ = module(inputs)
    stepped, _ = by_steps(core, parameters, inputs, core.initial(BATCH, inputs))
    torch.testing.assert_close(stepped, expected)
    torch.testing.assert_close(core.sequence(parameters, inputs)[0], expected)


def test_starts_cut_a_sequence_into_separate_ones(core):
    parameters, inputs = make(core)
    before, state = core.sequence(parameters, inputs[:2])
    outputs, _ = core.sequence(parameters, inputs[2:], state, STARTS[2:])
    for row, cuts in enumerate([[3, 5], [4], []]):
        expected = [
            core.sequence(parameters, piece[:, None])[0][:, 0]
            for piece in torch.tensor_split(inputs[:, row], cuts)  # reads across time 2, as the state does
        ]
        torch.testing.assert_close(torch.cat([before, outputs])[:, row], torch.cat(expected))


def test_a_start_at_once_forgets_the_state(core):
    parameters, inputs = make(core)
    _, state = core.sequence(parameters, inputs[:4])
    starts = torch.zeros(5, BATCH, dtype=torch.bool)
    starts[0] = True
    outputs, end = core.sequence(parameters, inputs[4:], state, starts)
    expected, blank = core.sequence(parameters, inputs[4:])
    torch.testing.assert_close(outputs, expected)
    same_state(core, parameters, end, blank)


def test_reading_on_from_a_state_is_one_long_sequence(core):
    parameters, inputs = make(core)
    expected, end = core.sequence(parameters, inputs)
    for cut in (1, 4, 8):
        first, state = core.sequence(parameters, inputs[:cut])
        second, state = core.sequence(parameters, inputs[cut:], state)
        torch.testing.assert_close(torch.cat([first, second]), expected)
        same_state(core, parameters, state, end)


@pytest.mark.parametrize("length", [0, 1, 5, STEPS - 1])
def test_peeking_answers_like_a_step_and_leaves_the_state(core, length):
    parameters, inputs = make(core)
    state = core.initial(BATCH, inputs)
    for t in range(length):
        _, state = core.step(parameters, inputs[t], state)
    queries = torch.randn(BATCH, 6, INPUTS, generator=torch.Generator().manual_seed(1)).double()
    copies = [memory.clone() for memory in state]
    answers = core.peek(parameters, queries, state)
    assert answers.shape == (BATCH, 6, core.outputs)
    for query in range(6):
        torch.testing.assert_close(answers[:, query], core.step(parameters, queries[:, query], state)[0])
    assert all(torch.equal(memory, copy) for memory, copy in zip(state, copies, strict=True))


def test_rows_of_different_lengths_are_chosen_by_a_mask(core):
    """One row is reset, the others go on: each is what it would be alone."""
    parameters, inputs = make(core)
    _, state = core.sequence(parameters, inputs[:4])
    reset = torch.tensor([False, True, False])
    state = choose_state(reset, core.initial(BATCH, inputs), state)
    outputs, _ = core.sequence(parameters, inputs[4:7], state)
    whole, _ = core.sequence(parameters, inputs[:7])
    fresh, _ = core.sequence(parameters, inputs[4:7])
    torch.testing.assert_close(outputs[:, [0, 2]], whole[4:, [0, 2]])
    torch.testing.assert_close(outputs[:, 1], fresh[:, 1])
    queries = inputs[7][:, None]
    torch.testing.assert_close(
        core.peek(parameters, queries, state)[1], core.peek(parameters, queries, core.initial(BATCH, inputs))[1]
    )


def test_no_answer_depends_on_later_inputs_or_on_other_rows(core):
    parameters, inputs = make(core)
    before, _ = core.sequence(parameters, inputs)
    for t in range(STEPS):
        changed = inputs.clone()
        changed[t, 1] += 1
        after, _ = core.sequence(parameters, changed)
        torch.testing.assert_close(after[:t], before[:t], rtol=0, atol=0)
        torch.testing.assert_close(after[:, [0, 2]], before[:, [0, 2]])
        assert (after[t:, 1] - before[t:, 1]).abs().amax(1).min() > 1e-9  # but all that come after it


def test_an_input_matters_up_to_the_next_start_alone(core):
    parameters, inputs = make(core)
    before, _ = core.sequence(parameters, inputs, None, STARTS)
    changed = inputs.clone()
    changed[3, 0] += 1
    after, _ = core.sequence(parameters, changed, None, STARTS)
    moved = (after - before)[:, 0].abs().amax(1) > 1e-9
    assert moved.tolist() == [False] * 3 + [True] * 2 + [False] * 4


def test_gradients_are_those_of_finite_differences(core):
    parameters, inputs = make(core)
    names = list(parameters)
    _, state = core.sequence(parameters, inputs[:2])
    state = tuple(memory.requires_grad_(memory.is_floating_point()) for memory in state)

    def answers(x, *values):
        own = dict(zip(names, values, strict=True))
        whole, end = core.sequence(own, x, state, STARTS[2:6])
        return whole, core.peek(own, x[:2].transpose(0, 1), end)

    leaves = [value.requires_grad_() for value in (inputs[2:6].clone(), *parameters.values())]
    assert torch.autograd.gradcheck(answers, leaves, fast_mode=True)


def test_gradients_reach_through_the_state(core):
    """By finite differences of the input that is read first, from an answer given later."""
    parameters, inputs = make(core)

    def answer(x):
        _, state = core.sequence(parameters, x)
        _, state = core.step(parameters, inputs[3], state)
        return core.peek(parameters, inputs[4:6].transpose(0, 1), state)

    first = inputs[:3].clone().requires_grad_()
    assert torch.autograd.gradcheck(answer, [first], fast_mode=True)
    assert torch.autograd.grad(answer(first).sum(), first)[0].abs().amax((1, 2)).min() > 1e-6


def test_an_lstm_may_feed_back_other_numbers():
    """One cell by its equations, with gates in the order i, f, g, o."""
    generator = torch.Generator().manual_seed(0)
    sums, cell = torch.randn(2, 3, 12, generator=generator), torch.randn(2, 1, 3, generator=generator)
    i, f, g, o = sums.chunk(4, -1)
    expected = cell / (1 + (-f).exp()) + g.tanh() / (1 + (-i).exp())
    hidden, after = lstm_cell(sums, cell)
    torch.testing.assert_close(after, expected)
    torch.testing.assert_close(hidden, expected.tanh() / (1 + (-o).exp()))


def test_first_parameters():
    generator = torch.Generator().manual_seed(0)
    parameters = LSTM(4, 5).initialize(generator)
    assert parameters["bias"].tolist() == [0.0] * 5 + [1.0] * 5 + [0.0] * 10  # the forget gates are open
    assert parameters["input"].abs().max() <= 4**-0.5
    assert parameters["recurrent"].abs().max() <= 5**-0.5
    gates = GRU(4, 5).initialize(generator, orthogonal)["recurrent"].unflatten(0, (3, 5))
    torch.testing.assert_close(gates @ gates.mT, torch.eye(5).expand(3, 5, 5), rtol=0, atol=1e-5)
    assert fan_in_uniform(200, 9, generator).abs().max() == pytest.approx(1 / 3, abs=1e-2)
