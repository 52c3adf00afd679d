"""Calibrated probabilities for supports of other sizes than the calibration is for: said or refused at each entry."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

import metarl.fewshot
from metarl import UsageError
from metarl.fewshot import CalibrationWarning, FewShotClassifier, FewShotConfig
from metarl.fewshot.calibration import Calibration, write_calibration
from metarl.scripts.cli import main

NOTE = "calibrated for 3 support examples of each class, got "


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 2 ways and 3 shots on three classes, calibrated; files of 3, 5 and 2 to 4 rows of two classes."""
    folder = tmp_path_factory.mktemp("calibrated")
    rng = np.random.default_rng(0)
    rows = [f"{rng.normal() + 2 * (number % 3):.4f},{'abc'[number % 3]}" for number in range(90)]
    (folder / "all.csv").write_text("\n".join(["size,kind", *rows]))
    for name, sizes in (("as", (3, 3)), ("more", (5, 5)), ("unequal", (2, 4)), ("three", (3, 3, 3))):
        chosen = [
            row for label, size in zip("abc", sizes, strict=False) for row in rows["abc".index(label) :: 3][:size]
        ]
        (folder / f"{name}.csv").write_text("\n".join(["size,kind", *chosen]))
    sizes = {"ways": 2, "shots": 3, "queries": 3, "episodes": 2, "baselines": False}
    options = {"csv": str(folder / "all.csv"), "label": "kind"}
    config = FewShotConfig(
        "protonet", "csv", data_options=options, learner_options={"iterations": 1}, output=folder / "run", **sizes
    )
    path = metarl.train(config, progress=False)
    write_calibration(path, Calibration(2.0, 0.7, 0.9, "train", 100, 1))
    return path


@pytest.fixture(autouse=True)
def in_folder(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def support(run: Path, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    encoder = metarl.fewshot.load(run).file_encoder
    assert encoder is not None
    file = folder_of(run) / f"{name}.csv"
    labels = np.array(encoder.labels(file))
    return encoder.inputs(file).numpy(), labels, np.unique(labels, return_inverse=True)[1]


def folder_of(run: Path) -> Path:
    return run.parent


def test_a_learner_warns_of_other_shots_and_refuses_other_ways(run: Path) -> None:
    learner = metarl.fewshot.load(run)
    x, _, y = support(run, "as")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner.predict(x, y, x, calibrated=True)
        for name in ("more", "unequal", "three"):  # as they are, any sizes will do
            other, _, labels = support(run, name)
            learner.predict(other, labels, x)
    for name, given in (("more", "5"), ("unequal", "2 to 4")):
        other, _, labels = support(run, name)
        with pytest.warns(CalibrationWarning, match=f"{NOTE}{given}: .* is not known"):
            learner.predict(other, labels, x, calibrated=True)
    other, _, labels = support(run, "three")
    with pytest.raises(UsageError, match="calibrated for 2 classes, got 3: leave calibrated out, or train"):
        learner.predict(other, labels, x, calibrated=True)


def test_the_classifier_warns_where_it_is_fitted_and_where_it_predicts(run: Path) -> None:
    x, labels, _ = support(run, "more")
    with pytest.warns(CalibrationWarning, match=NOTE):
        classifier = FewShotClassifier(run, calibrated=True).fit(x, labels)
    with pytest.warns(CalibrationWarning, match=NOTE):
        classifier.predict_proba(x)
    x, labels, _ = support(run, "three")
    with pytest.raises(UsageError, match="calibrated for 2 classes, got 3"):
        FewShotClassifier(run, calibrated=True).fit(x, labels)


def test_predictions_of_files_say_it_once(run: Path, capsys: pytest.CaptureFixture) -> None:
    folder = folder_of(run)
    for name, given in (("as", None), ("more", "5"), ("unequal", "2 to 4")):
        files = ["--support", str(folder / f"{name}.csv"), "--query", str(folder / "as.csv")]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert main(["fewshot", "predict", str(run), *files, "--calibrated", "--json", "p.json"]) == 0
        said = capsys.readouterr().err
        found = json.loads(Path("p.json").read_text())
        assert said.count(NOTE) == (given is not None)
        assert ("note" in found) == (given is not None)
        assert given is None or f"{NOTE}{given}: " in found["note"]
    files = ["--support", str(folder / "three.csv"), "--query", str(folder / "as.csv")]
    assert main(["fewshot", "predict", str(run), *files, "--calibrated"]) == 2
    assert "calibrated for 2 classes, got 3" in capsys.readouterr().err


def test_a_regression_is_not_sent_to_figures_that_refuse_it() -> None:
    rng = np.random.default_rng(0)
    rows = [f"{rng.normal():.4f},{rng.normal():.4f},{'xy'[row % 2]}" for row in range(80)]
    Path("t.csv").write_text("\n".join(["size,height,site", *rows]))
    options = {"csv": "t.csv", "target": "height", "task_column": "site"}
    learner = {"iterations": 1, "train_shots": 3, "train_queries": 3}
    config = FewShotConfig(
        "cnp", "csv", data_options=options, shots=3, queries=3, learner_options=learner, episodes=2, baselines=False
    )
    opened = metarl.load_run(metarl.train(config, progress=False))
    with pytest.raises(UsageError, match="is regression: calibrated are the probabilities of classes"):
        metarl.fewshot.predict_files(opened, "t.csv", "t.csv", calibrated=True)
    with pytest.raises(UsageError, match="a regression has none, leave calibrated out"):
        opened.learner.predict([[1.0]], [[1.0]], [[1.0]], calibrated=True)
