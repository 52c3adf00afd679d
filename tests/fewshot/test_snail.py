"""SNAIL by naive loops over whole sequences, one for each query."""

import math

import pytest
import torch

from metarl.errors import UsageError
from metarl.fewshot.episodes import EpisodeShape
from metarl.fewshot.learners.snail import SNAIL, AttentionBlock, DenseBlock, SNAILConfig

BLOCKS = [DenseBlock(5, 4, 1), DenseBlock(5, 4, 4), AttentionBlock(5, 6, 3)]


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
    outputs = block.sequence(parameters, inputs)
    assert outputs.shape == (2, 7, block.outputs)
    for task in range(2):
        torch.testing.assert_close(outputs[task], naive(block, parameters, inputs[task]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("length", [1, 3, 6])
def test_the_last_element_alone_is_that_of_the_whole_sequence(block, length):
    parameters = with_biases(block)
    generator = torch.Generator().manual_seed(2)
    past, ends = torch.randn(2, length, 5, generator=generator), torch.randn(2, 3, 5, generator=generator)
    last = block.last(parameters, past, ends)
    for query in range(3):
        whole = naive(block, parameters, torch.cat([past[1], ends[1, query, None]]))
        torch.testing.assert_close(last[1, query], whole[-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", BLOCKS)
def test_nothing_depends_on_what_comes_later(block):
    parameters = with_biases(block)
    inputs = torch.randn(1, 8, 5, generator=torch.Generator().manual_seed(3))
    before = block.sequence(parameters, inputs)
    for place in range(8):
        changed = inputs.clone()
        changed[0, place] += 1
        after = block.sequence(parameters, changed)
        assert torch.equal(after[0, :place], before[0, :place])
        assert not torch.equal(after[0, place], before[0, place])


def test_every_query_ends_a_sequence_of_its_own(rows):
    shape = EpisodeShape(3, 2, 4)
    learner = SNAIL(SNAILConfig(filters=5, keys=4), rows.spec(shape))
    episodes = rows.episodes("test", 2, shape, seed=0)
    support, query = episodes.support, episodes.query
    with torch.no_grad():
        scores = learner.adapt(support)(query.x)
        for task in range(2):
            pairs = torch.cat([support.x[task], torch.eye(3)[support.y[task]]], 1)
            for row in range(0, query.x.shape[1], 3):
                hidden = torch.cat([pairs, torch.cat([query.x[task, row], torch.zeros(3)])[None]])
                for number, block in enumerate(learner.blocks):
                    start = f"{number}."
                    own = {k.removeprefix(start): v for k, v in learner.map.items() if k.startswith(start)}
                    hidden = naive(block, own, hidden)
                expected = learner.map["weight"] @ hidden[-1] + learner.map["bias"]
                torch.testing.assert_close(scores[task, row], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("ways", "shots", "levels"), [(5, 1, 3), (5, 5, 5), (20, 1, 5), (2, 2, 3), (1, 1, 1)])
def test_convolutions_reach_back_to_the_first_element(ways, shots, levels, rows):
    spec = rows.spec(EpisodeShape(ways, shots, 1))
    dilations = [
        block.dilation
        for block in SNAIL(SNAILConfig(filters=2, keys=2), spec).blocks[1:-2]
        if isinstance(block, DenseBlock)
    ][:levels]
    assert dilations == [2**level for level in range(levels)]
    assert sum(dilations) >= ways * shots


def test_the_architecture_of_the_paper(rows):
    """Appendix A: attention (64, 32), TC 128, attention (256, 128), TC 128, attention (512, 256)."""
    learner = SNAIL(SNAILConfig(filters=128, keys=64), rows.spec(EpisodeShape(5, 1, 1)))
    shapes = [(b.keys, b.values) if isinstance(b, AttentionBlock) else b.filters for b in learner.blocks]
    assert shapes == [(64, 32), 128, 128, 128, (256, 128), 128, 128, 128, (512, 256)]


def test_wrong_options_are_refused():
    with pytest.raises(UsageError, match="filters"):
        SNAILConfig(filters=0)
    with pytest.raises(UsageError, match="keys must be"):
        SNAILConfig(keys=1)
