"""`metarl fewshot predict`."""

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from metarl.errors import UsageError
from metarl.experiment import load_run
from metarl.experiment.files import check_writable, write_atomically
from metarl.fewshot import FewShotRun
from metarl.fewshot.predicting import predict_files
from metarl.scripts.arguments import parse


@dataclass
class Arguments:
    """Learns the labels of a support file and predicts those of a query file. Prints a CSV table: a row for each query.

    Both files have the columns that the run was trained on; the support file also has the label. If the run was trained
    on a folder of pictures, both are folders of pictures, and that of the support has a folder for each class.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    support: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """File or folder with the examples to learn from, and their labels."""
    query: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """File or folder with the examples to predict."""
    calibrated: bool = False
    """Give calibrated probabilities and prediction sets; metarl evaluate RUN --figures calibrates a run, for the
    classes and the shots of its test."""
    explain: bool = False
    """Name the support rows and the features that decided, with the change that each makes of the probability as it is
    before calibration."""
    device: Annotated[str | None, tyro.conf.arg(metavar="DEVICE")] = None
    """Device to compute on; the device of the training if not given."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Also write everything as JSON to this file."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the table to this file instead of printing it."""


def main(arguments: Sequence[str]) -> None:
    parsed = parse(Arguments, arguments, "metarl fewshot predict")
    for path in (parsed.json, parsed.output):
        if path is not None:
            check_writable(path)
    run = load_run(parsed.run, device=parsed.device)
    if not isinstance(run, FewShotRun):
        raise UsageError(f"{parsed.run} is the run of an agent, not of metarl fewshot")
    if not run.finished:
        print(f"metarl: {run.path} is not finished: {run.checkpoint.iteration} steps", file=sys.stderr)
    found = predict_files(run, parsed.support, parsed.query, calibrated=parsed.calibrated, explained=parsed.explain)
    for line in [*found.get("remarks", ()), *([found["note"]] if "note" in found else [])]:
        print(f"metarl: {line}", file=sys.stderr)
    if parsed.json is not None:
        write_atomically(parsed.json, json.dumps(found, indent=2, allow_nan=False) + "\n")
    text = _as_csv(found["predictions"])
    if parsed.output is None:
        print(text, end="")
    else:
        write_atomically(parsed.output, text)


def _as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The predictions as a table: row, label, a column for each class, and set and explanation in words."""
    table = [_cells(row) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    if "value" in row:
        return {"row": row["row"], "value": " ".join(f"{value:.6g}" for value in row["value"])}
    cells = {name: row[name] for name in ("row", "name", "label") if name in row}
    cells |= {f"p({name})": f"{p:.4f}" for name, p in row["probabilities"].items()}
    if "set" in row:
        cells["set"] = " | ".join(row["set"])
    if "explanation" in row:
        said = row["explanation"]
        cells["support rows"] = ", ".join(f"{part['row']} ({part['effect']:+.3f})" for part in said["support"])
        cells["features"] = ", ".join(f"{part['feature']} ({part['effect']:+.3f})" for part in said["features"])
    return cells
