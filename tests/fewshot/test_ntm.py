"""The Neural Turing Machine's cell against the paper's equations as loops, and the copy task."""

import math

import numpy as np
import pytest
import torch

from metarl.errors import UsageError
from metarl.fewshot.copy_task import (
    BITS,
    CopyConfig,
    LSTMCopier,
    NTMCopier,
    bits_per_vector,
    draw,
    run_copy_task,
    train,
)
from metarl.fewshot.learners.ntm import NTMCell
from metarl.randomness import make_generator


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.log1p(np.exp(x))


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def lstm(cell, x, reads, hidden, memory):
    """One step of the controller: gates in the order input, forget, candidate, output."""
    weights = {name: value.detach().numpy() for name, value in cell.controller.named_parameters()}
    fed_back = np.concatenate([hidden, *reads])
    gates = weights["input.weight"] @ x + weights["input.bias"] + weights["feedback.weight"] @ fed_back
    i, f, g, o = np.split(gates, 4)
    memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(memory), memory


def address(row, memory, before):
    """Equations 5 to 9 of Graves et al. for one head."""
    slots, size = memory.shape
    key, strength, gate = row[:size], softplus(row[size]), sigmoid(row[size + 1])
    shift, sharpness = softmax(row[size + 2 : size + 5]), 1 + softplus(row[size + 5])
    scores = [key @ memory[i] / (np.linalg.norm(key) * np.linalg.norm(memory[i])) for i in range(slots)]
    interpolated = gate * softmax(strength * np.array(scores)) + (1 - gate) * before
    shifted = np.zeros(slots)
    for i in range(slots):
        for j in range(slots):
            for move, share in zip((-1, 0, 1), shift, strict=True):
                if (j + move) % slots == i:
                    shifted[i] += interpolated[j] * share
    return shifted**sharpness / (shifted**sharpness).sum()


def test_step_is_the_papers():
    """One sequence at a time, one head at a time, one slot at a time."""
    heads, slots, size, units = 2, 5, 4, 6
    cell = NTMCell("lstm", inputs=3, units=units, heads=heads, slots=slots, size=size).double()
    generator = make_generator("ntm")
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    start = cell.initial(2)
    start = start._replace(memory=torch.randn(2, slots, size, generator=generator, dtype=torch.float64))
    inputs = torch.randn(6, 2, 3, generator=generator, dtype=torch.float64)
    outputs, _ = cell(inputs, start)
    write, read = cell.write, cell.read
    for b in range(2):
        memory = start.memory[b].numpy().copy()
        hidden, inner, reads = np.zeros(units), np.zeros(units), [np.zeros(size)] * heads
        focus = np.eye(slots)[0]
        write_weight, read_weights = focus, [focus] * heads
        for t in range(6):
            hidden, inner = lstm(cell, inputs[t, b].numpy(), reads, hidden, inner)
            row = write.weight.detach().numpy() @ hidden + write.bias.detach().numpy()
            write_weight = address(row[: size + 6], memory, write_weight)
            erase, add = sigmoid(row[size + 6 : 2 * size + 6]), row[2 * size + 6 :]
            for i in range(slots):
                memory[i] = memory[i] * (1 - write_weight[i] * erase) + write_weight[i] * add
            rows = np.split(read.weight.detach().numpy() @ hidden + read.bias.detach().numpy(), heads)
            read_weights = [address(row, memory, before) for row, before in zip(rows, read_weights, strict=True)]
            reads = [sum(w[i] * memory[i] for i in range(slots)) for w in read_weights]
            np.testing.assert_allclose(outputs[t, b].detach().numpy(), np.concatenate([hidden, *reads]), atol=1e-6)


@pytest.mark.parametrize("kind", ["lstm", "feed-forward"])
def test_gradients_by_finite_differences(kind):
    cell = NTMCell(kind, inputs=2, units=3, heads=1, slots=4, size=3).double()
    cell.initialize(make_generator("gradients"))
    start = cell.initial(2)._replace(memory=torch.randn(2, 4, 3, generator=make_generator(0), dtype=torch.float64))
    inputs = torch.randn(3, 2, 2, generator=make_generator(1), dtype=torch.float64, requires_grad=True)
    weights = [cell.write.weight, cell.read.weight, cell.controller.feedback.weight]
    assert torch.autograd.gradcheck(lambda x, *_: cell(x, start)[0], (inputs, *weights), fast_mode=True)


def test_gradients_stay_finite_where_heads_are_sharp():
    cell = NTMCell("feed-forward", inputs=2, units=3, heads=1, slots=16, size=3)
    cell.initialize(make_generator("sharp"))
    with torch.no_grad():
        cell.write.bias[7] = 60.0  # sharpness
        cell.read.bias[7] = 60.0
    inputs = torch.randn(30, 2, 2, generator=make_generator(1))
    outputs, _ = cell(inputs, cell.initial(2))
    outputs.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in cell.parameters())


def test_copy_sequences():
    inputs, vectors = draw(3, 4, make_generator(0))
    assert inputs.shape == (10, 3, BITS + 2)
    assert torch.equal(inputs[1:5, :, :BITS], vectors)
    assert inputs[0, :, BITS:].tolist() == [[1.0, 0.0]] * 3
    assert inputs[5, :, BITS:].tolist() == [[0.0, 1.0]] * 3
    assert inputs[:, :, :BITS].sum() == vectors.sum()
    assert inputs[6:].abs().sum() == 0
    assert set(vectors.unique().tolist()) == {0.0, 1.0}


def test_bits_are_counted():
    inputs, vectors = draw(2, 3, make_generator(0))

    class Says(torch.nn.Module):
        """Says 1 with a probability of `p` where a bit is 1, and 1 − p where it is 0."""

        def __init__(self, p):
            super().__init__()
            self.logit = math.log(p / (1 - p))

        def forward(self, inputs):
            return torch.cat([torch.full((5, 2, BITS), 9.0), self.logit * (2 * vectors - 1)])

    assert float(bits_per_vector(Says(0.5), inputs, vectors)) == pytest.approx(8.0)
    assert float(bits_per_vector(Says(0.75), inputs, vectors)) == pytest.approx(8 * math.log2(4 / 3), rel=1e-5)


@pytest.mark.parametrize("cls", [NTMCopier, LSTMCopier])
def test_training_saves_bits(cls):
    config = CopyConfig(updates=150, batch=8, max_length=2, slots=8, slot_size=10, learning_rate=1e-2, lstm_size=32)
    network = cls(config, make_generator("network"))
    bits = train(network, config)
    assert sum(bits[:5]) / 5 > 7.5
    assert sum(bits[-10:]) / 10 < 6.5
    again = cls(config, make_generator("network"))
    assert train(again, CopyConfig(**{**vars(config), "updates": 3}))[0] == bits[0]


def test_lstm_is_no_smaller():
    with pytest.raises(UsageError, match="raise --lstm-size"):
        run_copy_task(CopyConfig(updates=1, lstm_size=4))


def test_run_measures_every_length():
    config = CopyConfig(updates=2, batch=2, max_length=3, test_lengths=(5,), test_sequences=4, slots=8)
    results = run_copy_task(config)
    assert set(results) == {"ntm", "lstm"}
    for result in results.values():
        assert list(result["bits_per_vector"]) == [1, 2, 3, 5]
        assert all(5 < bits < 12 for bits in result["bits_per_vector"].values())
    assert results["lstm"]["parameters"] >= results["ntm"]["parameters"] > 10_000
