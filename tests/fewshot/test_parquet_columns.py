"""Columns of Parquet files whose cells are no single numbers, words or dates: named, with the way out, if used."""

import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import metarl.fewshot
from metarl import UsageError
from metarl.fewshot import FewShotConfig
from metarl.fewshot.data import open_data
from metarl.fewshot.data.table_file import read_table

ROWS = 40
ODD: dict[str, tuple[pl.Series, str]] = {
    "stay": (pl.Series([datetime.timedelta(hours=row) for row in range(ROWS)]), "durations: write them as numbers"),
    "pair": (pl.Series([[row, 1] for row in range(ROWS)]), "lists: give each entry a column"),
    "fixed": (pl.Series([[row, 1] for row in range(ROWS)], dtype=pl.Array(pl.Int64, 2)), "lists: give each entry"),
    "whole": (pl.Series([{"a": row} for row in range(ROWS)]), "structs: give each entry a column"),
    "raw": (pl.Series([b"\xff\xfe"] * ROWS), "bytes that are no text: write them"),
}


def write(path: Path, *names: str, **more: Any) -> str:
    columns = {"size": [row % 7 + 3 * (row % 2) for row in range(ROWS)], "kind": ["a", "b"] * (ROWS // 2)}
    odd = {f"my {name}": ODD[name][0] for name in names}
    pl.DataFrame(columns | odd | more).write_parquet(path)
    return str(path)


@pytest.mark.parametrize("name", ODD)
def test_the_column_is_named_with_the_way_out(name: str, tmp_path: Path) -> None:
    file = write(tmp_path / "t.parquet", name)
    with pytest.raises(UsageError, match=rf"t.parquet: column 'my {name}' holds {ODD[name][1]}.* --ignore my {name}"):
        open_data("csv", {"csv": file, "label": "kind"})
    data = open_data("csv", {"csv": file, "label": "kind", "ignore": (f"my {name}",)})
    assert f"my {name}: ignored" in data.summary()
    with pytest.raises(UsageError, match=f"column 'my {name}' holds {ODD[name][1]}"):
        open_data("csv", {"csv": file, "label": f"my {name}"})


def test_a_file_to_predict_may_have_such_columns_beside_those_it_needs(tmp_path: Path) -> None:
    options = {"csv": write(tmp_path / "t.parquet"), "label": "kind"}
    config = FewShotConfig(
        "protonet",
        "csv",
        data_options=options,
        learner_options={"iterations": 1},
        episodes=2,
        baselines=False,
        output=tmp_path / "run",
    )
    run = metarl.load_run(metarl.train(config, progress=False))
    plain = metarl.fewshot.predict_files(run, tmp_path / "t.parquet", tmp_path / "t.parquet", explained=False)
    wide = write(tmp_path / "wide.parquet", *ODD)
    assert metarl.fewshot.predict_files(run, wide, wide, explained=False)["predictions"] == plain["predictions"]


def test_what_is_text_is_read_whatever_its_type(tmp_path: Path) -> None:
    days = pl.Series([datetime.date(2024, 1, 1 + row % 28) for row in range(ROWS)])
    file = write(
        tmp_path / "t.parquet", day=days, word=pl.Series([b"x", b"y"] * (ROWS // 2)), void=pl.Series([None] * ROWS)
    )
    table = read_table(Path(file))
    assert table.names == ["size", "kind", "day", "word", "void"]
    assert [table.cells(name)[1] for name in table.names] == ["4", "b", "2024-01-02", "y", ""]


def test_sites_keep_what_is_known_of_a_column(tmp_path: Path) -> None:
    sites = pl.Series(["north"] * 22 + ["south"] * (ROWS - 22))
    file = write(tmp_path / "t.parquet", "pair", site=sites)
    with pytest.raises(UsageError, match="column 'my pair' holds lists"):
        open_data("csv", {"csv": file, "label": "kind", "task_column": "site", "task_rows": 5})
