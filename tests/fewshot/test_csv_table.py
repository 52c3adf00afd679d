"""A table of the user's own: how its columns are read, what is refused, and how it is split."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import metarl.fewshot
from metarl import UsageError
from metarl.fewshot.data import open_data
from metarl.fewshot.data.csv_table import CsvTable
from metarl.fewshot.data.table_file import read_table
from metarl.fewshot.episodes import EpisodeShape
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
FAIR = {"group": "sex", "favourable": "granted"}


def write(folder: Path, text: str = CSV) -> str:
    file = folder / "people.csv"
    file.write_text(text)
    return str(file)


def read(folder: Path, text: str = CSV, **options: object) -> CsvTable:
    data = open_data("csv", {"csv": write(folder, text), "label": "outcome", **options})
    assert isinstance(data, CsvTable)
    return data


def column(*cells: object, name: str = "x", delimiter: str = ",") -> str:
    """A table of the column `x`, a column of noise and a label that alternates."""
    rows = [[cell, round(number * 0.37 % 1, 3), "ab"[number % 2]] for number, cell in enumerate(cells)]
    lines = [[name, "noise", "outcome"], *rows]
    return "\n".join(delimiter.join(str(cell) for cell in line) for line in lines) + "\n"


def encoded(data: CsvTable, folder: Path) -> dict[str, list[float]]:
    """Every input of the network by its label."""
    labels = [label for feature in data.features for label in feature.labels]
    return dict(zip(labels, data.encode(folder / "people.csv").T.tolist(), strict=True))


class TestColumns:
    def test_numbers_and_words(self, tmp_path: Path) -> None:
        data = read(tmp_path, **FAIR)
        inputs = encoded(data, tmp_path)
        assert list(inputs) == ["age", "income", "city = Oslo", "city = Paris", "city = Rome", "city = (other)"]
        assert [row[0] for row in inputs.values()] == [31.0, 1000.5, 0.0, 0.0, 1.0, 0.0]
        assert (data.classes, data.groups) == (["denied", "granted"], ["f", "m"])
        train = data.preprocessing(data.pools["train"].inputs)
        torch.testing.assert_close(train[:, :2].mean(0), torch.zeros(2), atol=1e-6, rtol=0)
        torch.testing.assert_close(train[:, :2].std(0, correction=0), torch.ones(2))
        assert set(train[:, 2:].flatten().tolist()) == {0.0, 1.0}

    @pytest.mark.parametrize(
        ("cells", "delimiter", "values"),
        [
            (["1.5", "-2", ".5", "1e3", "+4.", "7"] * 2, ",", [1.5, -2, 0.5, 1000, 4, 7]),
            (['"1,5"', '"-2"', '"0,25"', '"1000"', '"4,0"', '"7"'] * 2, ",", [1.5, -2, 0.25, 1000, 4, 7]),
            (["1,5", "-2", "0,25", "1000", "4,0", "7"] * 2, ";", [1.5, -2, 0.25, 1000, 4, 7]),
            (['"1,234,567"', '"950"', '"20,001.5"', '"7"'] * 3, ",", [1234567, 950, 20001.5, 7]),
            (["1.234.567", "950", "20.001,5", "7"] * 3, ";", [1234567, 950, 20001.5, 7]),
            (["1 234 567", "950", "20 001.5", "7"] * 3, ",", [1234567, 950, 20001.5, 7]),
            (["1\u202f234", "950", "20\u202f001,5", "7"] * 3, "\t", [1234, 950, 20001.5, 7]),
            (["1'234", "950", "20'001", "7"] * 3, "|", [1234, 950, 20001, 7]),
        ],
    )
    def test_every_notation_of_numbers(
        self, tmp_path: Path, cells: list[str], delimiter: str, values: list[float]
    ) -> None:
        data = read(tmp_path, column(*cells, delimiter=delimiter))
        expected = np.float32(values * (len(cells) // len(values)))
        np.testing.assert_array_equal(np.float32(encoded(data, tmp_path)["x"]), expected)

    def test_a_number_that_can_be_read_in_two_ways_is_the_users_to_decide(self, tmp_path: Path) -> None:
        text = column(*(["20,037", "950"] * 6), delimiter=";").replace("0.", "0,")
        with pytest.raises(UsageError, match=r"'x' holds 20,037, which is 20\.037 or 20037: say which with --decimal"):
            read(tmp_path, text, ignore=("noise",))
        for decimal, value in ((".", 20037.0), (",", 20.037)):
            data = read(tmp_path, text, decimal=decimal, ignore=("noise",))
            assert encoded(data, tmp_path)["x"][0] == pytest.approx(value)

    def test_dates_are_days(self, tmp_path: Path) -> None:
        cells = ["2024-01-31", "2024-02-01T12:00", "2024-02-01 12:00:00+02:00", "1969-12-31"] * 3
        data = read(tmp_path, column(*cells))
        days = np.array(encoded(data, tmp_path)["x"][:4])
        times = [
            np.datetime64(text, "s").astype(int) / 86400 for text in ("2024-01-31", "2024-02-01T12", "2024-02-01T10")
        ]
        np.testing.assert_allclose(days, [*times, -1.0], rtol=1e-6)
        assert "x: dates from 1969-12-31 to 2024-02-01" in data.summary()[0]
        for cell in ("01/02/2024", "1.2.24", "2024/02/01"):
            with pytest.raises(UsageError, match=r"of which day and month may be swapped: write them as 2024-12-31"):
                read(tmp_path, column(*[cell] * 12))
        with pytest.raises(UsageError, match=r"line 3: column 'x' has dates, but here '2024-02-30'"):
            read(tmp_path, column("2024-02-01", "2024-02-30", *["2024-02-01"] * 8))

    def test_missing_numbers_are_replaced_by_the_median_of_the_training_rows(self, tmp_path: Path) -> None:
        cells = ["" if i % 5 == 0 else "NA" if i % 5 == 1 else str(i * 1.5) for i in range(30)]
        data = read(tmp_path, column(*cells))
        inputs = encoded(data, tmp_path)
        missing = np.array([i % 5 < 2 for i in range(30)])
        np.testing.assert_array_equal(np.array(inputs["x is missing"]), missing)
        train = data.pools["train"].inputs
        present = train[train[:, 1] == 0, 0]
        assert set(np.array(inputs["x"])[missing]) == {float(np.median(present))}
        assert "12 missing (the median stands in)" in data.summary()[0]
        scaled = data.preprocessing(train)
        assert set(scaled[:, 1].tolist()) == {0.0, 1.0}
        with pytest.raises(UsageError, match=r"line 3: column 'x' has numbers, but here 'NA'"):
            read(tmp_path, column(*cells), missing=("",))

    def test_missing_words_and_words_of_other_rows_are_values_of_their_own(self, tmp_path: Path) -> None:
        data = read(tmp_path, column(*["yes", "no", "NA"] * 8))
        inputs = encoded(data, tmp_path)
        assert [name for name in inputs if name.startswith("x")] == [
            "x = (missing)",
            "x = no",
            "x = yes",
            "x = (other)",
        ]
        assert inputs["x = (missing)"][:3] == [0, 0, 1]
        assert sum(inputs["x = (other)"]) == 0
        write(tmp_path, column("maybe", "no", *["yes"] * 4))
        assert encoded(data, tmp_path)["x = (other)"] == [1, 0, 0, 0, 0, 0]

    def test_codes_are_words_if_the_user_says_so(self, tmp_path: Path) -> None:
        data = read(tmp_path, categorical=("age",), ignore=("city", "sex"))
        assert [feature.role for feature in data.features] == ["word", "number"]
        assert "city: ignored" in data.summary()

    @pytest.mark.parametrize(
        ("name", "cells", "reason"),
        [
            ("x", [str(i) for i in range(30)], "it numbers the rows"),
            ("x", [f"{i}.0" for i in range(5, 35)], "it numbers the rows"),
            (
                "patient_id",
                [str((i * 7) % 11) for i in range(30)],
                "an identifier, of 11 different; --split-by patient_id",
            ),
            ("x", [f"P{i // 2:03d}" for i in range(60)], "an identifier, of 30 different; --split-by x"),
            ("x", [f"Mr {chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(60)], "it identifies rows"),
            ("x", ["NA"] * 30, "all its cells are missing"),
        ],
    )
    def test_columns_that_name_their_row_are_left_out_and_named(
        self, tmp_path: Path, name: str, cells: list[str], reason: str
    ) -> None:
        data = read(tmp_path, column(*cells, name=name))
        assert [feature.name for feature in data.features] == ["noise"]
        assert reason in next(line for line in data.summary() if line.startswith(f"{name}: left out"))
        if "numbers" in reason:
            assert read(tmp_path, column(*cells, name=name), numeric=(name,)).features[0].name == name

    def test_what_looks_like_an_identifier_but_is_none(self, tmp_path: Path) -> None:
        for cells in (["0-9", "10-19", "20-29"] * 8, ["humid", "dry"] * 12, [str(i * i) for i in range(24)]):
            assert [f.name for f in read(tmp_path, column(*cells)).features] == ["x", "noise"]

    def test_a_column_without_a_name_is_numbered(self, tmp_path: Path) -> None:
        data = read(tmp_path, column(*range(20), name=""))
        assert data.summary()[1] == "column 1: left out, as it numbers the rows"


class TestLabels:
    def test_equal_numbers_are_one_label(self, tmp_path: Path) -> None:
        rows = "".join(f"{i * 0.7},{('1', '1.0', '2', '02')[i % 4]}\n" for i in range(40))
        assert read(tmp_path, "x,outcome\n" + rows).classes == ["1", "2"]

    def test_labels_that_differ_in_case_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="column 'outcome' has 'Granted' and 'granted': write them alike"):
            read(tmp_path, CSV.replace("31,1000.5,Rome,f,granted", "31,1000.5,Rome,f,Granted"))

    def test_groups_and_labels_stay_with_their_rows(self, tmp_path: Path) -> None:
        data = read(tmp_path, **FAIR)
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

    @pytest.mark.parametrize("favourable", ["granted", "denied"])
    def test_label_1_is_the_favourable_class_in_every_episode(self, tmp_path: Path, favourable: str) -> None:
        data = read(tmp_path, group="sex", favourable=favourable)
        granted = {31.0, 22.0, 39.0, 28.0, 47.0}
        batch = data.episodes("train", 10, EpisodeShape(2, 1, 2), seed=0)
        shift, scale = data.preprocessing.shift[0], data.preprocessing.scale[0]
        for values, y in zip(((batch.query.x[..., 0] - shift) / scale).round(), batch.query.y, strict=True):
            favoured = [(value in granted) == (favourable == "granted") for value in values.tolist()]
            assert favoured == [bool(label) for label in y]
        assert data.facts()["favourable"] == favourable

    def test_a_group_needs_the_favourable_label(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="--group COLUMN and --favourable LABEL go together"):
            read(tmp_path, group="sex")
        with pytest.raises(UsageError, match="--favourable approved: 'outcome' has denied, granted"):
            read(tmp_path, group="sex", favourable="approved")


class TestSplits:
    def test_by_classes(self, tmp_path: Path) -> None:
        text = "x,outcome\n" + "".join(f"{i * 0.5},{i % 10}\n" for i in range(60))
        data = read(tmp_path, text, split_by="classes")
        train, test = (set(data.pools[split].classes.tolist()) for split in ("train", "test"))
        assert (len(train), len(test), train & test) == (7, 3, set())
        assert data.classes[9] == "9"
        with pytest.raises(UsageError, match="2 classes, too few to split by"):
            read(tmp_path, split_by="classes")

    def test_by_a_column_each_of_whose_values_is_on_one_side(self, tmp_path: Path) -> None:
        """Each patient has a constant of its own in `x`, which tells the patients of a split apart."""
        rows = "".join(f"P{i // 5},{i // 5 + 0.5},{'ab'[i // 5 % 2]}\n" for i in range(150))
        data = read(tmp_path, "patient,x,outcome\n" + rows, split_by="patient")
        assert [feature.name for feature in data.features] == ["x"]
        train, test = (set(data.pools[split].inputs[:, 0].tolist()) for split in ("train", "test"))
        assert (len(train) + len(test), train & test) == (30, set())
        assert data.facts() == {"split_by": "patient"}
        with pytest.raises(UsageError, match="has no column 'person'"):
            read(tmp_path, "patient,x,outcome\n" + rows, split_by="person")


class TestFiles:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (("Rome,f,granted", "Rome,f,"), "line 2: column 'outcome' is empty"),
            (("Rome,f,granted", "Rome,f,NA"), r"line 2: column 'outcome' is missing \(NA\)"),
            (("45,", "inf,"), "line 3: column 'age' has numbers, but here 'inf'"),
            (("45,", "1e39,"), "line 3: column 'age' is 1e39, too large for float32"),
            (("45,", "many,"), "line 3: column 'age' has numbers, but here 'many'"),
            (("45,2000,", "45,"), "line 3: 4 cells, but 5 columns are named"),
            (("45,2000,", "45,2000,1,"), "line 3: 6 cells, but 5 columns are named"),
            (("income", "age"), "names two columns 'age'"),
            (("denied", "granted"), "holds 'granted' alone; want two classes or more"),
            (("31,1000.5,Rome,f,granted", "31,1000.5,Rome,f,unknown"), "class 'unknown' has 1 row"),
            (("granted", "1.5"), "label column 'outcome' holds 1.5; want words or whole numbers"),
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
            ({"numeric": ("wage",)}, "has no column 'wage'"),
            ({"numeric": ("city",)}, "column 'city' has no number, but --numeric names it"),
            ({"group": "gender", "favourable": "granted"}, "has no column 'gender'"),
            ({"group": "outcome", "favourable": "granted"}, "cannot be both label and group"),
            ({"ignore": ("age", "income", "city", "sex")}, "has no columns besides the label"),
            ({"delimiter": "::"}, "delimiter must be one character"),
            ({"encoding": "klingon"}, "there is no encoding 'klingon'"),
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
        with pytest.raises(UsageError, match="is no CSV file"):
            read(tmp_path, 'x,outcome\n"1,a\n')
        file = tmp_path / "binary.csv"
        for content in (b"\x89PNG\xff\xfe\n1,2\n", b"x,outcome\n1,\x00\n"):
            file.write_bytes(content)
            with pytest.raises(UsageError, match="is no CSV file"):
                open_data("csv", {"csv": str(file), "label": "outcome"})

    def test_texts_are_refused(self, tmp_path: Path) -> None:
        cells = [f"text {chr(97 + i % 26)}{chr(97 + i // 2 % 26)} of {i // 2 % 7}" for i in range(400)]
        with pytest.raises(
            UsageError, match=r"column 'x' holds free text, such as 'text aa .* --text x, or .*--ignore x"
        ):
            read(tmp_path, column(*cells))

    def test_quotes_spaces_and_a_byte_order_mark(self, tmp_path: Path) -> None:
        rows = "".join(f'{i * i}, "a, b" ,{i % 2}\n' for i in range(8)).replace(', "', ',"').replace('" ,', '",')
        data = read(tmp_path, "\ufeffx, word ,outcome\n" + rows + "\n")
        assert [label for feature in data.features for label in feature.labels][:2] == ["x", "word = a, b"]

    def test_other_encodings_are_named(self, tmp_path: Path) -> None:
        file = tmp_path / "people.csv"
        file.write_bytes(CSV.replace("Oslo", "Zürich").encode("cp1252"))
        options = {"csv": str(file), "label": "outcome"}
        with pytest.raises(UsageError, match="no CSV file in UTF-8; name its encoding with --encoding"):
            open_data("csv", options)
        data = open_data("csv", options | {"encoding": "cp1252"})
        assert isinstance(data, CsvTable)
        assert "city = Zürich" in data.features[2].labels

    def test_parquet_is_read_as_the_same_table(self, tmp_path: Path) -> None:
        data, file = read(tmp_path), tmp_path / "people.parquet"
        pl.read_csv(tmp_path / "people.csv").with_columns(pl.col("age").cast(pl.Int16)).write_parquet(file)
        other = open_data("csv", {"csv": str(file), "label": "outcome"})
        assert isinstance(other, CsvTable)
        assert other.fingerprint() == data.fingerprint()
        file.write_bytes(file.read_bytes()[:-20])
        with pytest.raises(UsageError, match="is no Parquet file"):
            open_data("csv", {"csv": str(file), "label": "outcome"})

    def test_too_few_rows_for_the_episode(self, tmp_path: Path) -> None:
        data = read(tmp_path)
        assert data.default_shape() == EpisodeShape(2, 1, 1)
        with pytest.raises(UsageError, match="a class of 2"):
            data.episodes("test", 1, EpisodeShape(2, 5, 15), seed=0)

    def test_further_rows_are_read_as_the_first(self, tmp_path: Path) -> None:
        data = read(tmp_path, **FAIR)
        more = tmp_path / "more.csv"
        more.write_text("city,age,income\nOslo,20,100\nBonn,21,100\n")
        assert data.encode(more).tolist() == [[20.0, 100.0, 1.0, 0.0, 0.0, 0.0], [21.0, 100.0, 0.0, 0.0, 0.0, 1.0]]
        for text, message in (
            ("city,age,income\nOslo,old,100\n", "line 2: column 'age' has numbers, but here 'old'"),
            ("city,age\nOslo,20\n", "has no column 'income'"),
        ):
            more.write_text(text)
            with pytest.raises(UsageError, match=message):
                data.encode(more)


class TestRuns:
    def train(self, folder: Path, *more: str) -> Path:
        path = folder / "run"
        arguments = ["--csv", write(folder), "--label", "outcome", *more, "--iterations", "2", "--output", str(path)]
        assert main(["fewshot", "protonet", "--data", "csv", *arguments, "--episodes", "5"]) == 0
        return path

    def test_a_run_says_how_the_table_was_read(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = self.train(tmp_path, "--group", "sex", "--favourable", "granted")
        assert "age: numbers from 22 to 60" in capsys.readouterr().err
        assert "age: numbers from 22 to 60" in (path / "config.yaml").read_text()
        result = json.loads((path / "evaluation.json").read_text())
        assert (result["favourable"], result["groups"], result["split_by"]) == ("granted", ["f", "m"], "rows")

    def test_a_run_classifies_further_rows(self, tmp_path: Path) -> None:
        learner = metarl.fewshot.load(self.train(tmp_path))
        rows = read(tmp_path).encode(write(tmp_path))
        probabilities = learner.predict(rows[:4], [1, 0, 1, 0], rows[4:])
        assert probabilities.shape == (6, 2)
        torch.testing.assert_close(probabilities.sum(1), torch.ones(6))

    def test_a_changed_table_does_not_go_on_without_a_word(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = self.train(tmp_path)
        (path / "evaluation.json").unlink()  # as if interrupted before the test
        age, income = map(int, read(tmp_path).pools["test"].inputs[0, :2].tolist())
        write(tmp_path, CSV.replace(f"{age},{income},", f"{age},{income + 1},"))
        assert main(["resume", str(path)]) == 2
        assert "cannot go on with something else than it began with: other examples of csv" in capsys.readouterr().err
        assert main(["evaluate", str(path), "--tasks", "5"]) == 0
        assert "is tested on other examples of csv than it was trained with" in capsys.readouterr().err
        result = json.loads((path / "evaluation.json").read_text())
        assert result["remarks"] == ["tested on other examples of csv than it was trained with"]


class TestReadingWithoutQuotationMarks:
    """Most files have none; their cells are split at once. The general way must find the same."""

    def rows(self, seed: int) -> str:
        generator = np.random.default_rng(seed)
        cells = ["1.5", " a b ", "", "\u00e9\u2028x", "-", "'", "\t", "10"]
        columns, end = int(generator.integers(1, 5)), ["\n", "\r\n"][seed % 2]
        lines = [",".join(f"c{place}" for place in range(columns))]
        for _ in range(int(generator.integers(1, 12))):
            lines.append(",".join(cells[int(generator.integers(len(cells)))] for _ in range(columns)))
            if generator.random() < 0.2:
                lines.append("")
        return end.join(lines) + end * int(generator.integers(3))

    @pytest.mark.parametrize("seed", range(60))
    def test_both_ways_read_the_same(self, seed: int, tmp_path: Path) -> None:
        text = self.rows(seed)
        (tmp_path / "plain.csv").write_bytes(text.encode())
        (tmp_path / "quoted.csv").write_bytes(text.replace("c0", '"c0"', 1).encode())
        found = []
        for name in ("plain", "quoted"):
            try:
                table = read_table(tmp_path / f"{name}.csv", delimiter=",")
                found.append((table.frame.to_dict(as_series=False), list(table.lines)))
            except UsageError as error:
                found.append(str(error).replace(name, ""))
        assert found[0] == found[1]

    def test_a_carriage_return_alone_ends_a_line(self, tmp_path: Path) -> None:
        (tmp_path / "old.csv").write_bytes(b"a,b\r1,2\r3,4\r")
        assert read_table(tmp_path / "old.csv").cells("b").to_list() == ["2", "4"]
