"""The common part of tables, and the tables that scikit-learn ships."""

import sys

import numpy as np
import pytest
import sklearn.datasets
import torch

from metarl import UsageError
from metarl.fewshot.data import open_data
from metarl.fewshot.data.tables import FavourablePool, Table, held_out_rows, held_out_values, standardisation
from metarl.fewshot.episodes import EpisodeShape
from metarl.fewshot.preprocessing import Preprocessing


class TestBundled:
    @pytest.mark.parametrize(
        ("name", "rows", "features", "ways"), [("iris", 150, 4, 3), ("wine", 178, 13, 3), ("breast-cancer", 569, 30, 2)]
    )
    def test_rows_are_split_by_class_and_standardised_by_training(
        self, name: str, rows: int, features: int, ways: int
    ) -> None:
        data = open_data(name)
        assert isinstance(data, Table)
        train, test = (data.pools[split] for split in ("train", "test"))
        assert len(train.inputs) + len(test.inputs) == rows
        np.testing.assert_allclose(test.counts / (train.counts + test.counts), 0.3, atol=0.02)
        x = data.preprocessing(train.inputs)
        assert x.shape == (len(train.inputs), features)
        torch.testing.assert_close(x.mean(0), torch.zeros(features), atol=1e-5, rtol=0)
        torch.testing.assert_close(x.std(0, correction=0), torch.ones(features), atol=1e-4, rtol=0)
        assert data.default_shape() == EpisodeShape(ways, 5, 9 if name == "wine" else 10 if name == "iris" else 15)

    def test_every_row_is_in_one_pool_with_its_label(self) -> None:
        data, bunch = open_data("wine"), sklearn.datasets.load_wine()
        assert isinstance(data, Table)
        pools = data.pools.values()
        together = torch.cat([torch.cat([p.inputs, p.classes.repeat_interleave(p.counts)[:, None]], 1) for p in pools])
        published = np.concatenate([bunch.data, bunch.target[:, None]], 1).astype(np.float32)
        assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, published.tolist()))

    def test_digits_are_split_by_class(self) -> None:
        data = open_data("digits")
        assert isinstance(data, Table)
        assert data.pools["train"].classes.tolist() == [0, 1, 2, 3, 4]
        assert data.pools["test"].classes.tolist() == [5, 6, 7, 8, 9]
        query = data.episodes("test", 3, data.default_shape(), seed=0).query
        assert query.x.shape == (3, 75, 64)
        assert (float(query.x.min()), float(query.x.max())) == (0, 1)

    def test_labels_are_permuted_without_groups(self) -> None:
        """The tumours' size tells malignant from benign: in about half of the episodes label 1 is the larger."""
        query = open_data("breast-cancer").episodes("train", 100, EpisodeShape(2, 1, 20), seed=0).query
        size = query.x[..., 0]
        larger = (size * query.y).sum(1) > (size * (1 - query.y)).sum(1)
        assert 30 < int(larger.sum()) < 70

    def test_without_scikit_learn_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
        with pytest.raises(UsageError, match=r"pip install 'metarl-kit\[tables\]'"):
            open_data("wine")


def test_standardising_leaves_constant_columns_finite() -> None:
    rows = torch.tensor([[1.0, 7.0], [3.0, 7.0]])
    assert standardisation(rows)(rows).tolist() == [[-1.0, 0.0], [1.0, 0.0]]


def test_held_out_rows_are_of_every_class_and_a_function_of_the_name() -> None:
    labels = torch.tensor([0] * 4 + [1] * 100)
    held_out = held_out_rows(labels, "a")
    assert labels[held_out].bincount().tolist() == [2, 30]
    assert torch.equal(held_out, held_out_rows(labels, "a"))
    assert not torch.equal(held_out, held_out_rows(labels, "b"))


def test_every_episode_of_a_favourable_pool_has_the_class_as_label_1() -> None:
    labels = torch.arange(5).repeat_interleave(4)
    generator = torch.Generator().manual_seed(0)
    for favourable in (0, 3, 4):
        pool = FavourablePool(labels[:, None].float(), labels, favourable=favourable)
        for ways in (2, 3, 5):
            episodes = pool.episodes(50, EpisodeShape(ways, 1, 2), Preprocessing((1,)), generator)
            for samples in (episodes.support, episodes.query):
                for x, y in zip(samples.x[..., 0], samples.y, strict=True):
                    classes = x[y.argsort(stable=True)].unflatten(0, (ways, -1))[:, 0].tolist()
                    assert classes[1] == favourable
                    others = [classes[0], *classes[2:]]
                    assert others == sorted(others)
                    assert len(set(classes)) == ways


def test_all_rows_of_an_owner_are_on_one_side() -> None:
    owners = torch.arange(40).repeat_interleave(5)
    labels = owners % 2
    held_out = held_out_values(labels, owners, "the table")
    assert 0.25 < float(held_out.float().mean()) < 0.4
    assert not set(owners[held_out].tolist()) & set(owners[~held_out].tolist())
    with pytest.raises(UsageError, match="the table: its 2 values cannot be split"):
        held_out_values(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 1]), "the table")
