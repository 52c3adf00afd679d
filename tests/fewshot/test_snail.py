"""SNAIL as a few-shot learner; tests/nn/test_snail.py holds its blocks to loops."""

import pytest
import torch

from metarl.errors import UsageError
from metarl.fewshot.episodes import EpisodeShape, Samples
from metarl.fewshot.learners.snail import SNAIL, SNAILConfig
from metarl.fewshot.parameter_names import part
from metarl.fewshot.support_order import by_content
from metarl.nn.snail import DenseBlock


def whole_sequences(learner: SNAIL, support: Samples, x: torch.Tensor) -> torch.Tensor:
    """Scores of one task, each query at the end of a sequence of its own that is read as a whole."""
    pairs = torch.cat([support.x[0], torch.eye(3)[support.y[0]]], 1)
    ends = torch.cat([x[0], torch.zeros(x.shape[1], 3)], 1)
    sequences = torch.stack([torch.cat([pairs, end[None]]) for end in ends], 1)
    core = learner.core(len(sequences))
    outputs, _ = core.sequence(part("core.", learner.map), sequences)
    return outputs[-1] @ learner.map["weight"].T + learner.map["bias"]


def test_every_query_ends_a_sequence_of_its_own(rows):
    shape = EpisodeShape(3, 2, 4)
    learner = SNAIL(SNAILConfig(filters=5, keys=4), rows.spec(shape))
    episodes = rows.episodes("test", 2, shape, seed=0)
    with torch.no_grad():
        scores = learner.adapt(episodes.support)(episodes.query.x)
        for task in range(2):
            one = episodes[task : task + 1]
            expected = whole_sequences(learner, one.support, one.query.x)
            torch.testing.assert_close(scores[task], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [3, 6, 11])
def test_a_support_of_any_size_is_read(rows, count):
    """Fewer examples than those it was built for, as many, and more."""
    shape = EpisodeShape(3, 2, 4)
    learner = SNAIL(SNAILConfig(filters=5, keys=4), rows.spec(shape))
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    support = Samples(torch.randn(1, count, 3, generator=generator), labels[None])
    queries = torch.randn(1, 5, 3, generator=generator)
    with torch.no_grad():
        expected = whole_sequences(learner, support, queries)
        torch.testing.assert_close(learner.adapt(support)(queries)[0], expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # what a user gives has no order of its own
        expected = whole_sequences(learner, by_content(support), queries).softmax(-1)
    probabilities = learner.predict(support.x[0].numpy(), labels.numpy(), queries[0].numpy())
    torch.testing.assert_close(probabilities, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("ways", "shots", "levels"), [(5, 1, 3), (5, 5, 5), (20, 1, 5), (2, 2, 3), (1, 1, 1)])
def test_convolutions_reach_back_to_the_first_element(ways, shots, levels, rows):
    learner = SNAIL(SNAILConfig(filters=2, keys=2), rows.spec(EpisodeShape(ways, shots, 1)))
    for length in (2, 100):  # of any support that it may be given
        blocks = learner.core(length).blocks[1 : levels + 1]
        assert all(isinstance(block, DenseBlock) for block in blocks)
        assert [block.dilation for block in blocks] == [2**level for level in range(levels)]
    assert 2**levels - 1 >= ways * shots


def test_wrong_options_are_refused():
    with pytest.raises(UsageError, match="filters"):
        SNAILConfig(filters=0)
    with pytest.raises(UsageError, match="keys must be"):
        SNAILConfig(keys=1)
