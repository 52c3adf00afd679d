"""Output that goes to odd places: closed pipes, old encodings, narrow terminals, folders that take nothing."""

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

import metarl
from metarl.experiment.lock import locked
from metarl.scripts.cli import main
from metarl.scripts.evaluate import print_table

SMALL = ["--iterations", "1", "--num-tasks", "2", "--envs-per-task", "2"]


def test_a_reader_that_has_seen_enough_ends_the_command_without_a_word():
    reader, writer = os.pipe()
    os.close(reader)
    command = [Path(sys.executable).with_name("metarl"), "envs", "--json"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_encoding_without_the_letters_costs_no_results():
    """It was a UnicodeEncodeError after the work was done."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with contextlib.redirect_stdout(stream):
        assert main(["presets", "rl2"]) == 0
    stream.seek(0)
    assert "RL?" in stream.read()


def test_names_of_files_are_printed_whatever_their_bytes():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(stream):
        assert main(["--version"]) == 0
        print("a\udcff \u00e9", flush=True)
    assert stream.buffer.getvalue().endswith(b"a\xff \xc3\xa9\n")  # type: ignore[attr-defined]


def test_a_run_folder_that_tensorboard_could_not_open_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    """It was a UnicodeEncodeError after the folder had been made."""
    monkeypatch.chdir(tmp_path)
    assert main(["train", "random", "--env", "PointNavigation-v0", *SMALL, "--output", "a\udcff"]) == 2
    assert capsys.readouterr().err.startswith("metarl: error: output folder a\ufffd is no name in UTF-8")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("columns", [20, 40, 120])
def test_a_narrow_terminal_cuts_no_numbers(columns: int, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    table = Table()
    for column in ("episodes used", "return, mean", "IQM", "95 % interval", "success, mean"):
        table.add_column(column, justify="right")
    table.add_row("0", "-1234.56", "-1187.25", "-1300.1 … -1100.7", "0.125")
    print_table("rl2 on Arm-v0", table)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    for number in ("-1234.56", "-1187.25", "-1300.1", "-1100.7", "0.125"):
        assert number in shown
    assert max(map(len, shown.splitlines())) < 120


def test_an_evaluation_that_could_not_be_written_is_refused_before_the_work(tmp_path: Path, capsys):
    run = tmp_path / "run"
    assert main(["train", "random", "--env", "PointNavigation-v0", *SMALL, "--output", str(run)]) == 0
    (run / "evaluation.json").mkdir()
    capsys.readouterr()
    assert main(["evaluate", str(run), "--tasks", "2"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert "copy its folder to where you may write" in shown.err


def test_what_the_disk_refuses_is_one_line(tmp_path: Path, capsys):
    run = tmp_path / "run"
    assert main(["train", "random", "--env", "PointNavigation-v0", *SMALL, "--output", str(run)]) == 0
    (run / "plots" / "adaptation.png").mkdir()
    capsys.readouterr()
    assert main(["evaluate", str(run), "--tasks", "2"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("metarl: error: cannot read or write ")
    assert shown.count("\n") == 1
    assert "adaptation.png" in shown


def test_a_folder_that_another_process_is_filling_keeps_its_configuration(tmp_path: Path):
    """Both found it empty; the second wrote its own configuration over that of the first, and only then gave up."""
    config = metarl.TrainConfig("random", "PointNavigation-v0", iterations=1, output=tmp_path)
    with locked(tmp_path), pytest.raises(metarl.UsageError, match="is being trained by another process"):
        metarl.train(config, progress=False)
    assert list(tmp_path.iterdir()) == []
