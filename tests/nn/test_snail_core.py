"""SNAIL's blocks by naive loops, and its memories of a fixed length. test_sequence.py has what every core must do."""

import math

import pytest
import torch

from metarl.errors import UsageError
from metarl.nn.sequence import ages
from metarl.nn.snail import AttentionBlock, DenseBlock, SNAILCore

BLOCKS = [DenseBlock(5, 4, 1), DenseBlock(5, 4, 4), AttentionBlock(5, 6, 3, length=9)]
WHOLE = torch.arange(8)[None]  # ages in a sequence that nothing comes before


def with_biases(block, seed=0):
    generator = torch.Generator().manual_seed(seed)
    parameters = block.initialize(generator)
    return {name: torch.randn(value.shape, generator=generator) for name, value in parameters.items()}


def naive(block, parameters, sequence):
    """Element by element, from the equations."""
    outputs = []
    for t in range(len(sequence)):
        if isinstance(block, DenseBlock):
            before = sequence[t - block.dilation] if t >= block.dilation else torch.zeros(block.inputs)
            sums = parameters["now"] @ sequence[t] + parameters["earlier"] @ before + parameters["bias"]
            added = sums[: block.filters].tanh() * sums[block.filters :].sigmoid()
        else:
            k, v = block.keys, block.values
            rows = [parameters["weight"] @ element + parameters["bias"] for element in sequence[: t + 1]]
            weights = [math.exp(float(rows[t][:k] @ row[k : 2 * k]) / math.sqrt(k)) for row in rows]
            added = sum(weight * row[2 * k : 2 * k + v] for weight, row in zip(weights, rows, strict=True))
            added = added / sum(weights)
        outputs.append(torch.cat([sequence[t], added]))
    return torch.stack(outputs)


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_by_loops(block):
    parameters = with_biases(block)
    inputs = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(1))
    outputs, _ = block.sequence(parameters, inputs, None, WHOLE[:, :7])
    assert outputs.shape == (2, 7, block.outputs)
    for task in range(2):
        torch.testing.assert_close(outputs[task], naive(block, parameters, inputs[task]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("length", [1, 3, 6])
def test_the_last_element_alone_is_that_of_the_whole_sequence(block, length):
    parameters = with_biases(block)
    generator = torch.Generator().manual_seed(2)
    past, ends = torch.randn(2, length, 5, generator=generator), torch.randn(2, 3, 5, generator=generator)
    _, memory = block.sequence(parameters, past, None, WHOLE[:, :length])
    assert memory.shape == block.initial(2, past).shape
    last = block.peek(parameters, ends, memory, torch.tensor([length, length]))
    for query in range(3):
        whole = naive(block, parameters, torch.cat([past[1], ends[1, query, None]]))
        torch.testing.assert_close(last[1, query], whole[-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", BLOCKS)
def test_nothing_depends_on_what_comes_later(block):
    parameters = with_biases(block)
    inputs = torch.randn(1, 8, 5, generator=torch.Generator().manual_seed(3))
    before, _ = block.sequence(parameters, inputs, None, WHOLE)
    for place in range(8):
        changed = inputs.clone()
        changed[0, place] += 1
        after, _ = block.sequence(parameters, changed, None, WHOLE)
        assert torch.equal(after[0, :place], before[0, :place])
        assert not torch.equal(after[0, place], before[0, place])


@pytest.mark.parametrize("block", BLOCKS)
def test_what_is_older_than_the_sequence_is_hidden(block):
    """A memory full of other things, of which the sequence owns as many elements as its length says."""
    parameters = with_biases(block)
    generator = torch.Generator().manual_seed(4)
    stale = torch.randn(block.initial(2, torch.zeros(1)).shape, generator=generator)
    inputs, ends = torch.randn(2, 7, 5, generator=generator), torch.randn(2, 3, 5, generator=generator)
    expected, blank = block.sequence(parameters, inputs, None, WHOLE[:, :7])
    outputs, memory = block.sequence(parameters, inputs, stale, WHOLE[:, :7])
    torch.testing.assert_close(outputs, expected)
    length = torch.tensor([7, 7])
    torch.testing.assert_close(
        block.peek(parameters, ends, memory, length), block.peek(parameters, ends, blank, length)
    )


def test_ages_by_hand():
    starts = torch.tensor([[True, False], [False, False], [False, True], [True, False]])
    assert ages(4, torch.tensor([5, 6]), starts).tolist() == [[0, 1, 2, 0], [6, 7, 0, 1]]
    assert ages(3, torch.tensor([5, 0]), None).tolist() == [[5, 6, 7], [0, 1, 2]]


@pytest.mark.parametrize(("length", "levels"), [(6, 3), (26, 5), (21, 5), (5, 3), (2, 1), (400, 9)])
def test_convolutions_reach_back_to_the_first_element(length, levels):
    blocks = SNAILCore(inputs=1, filters=1, keys=2, length=length).blocks
    for first in (1, levels + 2):
        block = blocks[first : first + levels]
        assert all(isinstance(one, DenseBlock) for one in block)
        assert [one.dilation for one in block] == [2**level for level in range(levels)]
    assert 2**levels - 1 >= length - 1 > 2 ** (levels - 1) - 1
    assert len(blocks) == 3 + 2 * levels


def test_the_architecture_of_the_paper():
    """Appendix A: attention (64, 32), TC 128, attention (256, 128), TC 128, attention (512, 256)."""
    core = SNAILCore(inputs=69, filters=128, keys=64, length=6)
    shapes = [(b.keys, b.values) if isinstance(b, AttentionBlock) else b.filters for b in core.blocks]
    assert shapes == [(64, 32), 128, 128, 128, (256, 128), 128, 128, 128, (512, 256)]
    assert core.outputs == 69 + 32 + 128 + 256 + 6 * 128
    for block, following in zip(core.blocks, core.blocks[1:], strict=False):
        assert block.outputs == following.inputs


def test_parameters_depend_on_the_reach_and_not_on_the_length():
    short, long = (SNAILCore(inputs=2, filters=3, keys=2, length=length, reach=8) for length in (8, 20))
    parameters = short.initialize(torch.Generator().manual_seed(0))
    inputs = torch.randn(8, 3, 2, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(long.sequence(parameters, inputs)[0], short.sequence(parameters, inputs)[0])


def test_a_sequence_that_is_too_long_is_refused():
    core = SNAILCore(inputs=2, filters=3, keys=2, length=6)
    parameters = core.initialize(torch.Generator().manual_seed(0))
    message = "built to remember 6 inputs and is given a sequence of 7"
    with pytest.raises(UsageError, match=message):
        core.sequence(parameters, torch.zeros(7, 3, 2))
    _, full = core.sequence(parameters, torch.zeros(6, 3, 2))
    for read in (
        lambda: core.step(parameters, torch.zeros(3, 2), full),
        lambda: core.peek(parameters, torch.zeros(3, 4, 2), full),
        lambda: core.sequence(parameters, torch.zeros(1, 3, 2), full),
    ):
        with pytest.raises(UsageError, match=message):
            read()
    starts = torch.zeros(9, 3, dtype=torch.bool)
    starts[4] = True
    outputs, _ = core.sequence(parameters, torch.zeros(9, 3, 2), None, starts)  # no sequence in it is too long
    assert outputs.shape == (9, 3, core.outputs)
    starts[4, 1] = False
    with pytest.raises(UsageError, match="a sequence of 9"):
        core.sequence(parameters, torch.zeros(9, 3, 2), None, starts)
