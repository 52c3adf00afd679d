"""The replay buffer of many tasks against plain lists."""

import pytest
import torch

import metarl
from metarl.task_replay import TaskReplay


def filled(capacity, total, num_tasks=3, seed=0):
    """A buffer that received rows 0, 1, …, in pieces of random sizes, and the rows that each task should have."""
    generator = torch.Generator().manual_seed(seed)
    replay, tasks = TaskReplay(capacity, num_tasks), torch.randint(num_tasks, (total,), generator=generator)
    start = 0
    while start < total:
        end = min(total, start + int(torch.randint(1, 40, (), generator=generator)))
        replay.append(tasks[start:end], {"number": torch.arange(start, end)})
        replay.counts()  # an index of the moment
        start = end
    kept = range(max(0, total - capacity), total)
    return replay, [[i for i in kept if tasks[i] == task] for task in range(num_tasks)]


@pytest.mark.parametrize(("capacity", "total"), [(100, 60), (100, 100), (100, 350)])
def test_the_rows_of_a_task_are_drawn_evenly_and_no_others(capacity, total):
    replay, lists = filled(capacity, total)
    assert replay.counts().tolist() == list(map(len, lists))
    drawn = replay.sample(torch.tensor([2, 0]), 20_000, torch.Generator().manual_seed(1))["number"]
    for rows, task in zip(drawn, (2, 0), strict=True):
        values, counts = rows.unique(return_counts=True)
        assert values.tolist() == lists[task]
        expected = 20_000 / len(lists[task])
        assert ((counts - expected).abs() < 5 * expected**0.5).all()


def test_recent_rows_are_the_last_of_their_task():
    replay, lists = filled(100, 350)
    drawn = replay.sample(torch.arange(3), 2000, torch.Generator().manual_seed(1), recent=7)["number"]
    assert [rows.unique().tolist() for rows in drawn] == [rows[-7:] for rows in lists]
    everything = replay.sample(torch.arange(3), 5000, torch.Generator().manual_seed(1), recent=1000)["number"]
    assert [rows.unique().tolist() for rows in everything] == lists


def test_rows_come_whole():
    replay = TaskReplay(50, 2)
    number = torch.arange(30.0)
    replay.append(torch.arange(30) % 2, {"o": number[:, None] * torch.tensor([1.0, 10.0]), "r": number})
    drawn = replay.sample(torch.tensor([1]), 40, torch.Generator())
    assert drawn.keys() == {"o", "r"}
    assert torch.equal(drawn["o"], drawn["r"][..., None] * torch.tensor([1.0, 10.0]))


def test_a_restored_buffer_draws_the_same():
    replay, _ = filled(100, 350)
    again = TaskReplay(100, 3)
    again.buffer.restore(replay.buffer.count, replay.buffer.rows(0, replay.buffer.count))
    draws = [r.sample(torch.arange(3), 50, torch.Generator().manual_seed(4), recent=9) for r in (replay, again)]
    assert torch.equal(draws[0]["number"], draws[1]["number"])


def test_wrong_tasks_are_refused():
    replay = TaskReplay(10, 2)
    with pytest.raises(metarl.UsageError, match="0 to 1, got \\[2\\]"):
        replay.append(torch.tensor([2]), {"r": torch.zeros(1)})
    replay.append(torch.tensor([1]), {"r": torch.zeros(1)})
    with pytest.raises(metarl.UsageError, match="task 0 has no rows"):
        replay.sample(torch.tensor([1, 0]), 3, torch.Generator())
