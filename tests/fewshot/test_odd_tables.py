"""What people's tables and arrays hold that reads as something else: refused, or said, in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl import UsageError
from metarl.fewshot.data import open_data
from metarl.fewshot.data.encoder import TableEncoder

ROWS = 60
NUMBERS = np.random.default_rng(0).normal(size=(ROWS, 3)).round(4)
LABELS = np.arange(ROWS) % 2


def table(folder: Path, cells: list[Any], label: tuple[str, str] = ("a", "b"), **options: Any) -> list[str]:
    """How a table with the column `odd` of `cells`, as often as needed, is read."""
    lines = [f"{NUMBERS[row, 0]},{cells[row % len(cells)]},{label[row % 2]}" for row in range(ROWS)]
    (folder / "t.csv").write_text("\n".join(["x,odd,y", *lines]), encoding="utf-8")
    return open_data("csv", {"csv": str(folder / "t.csv"), "label": "y", **options}).summary()


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([2**63 - 1 - row for row in range(ROWS)], "column 'odd' has whole numbers with too many digits .* --ignore"),
        ([12345678901234560 + row * 7 % ROWS for row in range(ROWS)], "too many digits to be told apart"),
        (["2024-01-02", "2024-02-03", "soon"], r"line 4: column 'odd' has dates, but here 'soon'; correct it"),
    ],
)
def test_what_would_be_read_as_something_else_is_refused(cells: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        table(tmp_path, cells)


def test_long_numbers_that_floats_tell_apart_and_dates_with_gaps_are_read(tmp_path: Path) -> None:
    assert "odd: numbers from 1" in table(tmp_path, [10**17 * (row % 9 + 1) for row in range(ROWS)])[1]
    for gap in ("NaT", "<NA>"):
        assert (
            "odd: dates from 2024-01-02 to 2024-03-04, 20 missing"
            in table(tmp_path, ["2024-01-02", gap, "2024-03-04"])[1]
        )
    assert "says nothing" in table(tmp_path, ["only"])[1]


@pytest.mark.parametrize("pair", [("e\u0301", "\u00e9"), ("a\u200b", "a"), ("New  York", "New York")])
def test_labels_that_look_alike_are_refused_wherever_they_are_read(pair: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"column 'y' has .*: write them alike"):
        table(tmp_path, [1, 2, 3.5], pair)
    np.savez(tmp_path / "a.npz", x=NUMBERS, y=np.array(pair)[LABELS])
    with pytest.raises(UsageError, match=r"a.npz, y has .*: write them alike"):
        open_data("npz", {"file": str(tmp_path / "a.npz")})


def test_support_labels_that_differ_in_case_alone_are_not_two_classes(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("x,y\n1,ill\n2,Ill\n3,well\n")
    with pytest.raises(UsageError, match=r"s.csv: column 'y' has 'Ill' and 'ill': write them alike"):
        TableEncoder("y", ("ill", "well"), ()).labels(tmp_path / "s.csv")


@pytest.mark.parametrize("role", [{"group": "odd"}, {"protected": ("odd",)}])
def test_one_group_is_unlike_nothing(role: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="column 'odd' has 'f' in every row, and fairness is between two or more"):
        table(tmp_path, ["f"], favourable="a", **role)
    np.savez(tmp_path / "a.npz", x=NUMBERS, y=LABELS, groups=np.zeros(ROWS, dtype=int))
    with pytest.raises(UsageError, match="groups is '0' in every row"):
        open_data("npz", {"file": str(tmp_path / "a.npz"), "favourable": "1"})


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.where(LABELS, 1e19, 2e19)}, r"y: labels must be .* that of row 1 is 2e\+19, and below"),
        ({"y": np.where(np.arange(ROWS) == 3, np.nan, LABELS)}, "that of row 4 is nan, missing: drop the row"),
        ({"y": np.where(LABELS, b"cat", b"dog")}, r"labels must be .* y.astype\(str\) makes words of bytes"),
        ({"x": 2**62 + np.arange(3 * ROWS).reshape(ROWS, 3)}, "x, column 1 has whole numbers near .*: subtract 46116"),
        ({"x": np.where(NUMBERS[4, 2] == NUMBERS, np.inf, NUMBERS)}, "first inf in row 5, column 3: drop the row"),
    ],
)
def test_what_is_wrong_in_an_array_has_a_place_and_a_way_out(
    arrays: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", **{"x": NUMBERS, "y": LABELS} | arrays)
    with pytest.raises(UsageError, match=message):
        open_data("npz", {"file": str(tmp_path / "a.npz")})
