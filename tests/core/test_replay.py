"""Replay buffers: a ring whose rows are those that came last, against a plain list."""

import pytest
import torch

from metarl import ReplayBuffer, UsageError


def rows(first, last):
    numbers = torch.arange(first, last)
    return {"number": numbers, "observation": numbers[:, None] * torch.tensor([1.0, 10.0])}


@pytest.mark.parametrize("sizes", [[3], [4, 4, 4], [1, 9, 2, 30, 5], [10, 10]])
def test_it_holds_the_last_rows(sizes):
    buffer, total = ReplayBuffer(10), 0
    for size in sizes:
        buffer.append(rows(total, total + size))
        total += size
        assert (buffer.count, len(buffer)) == (total, min(total, 10))
        kept = buffer.rows(0, total)
        assert kept["number"].tolist() == list(range(max(0, total - 10), total))
        assert torch.equal(kept["observation"], rows(max(0, total - 10), total)["observation"])


def test_samples_are_rows_that_are_there():
    buffer = ReplayBuffer(10)
    buffer.append(rows(0, 25))
    drawn = buffer.sample(2000, torch.Generator().manual_seed(0))
    assert set(drawn["number"].tolist()) == set(range(15, 25))
    assert torch.equal(drawn["observation"][:, 1], 10.0 * drawn["number"])
    counts = torch.bincount(drawn["number"] - 15)
    assert counts.min() > 150  # 200 each, on average


@pytest.mark.parametrize("total", [4, 10, 23])
def test_restoring_gives_the_same_buffer(total):
    buffer, again = ReplayBuffer(10), ReplayBuffer(10)
    buffer.append(rows(0, total))
    again.restore(buffer.count, buffer.rows(0, total))
    for ring in (buffer, again):
        ring.append(rows(total, total + 3))
    assert again.count == buffer.count
    assert torch.equal(again.rows(0, 99)["number"], buffer.rows(0, 99)["number"])
    draws = [ring.sample(50, torch.Generator().manual_seed(1))["number"] for ring in (buffer, again)]
    assert torch.equal(*draws)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"number": torch.zeros(2, dtype=torch.long)}, "'observation' does not fit"),
        (rows(0, 2) | {"more": torch.zeros(2)}, "'more' does not fit"),
        (rows(0, 2) | {"observation": torch.zeros(2, 3)}, "'observation' of"),
        (rows(0, 2) | {"number": torch.zeros(2)}, "'number' of"),
        (rows(0, 2) | {"number": torch.zeros(3, dtype=torch.long)}, "same leading size"),
    ],
)
def test_rows_unlike_the_first_are_refused(wrong, message):
    buffer = ReplayBuffer(10)
    buffer.append(rows(0, 4))
    with pytest.raises(UsageError, match=message):
        buffer.append(wrong)
    assert buffer.count == 4


def test_an_empty_buffer_says_so():
    with pytest.raises(UsageError, match="empty"):
        ReplayBuffer(3).sample(1, torch.Generator())
    with pytest.raises(UsageError, match="capacity"):
        ReplayBuffer(0)
