"""The tables that scikit-learn ships, and a CSV file of the user's own."""

import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch

import metarl.fewshot
from metarl import UsageError
from metarl.fewshot.data import open_data
from metarl.fewshot.data.csv_table import CsvTable
from metarl.fewshot.data.tables import OrderedPool, Table, held_out_rows, standardisation
from metarl.fewshot.episodes import EpisodeShape
from metarl.fewshot.preprocessing import Preprocessing
from metarl.scripts.cli import main

CSV = """age,income,city,sex,outcome
31,1000.5,Rome,f,granted
45,2000,Paris,m,denied
22,1500,Rome,m,granted
60,800,Oslo,f,denied
39,1700,Paris,m,granted
51,900,Rome,f,denied
28,1250,Oslo,f,granted
33,1100,Rome,m,denied
47,1900,Paris,f,granted
36,700,Oslo,m,denied
"""


def write(folder: Path, text: str = CSV) -> str:
    file = folder / "people.csv"
    file.write_text(text)
    return str(file)


def read(folder: Path, text: str = CSV, **options: object) -> CsvTable:
    data = open_data("csv", {"csv": write(folder, text), "label": "outcome", **options})
    assert isinstance(data, CsvTable)
    return data


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


def test_an_ordered_pool_keeps_the_order_of_its_classes() -> None:
    labels = torch.arange(5).repeat_interleave(4)
    pool = OrderedPool(labels[:, None].float(), labels)
    generator = torch.Generator().manual_seed(0)
    whole = pool.episodes(20, EpisodeShape(5, 1, 2), Preprocessing((1,)), generator)
    assert torch.equal(whole.query.x[..., 0].long(), whole.query.y)
    some = pool.episodes(20, EpisodeShape(3, 1, 2), Preprocessing((1,)), generator)
    for x, y in zip(some.support.x[..., 0], some.support.y, strict=True):
        assert x[y.argsort()].tolist() == sorted(x.tolist())


