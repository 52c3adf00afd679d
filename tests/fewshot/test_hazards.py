"""What looks like a prediction or a figure and is none: other notations, units, columns, copies, and tiny groups."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from small_runs import train_small

from metarl import UsageError
from metarl.fewshot import FewShotClassifier, FewShotConfig, FewShotRun, explain, from_dataset, predict_files
from metarl.fewshot.data import open_data
from metarl.fewshot.data.encoder import open_encoder
from metarl.fewshot.data.folder import PictureEncoder
from metarl.fewshot.data.number_checks import check_precision, odd_values
from metarl.fewshot.data.numerals import to_days
from metarl.fewshot.data.picture_cache import PictureOptions, PictureReader
from metarl.fewshot.data.picture_files import Reading
from metarl.fewshot.data.remarks import all_remarks
from metarl.fewshot.episodes import EpisodeShape, Pool
from metarl.fewshot.figures import group_figures
from metarl.fewshot.objectives.robust import Ball
from metarl.fewshot.predictions import Predictions
from metarl.fewshot.preprocessing import Preprocessing
from metarl.scripts.cli import main

FEW = {"shots": 3, "queries": 3}


def table(folder: Path, rows: int = 60, **columns: object) -> dict[str, str]:
    """The options of a table of these columns, of noise and of a label that alternates."""
    noise = np.random.default_rng(0).normal(size=rows).round(4)
    label = np.array(["ill", "well"])[np.arange(rows) % 2]
    pl.DataFrame({**columns, "noise": noise, "state": label}).write_csv(folder / "table.csv")
    return {"csv": str(folder / "table.csv"), "label": "state"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FewShotRun:
    """A learner of age (around 50), height (in cm) and whether someone smokes."""
    folder = tmp_path_factory.mktemp("run")
    generator = np.random.default_rng(1)
    options = table(
        folder,
        age=(50 + 10 * generator.normal(size=60)).round(1),
        height=(170 + 9 * generator.normal(size=60)).round(1),
        smokes=[["True", "False"][value % 3 == 0] for value in range(60)],
    )
    options = {**options, "ignore": ("noise",)}
    return train_small("protonet", "csv", options, folder / "run", learner_options={"iterations": 10}, **FEW)


def files(run: FewShotRun, folder: Path, **change: pl.Expr) -> tuple[Path, Path]:
    """Support and query files, the query with changed columns."""
    rows = pl.read_csv(run.path.parent / "table.csv", infer_schema_length=0)
    rows[:20].write_csv(folder / "s.csv")
    rows[20:50].with_columns(**change).drop("state").write_csv(folder / "q.csv")
    return folder / "s.csv", folder / "q.csv"


class TestPredictions:
    def test_columns_of_a_data_frame_in_another_order_are_refused(self, run: FewShotRun) -> None:
        pytest.importorskip("sklearn")
        rows = pl.read_csv(run.path.parent / "table.csv")[:20]
        words = (rows["smokes"].cast(pl.String).str.to_lowercase() == "true").cast(pl.Float64)
        x = rows.select("age", "height").with_columns(no=1 - words, yes=words, other=pl.lit(0.0))
        FewShotClassifier(run.path).fit(x, rows["state"].to_numpy())
        with pytest.raises(UsageError, match=r"column 1 of X is 'height', where the run has 'age'"):
            FewShotClassifier(run.path).fit(x.select("height", "age", "no", "yes", "other"), rows["state"].to_numpy())

    def test_a_prediction_that_is_no_number_is_refused(self, run: FewShotRun, tmp_path: Path) -> None:
        """1e30 is a float32, but its distance from anything is not."""
        support, query = files(run, tmp_path, age=pl.lit("1e30"))
        with pytest.raises(UsageError, match="the prediction for query 1 is not finite"):
            predict_files(run, support, query)
        x = torch.tensor([[50.0, 170, 0, 1, 0]] * 4)
        with pytest.raises(UsageError, match="query 2 is not finite"):
            explain(run.learner, x, [0, 1, 0, 1], [[50.0, 170, 0, 1, 0], [1e30, 170, 0, 1, 0]])

    def test_files_like_the_training_have_no_remarks(self, run: FewShotRun, tmp_path: Path) -> None:
        assert "remarks" not in predict_files(run, *files(run, tmp_path))

    @pytest.mark.parametrize(
        ("column", "change", "said"),
        [
            ("height", pl.col("height").cast(pl.Float64) / 100, "height of the query: its median, "),
            ("height", (pl.col("height").cast(pl.Float64) - 170) / 100 + 170, "standard deviation is"),
            ("height", pl.lit(""), "30 of 30 rows miss it, as no training row does"),
            ("smokes", pl.lit("yes"), "column 'smokes': 30 of 30 rows have a word that the training rows do not have"),
        ],
    )
    def test_what_differs_from_the_training_is_said(
        self,
        run: FewShotRun,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        column: str,
        change: pl.Expr,
        said: str,
    ) -> None:
        support, query = files(run, tmp_path, **{column: change})
        remarks = predict_files(run, support, query)["remarks"]
        assert any(said in line for line in remarks), remarks
        main(["fewshot", "predict", str(run.path), "--support", str(support), "--query", str(query)])
        assert said in capsys.readouterr().err

    def test_the_same_word_in_another_notation(self, run: FewShotRun, tmp_path: Path) -> None:
        """Excel writes TRUE, Parquet true, and programs write 1.0 in a column with a gap."""
        assert run.encoder is not None
        _, query = files(run, tmp_path)
        expected = run.encoder.inputs(query)
        for notation in (str.upper, str.lower):
            rows = pl.read_csv(query, infer_schema_length=0)
            rows.with_columns(smokes=pl.Series([notation(word) for word in rows["smokes"]])).write_csv(query)
            torch.testing.assert_close(run.encoder.inputs(query), expected)
            assert run.encoder.remarks(query) == []
        options = table(tmp_path, code=[number % 3 + 1 for number in range(60)])
        encoder = open_encoder(open_data("csv", {**options, "categorical": ("code",)}).encoder())
        assert encoder is not None
        Path(tmp_path / "new.csv").write_text("noise,code\n0,1.0\n0,3.0\n0,01\n")
        assert encoder.inputs(tmp_path / "new.csv")[:, :4].argmax(1).tolist() == [0, 2, 3]


class TestColumns:
    @pytest.mark.parametrize(
        ("cell", "what"),
        [
            ("{} %", "numbers with the unit '%'"),
            ("${},000", "numbers with a currency"),
            ("{},5 €", "numbers with the unit '€'"),
            ("{} mg/dl", "numbers with the unit 'mg/dl'"),
            ("{}m", "numbers with the unit 'm'"),
            ("8:{}", "times of day"),
            ("1{}/80", "pairs of numbers"),
        ],
    )
    def test_numbers_with_units_are_no_words(self, tmp_path: Path, cell: str, what: str) -> None:
        options = table(tmp_path, dose=[cell.format(10 + number % 40) for number in range(60)])
        with pytest.raises(UsageError, match=r"column 'dose' has (.*), such as .*: write plain numbers") as raised:
            open_data("csv", options)
        assert what in str(raised.value)
        open_data("csv", {**options, "ignore": ("dose",)})

    def test_months_and_codes_with_leading_zeros(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="column 'seen' has months"):
            open_data("csv", table(tmp_path, seen=[f"2024-{number % 12 + 1:02d}" for number in range(60)]))
        options = table(tmp_path, zip=[f"{number * 997 % 20000:05d}" for number in range(60)])
        with pytest.raises(UsageError, match=r"whole numbers that begin with 0, such as 0.*--numeric zip"):
            open_data("csv", options)
        assert "zip: numbers from 00000" in "\n".join(open_data("csv", {**options, "numeric": ("zip",)}).summary())

    def test_minutes_of_a_time_zone_count(self) -> None:
        times = ["2024-01-01T10:00+05:30", "2024-01-01T10:00:00-05:30", "2024-01-01T10:00Z", "2024-01-01 10:00"]
        hours = (to_days(pl.Series(times)) - 19723) * 24
        np.testing.assert_allclose(hours.to_numpy(), [4.5, 15.5, 10, 10], atol=1e-6)

    def test_numbers_that_float32_mixes_up_are_refused(self, tmp_path: Path) -> None:
        seconds = 1_700_000_000 + np.arange(60) * 7 % 60
        with pytest.raises(UsageError, match=r"column 'time' has numbers near 1700000.*subtract 1700000000 from all"):
            open_data("csv", table(tmp_path, time=seconds))
        stamps = [f"2024-01-01T10:00:{number * 7 % 60:02d}" for number in range(60)]
        with pytest.raises(UsageError, match="column 'time' of dates, in days since 1970, has numbers near 19723"):
            open_data("csv", table(tmp_path, time=stamps))
        x, y = 1e9 + np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
        np.savez(tmp_path / "f.npz", x=x, y=y)
        with pytest.raises(UsageError, match=r"f.npz, x, column 1 has numbers near 99999999"):
            open_data("npz", {"file": str(tmp_path / "f.npz")})
        pairs = list(zip(x, y.tolist(), strict=True))
        with pytest.raises(UsageError, match="train, inputs, column 1 has numbers near"):
            from_dataset(pairs[:30], pairs[30:])
        check_precision(np.array([0.1 + 1e-17, 0.1, 0.1]), "a constant")
        open_data("csv", table(tmp_path, time=1_700_000_000 + 86400 * np.arange(60) * 7 % 6000000))

    def test_a_column_that_is_constant_in_training_has_no_effect(self, tmp_path: Path) -> None:
        data = open_data("csv", table(tmp_path, seen=[7] * 60))
        assert data.preprocessing(torch.tensor([[7.0, 0.0], [1000.0, 0.0]]))[:, 0].tolist() == [0, 0]

    @pytest.mark.parametrize(
        ("cells", "said"),
        [
            ([7] * 60, "all training rows have the same, so that it has no effect"),
            ([*range(30, 88), -999, -999], "-999 looks like a code for a missing value"),
            ([*(np.arange(59) * 7 % 59), 999], "999 looks like a code for a missing value"),
            ([*range(30, 89), 99], ""),
            ([*range(950, 1010)], ""),
        ],
    )
    def test_odd_numbers_are_said(self, tmp_path: Path, cells: list[int], said: str) -> None:
        line = open_data("csv", table(tmp_path, age=[*reversed(cells)])).summary()[0]
        assert line.partition("; ")[2].startswith(said)
        assert bool(line.partition("; ")[2]) == bool(said)

    def test_a_number_far_from_all_others_is_said(self) -> None:
        values = np.array([*np.random.default_rng(0).normal(size=59), 1e30])
        assert "1e+30 is so far from the others" in odd_values(values, values)
        assert odd_values(values[:59], values) == ""
        with pytest.raises(UsageError, match="too small for float32: multiply them"):
            check_precision(values[:59] * 1e-42, "column 'x'")

    def test_nobody_attacks_a_column_without_effect(self, tmp_path: Path) -> None:
        data = open_data("csv", table(tmp_path, seen=[7] * 60, city=["Oslo", "Rome", "Paris"] * 20))
        assert Ball.of(data.preprocessing, 0.5).radius.tolist() == [0, 0, 0, 0, 0, 0.5]
        assert Ball.of(Preprocessing((2, 8), scale=(0.0, 3.0), shift=(0.0, 1.0)), 0.5).radius.tolist() == [[0], [0.5]]
        assert Ball.of(Preprocessing((3,)), 0.5).radius.tolist() == 0.5

    def test_text_without_spaces(self, tmp_path: Path) -> None:
        letters = np.random.default_rng(0).choice(list("我你他们是的不了人在有这来大学生"), (60, 12))
        notes = ["".join(row) for row in letters]
        options = table(tmp_path, note=notes)
        with pytest.raises(UsageError, match="column 'note' holds free text"):
            open_data("csv", options)
        with pytest.raises(UsageError, match=r"a script without spaces between words.*--text-by characters"):
            open_data("csv", {**options, "text": ("note",)})
        single = open_data("csv", {**table(tmp_path, note=["a b c", "no fever"] * 30), "text": ("note",)}).summary()[0]
        assert single.endswith("; 30 of 60 have no word of two letters, and read as nothing")
        options = table(tmp_path, note=notes)
        data = open_data("csv", {**options, "text": ("note",), "text_by": "characters"})
        assert int((data.encode(options["csv"])[0] != 0).sum()) > 20  # type: ignore[attr-defined]

    def test_an_empty_cell_is_missing_whatever_else_is(self, tmp_path: Path) -> None:
        """It was a class of its own as soon as --missing named other cells."""
        options = table(tmp_path, age=["", "-999", "50", "31"] * 15)
        data = open_data("csv", {**options, "missing": ("-999",)})
        assert data.summary()[0] == "age: numbers from 31 to 50, 30 missing (the median stands in)"
        text = Path(options["csv"]).read_text().replace(",ill", ",", 5)
        Path(options["csv"]).write_text(text)
        with pytest.raises(UsageError, match="line 2: column 'state' is empty"):
            open_data("csv", {**options, "missing": ("-999",)})

    def test_long_numbers_are_different_labels(self, tmp_path: Path) -> None:
        """As numbers of 53 bits they are one."""
        sites = [12345678901234567 + number % 4 for number in range(80)]
        rows = {"site": sites, "x": np.random.default_rng(0).normal(size=80), "state": [n // 4 % 2 for n in range(80)]}
        pl.DataFrame(rows).write_csv(tmp_path / "sites.csv")
        data = open_data("csv", {"csv": str(tmp_path / "sites.csv"), "label": "state", "task_column": "site"})
        assert "site: the sites, each a task: 2 train, 2 test" in data.summary()


class TestArrays:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("", "b", "c"), r"the label of row 1 is missing \(''\)"),
            (("nan", "b", "c"), r"the label of row 1 is missing \('nan'\)"),
            (("b", "B", "c"), "'B' and 'b': write them alike"),
        ],
    )
    def test_labels_are_read_as_those_of_tables(self, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
        x, y = np.random.default_rng(0).normal(size=(60, 3)), np.array(words)[np.arange(60) % 3]
        np.savez(tmp_path / "f.npz", x=x, y=y)
        with pytest.raises(UsageError, match=said):
            open_data("npz", {"file": str(tmp_path / "f.npz")})

    def test_spaces_and_notations_are_no_other_labels(self, tmp_path: Path) -> None:
        x = np.random.default_rng(0).normal(size=(60, 3))
        for words, classes in ((("a", "a ", "b"), ["a", "b"]), (("1", "1.0", "2"), ["1", "2"])):
            np.savez(tmp_path / "f.npz", x=x, y=np.array(words)[np.arange(60) % 3])
            data = open_data("npz", {"file": str(tmp_path / "f.npz")})
            assert data.classes == classes  # type: ignore[attr-defined]


class TestCopies:
    def test_rows_that_are_alike_are_counted(self, tmp_path: Path) -> None:
        x, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
        assert "alike" not in "\n".join(open_data("csv", table(tmp_path)).summary())
        np.savez(tmp_path / "f.npz", x=np.repeat(x[:15], 4, 0), y=np.repeat(y[:15], 4))
        line = open_data("npz", {"file": str(tmp_path / "f.npz")}).summary()[-1]
        assert line.startswith("60 of 60 rows have the same inputs as another row, and ")
        pairs = list(zip(x, y.tolist(), strict=True))
        assert "60 of 60 test rows as a training row" in from_dataset(pairs, pairs).summary()[0]
        assert from_dataset(pairs[:30], pairs[30:]).summary() == []
        pl.DataFrame({"x": [*x[:30, 0], *x[:10, 0]], "state": [*y[:30], *y[:10]]}).write_csv(tmp_path / "t.csv")
        data = open_data("csv", {"csv": str(tmp_path / "t.csv"), "label": "state"})
        assert data.summary()[-1].startswith("20 of 40 rows have the same inputs as another row, and ")

    def test_pictures_that_are_alike_are_counted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        generator = np.random.default_rng(0)
        for name in ("cats", "dogs"):
            (tmp_path / "mine" / name).mkdir(parents=True)
            for number in range(8):
                pixels = generator.integers(0, 256, (16, 16), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "mine" / name / f"{number}.png")
        options = {"root": str(tmp_path / "mine"), "size": 16}
        assert "look like another" not in "\n".join(open_data("folder", options).summary())
        (tmp_path / "mine/dogs/8.png").write_bytes((tmp_path / "mine/cats/0.png").read_bytes())
        assert "2 of 17 pictures look like another at this size" in "\n".join(open_data("folder", options).summary())


class TestGroups:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"favourable_label": 0}, "the favourable class of the data is 'well', which is label 1"),
            ({"num_groups": 4}, "the data have 3 groups, d, m, w: num_groups must be 3, got 4"),
            ({}, "the data have 3 groups, d, m, w: num_groups must be 3, got 2"),
        ],
    )
    def test_fairness_is_about_the_groups_and_the_class_of_the_data(
        self, tmp_path: Path, options: dict[str, int], said: str
    ) -> None:
        data = {**table(tmp_path, sex=[*"mwd"] * 20), "group": "sex", "favourable": "well"}
        config = FewShotConfig("protonet", "csv", "fairness", data_options=data, objective_options=options)
        with pytest.raises(UsageError, match=said):
            config.resolve()

    def test_a_group_of_few_examples_is_rare_however_often_they_are_drawn(self) -> None:
        """Four of 120 examples are drawn dozens of times; their interval would be of a third of its width."""
        generator = torch.Generator().manual_seed(0)
        rows, places = torch.zeros(120, 2), torch.arange(120)
        rows[:, 0] = (torch.rand(120, generator=generator) < 0.5).float()
        groups = (places < 4).long()
        pool = Pool(rows, places % 2, groups, units=places, unit_name="rows", ids=places)
        drawn = pool.episodes(200, EpisodeShape(2, 1, 5), Preprocessing((2,)), generator)
        chosen = drawn.query.x[..., 0]
        scores = torch.stack([1 - chosen, chosen], -1)
        found = Predictions(
            scores, drawn.query.y, drawn.query.groups, drawn.members, ("no", "yes"), True, 1, ("a", "b")
        )
        many, few = group_figures(found, 1)["groups"]
        assert few["queries"] > 30
        assert (few["examples"], few["rare"]) == (4, True)
        assert (many["examples"], many["rare"]) == (116, False)
        assert few["selection_rate"]["ci95"] is None
        assert few["selection_rate"]["interval"] == "none: 4 different examples are too few (want 10)"
        assert few["selection_rate_difference"]["ci95"] is None
        assert many["selection_rate"]["ci95"] > 0


@pytest.mark.parametrize("far", [np.inf, 1e300])
def test_numbers_that_float32_does_not_have_are_left_to_the_line_that_refuses_them(far: float) -> None:
    values = np.array([1.0, 2.0, 3.0, far])
    assert odd_values(values, values) == ""
    check_precision(values, "column 'x'")


def test_remarks_are_few_and_need_inputs_that_fit() -> None:
    scaled, far = Preprocessing((40,), shift=(0.0,) * 40), torch.full((3, 40), 99.0)
    lines = all_remarks(scaled, {"support": far, "query": far}, None)
    assert len(lines) == 6
    assert lines[-1] == "and 75 more columns of this kind"
    assert all_remarks(scaled, {"support": far, "query": far[:, :7]}, None) == []


def test_files_that_are_no_pictures_are_counted_at_prediction(tmp_path: Path) -> None:
    Image.linear_gradient("L").save(tmp_path / "1.png")
    (tmp_path / "2.heic").touch()
    encoder = PictureEncoder(PictureReader(PictureOptions(28), Reading(28, 1)), ("cats", "dogs"))
    assert encoder.remarks(tmp_path) == [f"{tmp_path}: skipped: 1 .heic"]


def test_values_of_a_support_in_other_units_are_said(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=60)
    rows = pl.DataFrame({"x": x, "cost": (100 + 10 * x).round(3)})
    rows.write_csv(tmp_path / "all.csv")
    options = {"csv": str(tmp_path / "all.csv"), "target": "cost"}
    opened = train_small("cnp", "csv", options, tmp_path / "run", learner_options={"iterations": 2}, **FEW)
    rows.with_columns(pl.col("cost") * 100).write_csv(tmp_path / "cents.csv")
    assert "remarks" not in predict_files(opened, tmp_path / "all.csv", tmp_path / "all.csv")
    remarks = predict_files(opened, tmp_path / "cents.csv", tmp_path / "all.csv")["remarks"]
    assert [line for line in remarks if line.startswith("the target: its median, ")]
