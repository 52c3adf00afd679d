"""MANN's cell against the equations of Santoro et al. as loops."""

import numpy as np
import pytest
import torch

from metarl.fewshot.learners.mann import LRUACell, least_used
from metarl.randomness import make_generator


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def make_cell(kind="lstm", scale=0.7, heads=2, slots=6, size=4, units=5, inputs=3):
    cell = LRUACell(kind, inputs, units, heads, slots, size, usage_decay=0.9).double()
    generator = make_generator("mann cell")
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return cell


def naive(cell, inputs, memory, usage):
    """[h_t, r_t] of one sequence: one head at a time, one slot at a time."""
    w = {name: value.detach().numpy() for name, value in cell.named_parameters()}
    memory, usage = memory.copy(), usage.copy()
    hidden, inner = np.zeros(cell.controller.units), np.zeros(cell.controller.units)
    reads = [np.zeros(cell.size)] * cell.heads
    read_weights = [np.zeros(cell.slots)] * cell.heads
    outputs = []
    for x in inputs:
        fed_back = np.concatenate([hidden, *reads])
        gates = w["controller.input.weight"] @ x + w["controller.input.bias"]
        enter, forget, new, leave = np.split(gates + w["controller.feedback.weight"] @ fed_back, 4)
        inner = sigmoid(forget) * inner + sigmoid(enter) * np.tanh(new)
        hidden = sigmoid(leave) * np.tanh(inner)
        rows = np.split(w["interface.weight"] @ hidden + w["interface.bias"], cell.heads)
        keys = [np.tanh(row[: cell.size]) for row in rows]
        written = [np.tanh(row[cell.size : 2 * cell.size]) for row in rows]
        least = np.argsort(usage, kind="stable")[: cell.heads]
        for slot in least:
            memory[slot] = 0
        write_weights = []
        for head, row in enumerate(rows):
            gate = sigmoid(row[2 * cell.size])
            write = gate * read_weights[head]
            write[least[head]] += 1 - gate
            write_weights.append(write)
        for head in range(cell.heads):
            for slot in range(cell.slots):
                memory[slot] += write_weights[head][slot] * written[head]
        usage = 0.9 * usage
        for head, row in enumerate(rows):
            strength = np.log1p(np.exp(3 + row[2 * cell.size + 1]))
            lengths = np.linalg.norm(keys[head]) * np.linalg.norm(memory, axis=1)
            scores = np.exp(strength * (memory @ keys[head]) / np.maximum(lengths, 1e-12))
            read_weights[head] = scores / scores.sum()
            reads[head] = sum(read_weights[head][slot] * memory[slot] for slot in range(cell.slots))
            usage += read_weights[head] + write_weights[head]
        outputs.append(np.concatenate([hidden, *reads]))
    return np.stack(outputs)


def test_step_is_the_papers():
    cell = make_cell()
    generator = make_generator("start")
    memory = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    usage = torch.rand(2, 6, generator=generator, dtype=torch.float64)  # no ties, which either may break its own way
    start = cell.initial(2)._replace(memory=memory, usage=usage)
    inputs = torch.randn(12, 2, 3, generator=make_generator("inputs"), dtype=torch.float64)
    outputs, state = cell(inputs, start)
    for b in range(2):
        want = naive(cell, inputs[:, b].numpy(), memory[b].numpy(), usage[b].numpy())
        np.testing.assert_allclose(outputs[:, b].detach().numpy(), want, atol=1e-6)
    assert state.usage.shape == (2, 6)


def test_a_head_finds_again_what_it_wrote():
    """Untrained, the slot that a vector was written to is the one whose reading rises most when it comes back."""
    generator = make_generator("found again")
    cell = LRUACell("feed-forward", 8, 32, heads=1, slots=12, size=16, usage_decay=0.9)
    cell.initialize(generator)
    with torch.no_grad():
        cell.interface.weight[2 * cell.size] = 0.0
        cell.interface.bias[2 * cell.size] = -50.0  # every vector to a slot of its own
        cell.controller.feedback.weight.zero_()
    vectors = torch.randn(5, 1, 8, generator=generator)
    _, state = cell(vectors, cell.initial(1))
    written = [int(slot) for slot in least_written(cell, vectors)]
    for slot, vector in zip(written, vectors, strict=True):
        _, after = cell(vector[None], state)
        before_now = after.weights[0, 0].clone()
        before_now[list(set(range(12)) - set(written))] = 0.0
        assert int(before_now.argmax()) == slot


def least_written(cell, vectors):
    """The slot that each of `vectors` goes to."""
    state = cell.initial(1)
    for vector in vectors:
        yield least_used(state.usage, 1).argmax(2)[0, 0]
        _, state = cell(vector[None], state)


def test_least_used_slots():
    usage = torch.tensor([[0.5, 0.1, 0.9, 0.0], [3.0, 2.0, 1.0, 4.0]])
    assert least_used(usage, 2).argmax(2).tolist() == [[3, 1], [2, 1]]
    assert least_used(usage, 2).sum((1, 2)).tolist() == [2.0, 2.0]


def test_unused_slots_are_filled_first():
    """With the gate shut, heads write to new slots until there are none."""
    cell = make_cell(heads=1, slots=5)
    with torch.no_grad():
        cell.interface.weight[2 * cell.size] = 0.0
        cell.interface.bias[2 * cell.size] = -50.0
    inputs = torch.randn(5, 1, 3, generator=make_generator(0), dtype=torch.float64)
    state = cell.initial(1)
    for step in range(5):
        _, state = cell(inputs[step : step + 1], state)
        assert int((state.memory[0].norm(dim=1) > 1e-3).sum()) == step + 1


@pytest.mark.parametrize("kind", ["lstm", "feed-forward"])
def test_gradients_by_finite_differences(kind):
    cell = make_cell(kind, scale=0.5, heads=1, slots=4, size=3, units=3, inputs=2)
    inputs = torch.randn(4, 2, 2, generator=make_generator(1), dtype=torch.float64, requires_grad=True)
    start = cell.initial(2)._replace(memory=torch.randn(2, 4, 3, generator=make_generator(0), dtype=torch.float64))
    weights = [cell.interface.weight, cell.controller.feedback.weight]
    assert torch.autograd.gradcheck(lambda x, *_: cell(x, start)[0], (inputs, *weights), fast_mode=True)