class TestCsv:
    def test_columns_become_features(self, tmp_path: Path) -> None:
        data = read(tmp_path, group="sex")
        assert [(f.name, f.words) for f in data.features] == [
            ("age", None),
            ("income", None),
            ("city", ("Oslo", "Paris", "Rome")),
        ]
        assert (data.classes, data.groups) == (["denied", "granted"], ["f", "m"])
        rows = data.encode(write(tmp_path))
        assert rows[0].tolist() == [31.0, 1000.5, 0.0, 0.0, 1.0]
        assert rows[1].tolist() == [45.0, 2000.0, 0.0, 1.0, 0.0]
        train = data.preprocessing(data.pools["train"].inputs)
        torch.testing.assert_close(train[:, :2].mean(0), torch.zeros(2), atol=1e-6, rtol=0)
        torch.testing.assert_close(train[:, :2].std(0, correction=0), torch.ones(2))
        assert set(train[:, 2:].flatten().tolist()) == {0.0, 1.0}

    def test_groups_and_labels_stay_with_their_rows(self, tmp_path: Path) -> None:
        data = read(tmp_path, group="sex")
        ages = {31: "f1", 45: "m0", 22: "m1", 60: "f0", 39: "m1", 51: "f0", 28: "f1", 33: "m0", 47: "f1", 36: "m0"}
        seen = set()
        for split in ("train", "test"):
            pool = data.pools[split]
            assert pool.groups is not None
            labels = pool.classes.repeat_interleave(pool.counts)
            for age, label, group in zip(pool.inputs[:, 0].tolist(), labels, pool.groups, strict=True):
                assert ages[int(age)] == f"{'fm'[group]}{label}"
                seen.add(int(age))
        assert seen == set(ages)

    def test_with_groups_label_1_is_the_later_class_in_every_episode(self, tmp_path: Path) -> None:
        data = read(tmp_path, group="sex")
        granted = {31.0, 22.0, 39.0, 28.0, 47.0}
        batch = data.episodes("train", 10, EpisodeShape(2, 1, 2), seed=0)
        age = batch.query.x[..., 0]
        mean, scale = data.preprocessing.shift[0], data.preprocessing.scale[0]
        for values, y in zip(((age - mean) / scale).round(), batch.query.y, strict=True):
            assert [value in granted for value in values.tolist()] == [bool(label) for label in y]

    def test_codes_are_words_if_the_user_says_so(self, tmp_path: Path) -> None:
        data = read(tmp_path, categorical=("age",), ignore=("city", "sex"))
        assert data.features[0].words == tuple(sorted(["22", "28", "31", "33", "36", "39", "45", "47", "51", "60"]))
        assert [feature.name for feature in data.features] == ["age", "income"]

    def test_splitting_by_classes(self, tmp_path: Path) -> None:
        text = "x,outcome\n" + "".join(f"{i},{i % 10}\n" for i in range(60))
        data = read(tmp_path, text, split_by="classes")
        train, test = (set(data.pools[split].classes.tolist()) for split in ("train", "test"))
        assert (len(train), len(test), train & test) == (7, 3, set())
        assert data.classes[9] == "9"
        with pytest.raises(UsageError, match="2 classes, too few to split by"):
            read(tmp_path, split_by="classes")

    def test_quotes_spaces_and_a_byte_order_mark(self, tmp_path: Path) -> None:
        rows = "".join(f'{i}, "a, b" ,{i % 2}\n' for i in range(8)).replace(', "', ',"').replace('" ,', '",')
        data = read(tmp_path, "\ufeffx, word ,outcome\n" + rows + "\n")
        assert [(f.name, f.words) for f in data.features] == [("x", None), ("word", ("a, b",))]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (("Rome,f,granted", "Rome,f,"), "line 2: column 'outcome' is empty"),
            (("45,", ","), "line 3: column 'age' is empty"),
            (("45,", "NaN,"), "line 3: column 'age' is NaN"),
            (("45,", "inf,"), "line 3: column 'age' is inf"),
            (("45,", "many,"), "line 3: column 'age' has numbers, but here 'many'"),
            (("45,2000,", "45,"), "line 3: 4 cells, but 5 columns are named"),
            (("income", "age"), "names two columns 'age'"),
            (("denied", "granted"), "holds 'granted' alone; want two classes or more"),
            (("31,1000.5,Rome,f,granted", "31,1000.5,Rome,f,unknown"), "class 'unknown' has 1 row"),
            (("granted", "1.5"), "label column 'outcome' holds 1.5; want words or whole numbers"),
            (("Rome", '"Rome'), "is no CSV file"),
        ],
    )
    def test_what_is_wrong_with_the_file_is_said(self, tmp_path: Path, change: tuple[str, str], message: str) -> None:
        with pytest.raises(UsageError, match=message) as raised:
            read(tmp_path, CSV.replace(*change))
        assert "\n" not in str(raised.value)
        assert "people.csv" in str(raised.value)

    def test_what_is_wrong_with_the_options_is_said(self, tmp_path: Path) -> None:
        for options, message in (
            ({"label": "result"}, "has no column 'result'; it has age, income"),
            ({"label": "outcom"}, "has no column 'outcom'; did you mean outcome"),
            ({"group": "gender"}, "has no column 'gender'"),
            ({"group": "outcome"}, "cannot be both label and group"),
            ({"ignore": ("age", "income", "city", "sex")}, "has no columns besides the label"),
        ):
            with pytest.raises(UsageError, match=message):
                read(tmp_path, **options)
        with pytest.raises(UsageError, match="--csv FILE --label COLUMN"):
            open_data("csv", {"label": "outcome"})
        with pytest.raises(UsageError, match=r"there is no file .*absent\.csv"):
            open_data("csv", {"csv": str(tmp_path / "absent.csv"), "label": "outcome"})

    def test_files_that_are_no_tables(self, tmp_path: Path) -> None:
        for text in ("", "age,outcome\n"):
            with pytest.raises(UsageError, match="has no rows"):
                read(tmp_path, text)
        file = tmp_path / "binary.csv"
        file.write_bytes(b"\x89PNG\xff\xfe\n1,2\n")
        with pytest.raises(UsageError, match="not text in UTF-8"):
            open_data("csv", {"csv": str(file), "label": "outcome"})
        names = "".join(f"n{i},{i % 2}\n" for i in range(200))
        with pytest.raises(UsageError, match=r"column 'name' has 200 different words.*--ignore name"):
            read(tmp_path, "name,outcome\n" + names)

    def test_too_few_rows_for_the_episode(self, tmp_path: Path) -> None:
        data = read(tmp_path)
        assert data.default_shape() == EpisodeShape(2, 1, 1)
        with pytest.raises(UsageError, match="a class of 2"):
            data.episodes("test", 1, EpisodeShape(2, 5, 15), seed=0)

    def test_further_rows_are_read_with_the_words_of_the_first(self, tmp_path: Path) -> None:
        data = read(tmp_path, group="sex")
        more = tmp_path / "more.csv"
        more.write_text("city,age,income\nOslo,20,100\n")
        assert data.encode(more).tolist() == [[20.0, 100.0, 1.0, 0.0, 0.0]]
        for text, message in (
            ("city,age,income\nBonn,20,100\n", "has the word 'Bonn', unknown from training"),
            ("city,age,income\nOslo,old,100\n", "column 'age' has words, but numbers are needed"),
            ("city,age\nOslo,20\n", "has no column 'income'"),
        ):
            more.write_text(text)
            with pytest.raises(UsageError, match=message):
                data.encode(more)

    def test_a_run_classifies_further_rows(self, tmp_path: Path) -> None:
        path = tmp_path / "run"
        arguments = ["--csv", write(tmp_path), "--label", "outcome", "--group", "sex", "--iterations", "2"]
        command = ["fewshot", "protonet", "--data", "csv", *arguments, "--episodes", "5", "--output", str(path)]
        assert main(command) == 0
        rows = read(tmp_path, group="sex").encode(write(tmp_path))
        learner = metarl.fewshot.load(path)
        probabilities = learner.predict(rows[:4], [1, 0, 1, 0], rows[4:])
        assert probabilities.shape == (6, 2)
        torch.testing.assert_close(probabilities.sum(1), torch.ones(6))
