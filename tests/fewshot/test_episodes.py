"""Episodes: what is drawn, that it is drawn evenly and the same everywhere, and what is refused."""

import pytest
import torch

from metarl import UsageError
from metarl.fewshot.episodes import FEW, EpisodeShape, Pool, distinct, episode_generator
from metarl.fewshot.preprocessing import Preprocessing

IDENTITY = Preprocessing((2,))


def numbered_pool(counts: list[int]) -> Pool:
    """Rows (class, number of the example), classes in a mixed order."""
    rows = torch.tensor([[label, number] for label, count in enumerate(counts) for number in range(count)])
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    return Pool(rows[order].float(), rows[order, 0], groups=rows[order, 1] % 2)


def test_an_episode_has_the_examples_it_says():
    pool, shape = numbered_pool([7, 9, 8, 7, 20]), EpisodeShape(ways=3, shots=2, queries=4)
    episodes = pool.episodes(50, shape, IDENTITY, episode_generator(0))
    assert episodes.support.x.shape == (50, 6, 2)
    assert episodes.query.x.shape == (50, 12, 2)
    for task in range(50):
        behind = {}
        seen = set()
        for samples, per_class in ((episodes.support, 2), (episodes.query, 4)):
            assert samples.y[task].bincount().tolist() == [per_class] * 3
            assert samples.groups is not None
            assert torch.equal(samples.groups[task], samples.x[task, :, 1].long() % 2)
            for row, label in zip(samples.x[task], samples.y[task].tolist(), strict=True):
                behind.setdefault(label, set()).add(int(row[0]))
                seen.add(tuple(row.tolist()))
        assert all(len(classes) == 1 for classes in behind.values())  # one class behind each label
        assert len(set.union(*behind.values())) == 3  # and no class twice
        assert len(seen) == 18  # and no example twice


def test_classes_labels_examples_and_positions_are_drawn_evenly():
    pool, shape = numbered_pool([4, 4, 4, 8]), EpisodeShape(ways=2, shots=1, queries=1)
    episodes = pool.episodes(6000, shape, IDENTITY, episode_generator(1))
    support = episodes.support
    pairs = torch.bincount((support.x[..., 0] * 2 + support.y).flatten().long(), minlength=8)
    assert (pairs / 12000 - 1 / 8).abs().max() < 0.01  # four classes, each as often label 0 as label 1
    last = support.x[support.x[..., 0] == 3][:, 1].long()
    assert (last.bincount() / len(last) - 1 / 8).abs().max() < 0.02
    assert abs(support.y[:, 0].float().mean() - 0.5) < 0.02  # the first is no more often class 0


def test_a_seed_gives_the_same_episodes_and_another_seed_others(images, shape):
    first, again, other = (images.episodes("train", 5, shape, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.support.x, again.support.x)
    assert torch.equal(first.query.y, again.query.y)
    assert not torch.equal(first.support.x, other.support.x)
    before = torch.random.get_rng_state()
    images.episodes("train", 5, shape, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_very_numbers_of_a_seed_are_pinned():
    pool = numbered_pool([9] * 6)
    drawn = pool.draw(1, EpisodeShape(ways=3, shots=1, queries=1), episode_generator("pinned"))
    assert drawn.tolist() == [[[44, 37], [47, 48], [13, 9]]]


def test_preprocessing_is_applied():
    pool = Pool(torch.full((6, 1, 16, 16), 51, dtype=torch.uint8), torch.arange(2).repeat_interleave(3))
    inverted = Preprocessing((1, 16, 16), scale=(-1.0,), shift=(1.0,))
    episodes = pool.episodes(1, EpisodeShape(2, 1, 1), inverted, episode_generator(0))
    torch.testing.assert_close(episodes.query.x, torch.full((1, 2, 1, 16, 16), 0.8))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (EpisodeShape(13, 1, 1), "13 ways asked for, but toy images has 12 classes"),
        (EpisodeShape(2, 6, 5), "need 11 examples of each class, but toy images has a class of 10"),
    ],
)
def test_too_little_data_is_refused(images, shape: EpisodeShape, message: str):
    with pytest.raises(UsageError, match=message):
        images.episodes("train", 1, shape, seed=0)


def test_what_is_no_labelled_data_is_refused():
    rows = torch.zeros(4, 2)
    with pytest.raises(UsageError, match="labels must be integers, got float32"):
        Pool(rows, torch.zeros(4))
    with pytest.raises(UsageError, match="4 examples but 3 labels"):
        Pool(rows, torch.zeros(3, dtype=torch.int64))
    rows[2, 1] = torch.nan
    with pytest.raises(UsageError, match=r"the data holds NaN.* first in example 3, its number 2"):
        Pool(rows, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(UsageError, match="ways must be a whole number"):
        EpisodeShape(ways=0)


def test_the_numbers_drawn_do_not_depend_on_the_rows() -> None:
    """Two generators that have given as many numbers are in one state."""
    states = []
    for rows in (3_000, 300_000):
        pool, generator = Pool(torch.zeros(rows, 1), torch.arange(rows) % 2), torch.Generator().manual_seed(0)
        drawn = pool.draw(8, EpisodeShape(2, 5, 15), generator)
        assert all(len(set(row)) == 20 for row in drawn.flatten(0, 1).tolist())
        states.append(generator.get_state())
    assert torch.equal(*states)


def test_many_are_drawn_without_repetition_and_evenly() -> None:
    number, count = 40, FEW + 1
    counts = torch.full((3000, 2), count)
    drawn = distinct(counts, number, count, torch.Generator().manual_seed(0))
    assert drawn.shape == (3000, 2, number)
    assert bool((drawn.sort(-1).values.diff(dim=-1) > 0).all())
    assert (int(drawn.min()), int(drawn.max())) == (0, FEW)
    # Each number as often, at each place: χ² of 16 bins within its 99.99 % range.
    for values in (drawn.flatten(), drawn[..., 0].flatten(), drawn[..., -1].flatten()):
        bins = (values * 16 // count).bincount().double()
        sizes = torch.tensor([((torch.arange(count) * 16 // count) == b).sum() for b in range(16)]) / count
        expected = sizes * len(values)
        assert float(((bins - expected) ** 2 / expected).sum()) < 44.3
    few = distinct(torch.tensor([[FEW + 9, 12]]), 12, FEW + 9, torch.Generator().manual_seed(0))
    assert sorted(few[0, 1].tolist()) == list(range(12))  # all there are
