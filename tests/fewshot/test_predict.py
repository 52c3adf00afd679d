"""A run used on files: what travels with it, predictions with their reasons, the estimator, ONNX and the model card."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

import metarl.fewshot
from metarl import UsageError
from metarl.fewshot import (
    CalibrationWarning,
    EpisodeShape,
    FewShotClassifier,
    FewShotConfig,
    draw_explanation,
    explain,
    export_embedding,
    fairness_curve,
    load,
    train,
)
from metarl.fewshot.calibration import read_calibration
from metarl.fewshot.data import open_data
from metarl.fewshot.data.encoder import TableEncoder, label_codes, open_encoder
from metarl.fewshot.episodes import TaskSpec
from metarl.fewshot.learners import learner_class
from metarl.fewshot.learners.matching import Matching, MatchingConfig
from metarl.fewshot.learners.protonet import ProtoNet, ProtoNetConfig
from metarl.fewshot.preprocessing import Preprocessing
from metarl.registry import list_learners
from metarl.scripts.cli import main

HEADER = ["age", "income", "seen", "city", "outcome"]


def patients(count: int = 80) -> list[list[str]]:
    """Ill people are older. One in nine incomes is missing, incomes have decimal commas."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        ill = number % 2
        income = "NA" if number % 9 == 0 else f"{1000 + 50 * rng.normal():.1f}".replace(".", ",")
        city = "Oslo" if rng.random() < 0.5 else "Rome"
        rows.append(
            [f"{40 + 20 * ill + rng.normal():.2f}".replace(".", ","), income, "2024-02-03", city, ("well", "ill")[ill]]
        )
    return rows


def write(path: Path, rows: list[list[str]], header: list[str] = HEADER) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows([header, *rows])
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated run on a table, and files to predict; the table itself is gone."""
    folder = tmp_path_factory.mktemp("patients")
    rows = patients()
    table = write(folder / "all.csv", rows)
    options = ["--csv", table, "--label", "outcome", "--shots", "4", "--queries", "4"]
    short = ["--iterations", "40", "--episodes", "10", "--output", str(folder / "run")]
    assert main(["fewshot", "protonet", "--data", "csv", *options, *short]) == 0
    assert main(["evaluate", str(folder / "run"), "--figures", "--tasks", "10"]) == 0
    write(folder / "support.csv", rows[:10])
    write(folder / "query.csv", [row[:4] for row in rows[40:46]], HEADER[:4])
    Path(table).unlink()
    return folder


def test_the_encoder_travels_with_the_run(tmp_path: Path):
    table = write(tmp_path / "all.csv", patients())
    data = open_data("csv", {"csv": table, "label": "outcome"})
    encoder = open_encoder(json.loads(json.dumps(data.encoder())))
    assert encoder is not None
    assert torch.equal(encoder.inputs(table), data.encode(table))
    assert encoder.labels(table) == [row[-1] for row in patients()]
    assert encoder.classes == ("ill", "well")
    places = encoder.features()
    assert list(places) == ["age", "income", "seen", "city"]
    assert sorted(i for inputs in places.values() for i in inputs) == list(range(data.preprocessing.shape[0]))
    assert open_data("iris").encoder() is None
    assert open_encoder(None) is None
    for damaged in ({}, {"kind": "table"}, {"kind": "table", "columns": [{"role": "number"}]}):
        with pytest.raises(UsageError):
            open_encoder(damaged)


def test_the_favourable_label_is_label_one():
    assert label_codes(["a", "c", "b"], "a") == (["b", "a", "c"], [1, 2, 0])
    assert label_codes(["a", "b"], None) == (["a", "b"], [0, 1])
    with pytest.raises(UsageError, match="no support row is 'c'"):
        label_codes(["a", "b"], "c")


def test_groups_are_those_of_the_training(tmp_path: Path):
    encoder = TableEncoder("y", ("a", "b"), (), group="sex", group_names=("f", "m"))
    path = write(tmp_path / "s.csv", [["a", "m"], ["b", "f"]], ["y", "sex"])
    assert encoder.groups(path).tolist() == [1, 0]
    with pytest.raises(UsageError, match="the run knows f, m"):
        encoder.groups(write(tmp_path / "t.csv", [["a", "x"]], ["y", "sex"]))


def test_files_are_predicted_by_the_command_line(folder: Path, capsys: pytest.CaptureFixture):
    arguments = [str(folder / "run"), "--support", str(folder / "support.csv"), "--query", str(folder / "query.csv")]
    assert (
        main(["fewshot", "predict", *arguments, "--calibrated", "--explain", "--json", str(folder / "out.json")]) == 0
    )
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["label"] for row in rows] == ["well", "ill"] * 3
    found = json.loads((folder / "out.json").read_text())
    first = found["predictions"][0]
    assert sum(first["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert first["set"] == [
        n for n, p in first["probabilities"].items() if 1 - p <= read_calibration(folder / "run").threshold
    ]
    assert first["explanation"]["features"][0]["feature"] == "age"
    learner = load(folder / "run")
    y = [learner.file_encoder.classes.index(name) for name in learner.file_encoder.labels(folder / "support.csv")]
    x = [learner.file_encoder.inputs(folder / f"{name}.csv") for name in ("support", "query")]
    with pytest.warns(CalibrationWarning):  # five rows of each class, not four
        p = learner.predict(x[0], y, x[1], calibrated=True)
    assert p[0].tolist() == pytest.approx(list(first["probabilities"].values()))
    scores = learner.predict(x[0], y, x[1]).double().log() / learner.temperature
    assert torch.allclose(scores.softmax(-1), p.double(), atol=1e-5)


def test_what_cannot_be_predicted_is_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    run, support, query = (str(folder / name) for name in ("run", "support.csv", "query.csv"))
    one = write(tmp_path / "one.csv", [row for row in patients(10) if row[-1] == "ill"])
    narrow = write(tmp_path / "narrow.csv", [["40"]], ["age"])
    for arguments, message in [
        ((run, "--support", query, "--query", query), "has no column 'outcome'"),
        ((run, "--support", one, "--query", query), "want examples of each class"),
        ((run, "--support", support, "--query", narrow), "has no column 'income'"),
    ]:
        assert main(["fewshot", "predict", *arguments]) == 2
        assert message in capsys.readouterr().err
    plain = train(
        FewShotConfig("protonet", "iris", learner_options={"iterations": 1}, episodes=2, output=tmp_path / "i")
    )
    assert main(["fewshot", "predict", str(plain), "--support", support, "--query", query]) == 2
    assert "reads no files" in capsys.readouterr().err
    with pytest.raises(UsageError, match="no temperature"):
        load(plain).predict(torch.zeros(3, 4), [0, 1, 2], torch.zeros(1, 4), calibrated=True)


def test_leaving_out_and_exchanging_are_those_done_by_hand():
    spec = open_data("biased").spec(EpisodeShape(ways=2))
    generator = torch.Generator().manual_seed(0)
    x, q = torch.randn(5, 6, generator=generator), torch.randn(2, 6, generator=generator)
    y = torch.tensor([0, 1, 0, 1, 1])
    learner = Matching(MatchingConfig(), spec, seed=0)
    found = explain(learner, x, y, q, features={"a": [0, 1], "b": [2], "rest": [3, 4, 5]})
    p = learner.predict(x, y, q)
    top = p.argmax(1)
    kept = torch.tensor([0, 2, 3, 4])
    without = learner.predict(x[kept], y[kept], q)
    assert torch.allclose(found.support_effect[:, 1], (p - without).gather(1, top[:, None])[:, 0], atol=1e-6)
    mean = torch.zeros(2, 2)
    for row in x:
        changed = q.clone()
        changed[:, :2] = row[:2]
        mean += learner.predict(x, y, changed) / 5
    assert torch.allclose(found.feature_effect[:, 0], (p - mean).gather(1, top[:, None])[:, 0], atol=1e-6)
    votes = found.attention @ torch.nn.functional.one_hot(y).float()
    assert torch.allclose(votes, p, atol=1e-6)  # the answer is the attended labels
    one = explain(learner, x[:2], y[:2], q)
    assert one.support_effect.isnan().all()
    assert one.of_queries(3)[0]["support"] == []


def test_distances_are_to_the_prototypes():
    learner = ProtoNet(ProtoNetConfig(), open_data("biased").spec(EpisodeShape(ways=2)), seed=0)
    x, q = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), torch.ones(1, 6)
    found = explain(learner, x, [0, 1, 0, 1], q)
    e = learner.embed(learner.spec.preprocessing(x))
    wanted = torch.cdist(learner.embed(q), torch.stack([e[0::2].mean(0), e[1::2].mean(0)]))
    assert torch.allclose(found.distances, wanted.detach(), atol=1e-5)


def test_the_features_of_a_picture_are_squares(images):
    learner = ProtoNet(ProtoNetConfig(width=4), images.spec(EpisodeShape(2, 2, 2)), seed=0)
    x = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    found = explain(learner, x, [0, 1, 0, 1], x[:1])
    assert found.features[5] == "row 2, column 2"
    assert found.feature_effect.shape == (1, 16)


class AnyWidth(FewShotClassifier):
    """Makes a learner for the columns of `X`, so that scikit-learn's checks, each with its own width, can be run."""

    def _open(self, columns, classes):
        scaled = Preprocessing((columns,), scale=(0.3,))
        return ProtoNet(
            ProtoNetConfig(hidden=(64,)), TaskSpec("classification", EpisodeShape(classes), scaled, classes)
        )


def test_it_is_an_estimator_of_scikit_learn():
    named = {"check_methods_subset_invariance": "wants more digits than float32 has"}
    check_estimator(AnyWidth("run"), on_skip=None, expected_failed_checks=named)


def test_a_row_is_predicted_alike_whatever_comes_with_it():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), np.arange(30) % 3
    classifier = AnyWidth("run").fit(x, y)
    alone = np.concatenate([classifier.predict_proba(row[None]) for row in x])
    np.testing.assert_allclose(classifier.predict_proba(x), alone, atol=1e-4)


def test_the_estimator_is_the_learner_of_the_run(folder: Path):
    learner = load(folder / "run")
    x, q = (learner.file_encoder.inputs(folder / f"{name}.csv").numpy() for name in ("support", "query"))
    labels = np.array(learner.file_encoder.labels(folder / "support.csv"))
    classifier = clone(FewShotClassifier(folder / "run")).fit(x, labels)
    assert classifier.classes_.tolist() == ["ill", "well"]
    wanted = learner.predict(x, (labels == "well").astype(int), q)
    np.testing.assert_allclose(classifier.predict_proba(q), wanted, atol=1e-6)
    assert classifier.predict(q).tolist() == ["well", "ill"] * 3
    with pytest.raises(UsageError, match=r"was trained with \d+ features as input"):
        classifier.fit(x[:, :2], labels)
    with pytest.raises(UsageError, match="one class"):
        classifier.fit(x, np.ones(len(x)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vectors", "images"])
def test_the_exported_embedding_is_the_learners(kind: str, tmp_path: Path, images):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    data = images if kind == "images" else open_data("wine")
    learner = ProtoNet(ProtoNetConfig(width=4, hidden=(8,)), data.spec(EpisodeShape(2, 2, 2)), seed=0)
    learner.fit(
        data.episodes("train", 2, EpisodeShape(2, 2, 2), seed=0), seed=0
    )  # running averages are not the initial ones
    export_embedding(learner, tmp_path / "embedding.onnx")
    session = runtime.InferenceSession(str(tmp_path / "embedding.onnx"))
    for rows in (1, 5):
        raw = torch.rand(rows, *learner.spec.input_shape, generator=torch.Generator().manual_seed(rows))
        (found,) = session.run(["embedding"], {"raw": raw.numpy()})
        wanted = learner.embed(learner.spec.preprocessing(raw)).detach().numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_without_an_embedding_there_is_nothing_to_export(tmp_path: Path):
    pytest.importorskip("onnxscript")
    learner = FewShotConfig("maml", "iris").resolve().make_learner()
    with pytest.raises(UsageError, match="no embedding"):
        export_embedding(learner, tmp_path / "embedding.onnx")


def test_every_run_has_a_model_card(folder: Path):
    card = (folder / "run" / "MODEL_CARD.md").read_text()
    for words in (
        "# protonet on csv",
        "age: numbers",
        "outcome: the label",
        "accuracy",
        "## Limits",
        "No protected group",
    ):
        assert words in card


def test_fewshot_names_what_it_has():
    assert metarl.fewshot.FewShotClassifier is FewShotClassifier
    with pytest.raises(AttributeError, match="nothing"):
        _ = metarl.fewshot.nothing


def test_explanations_are_drawn_for_tables_and_pictures(tmp_path: Path, images):
    biased = ProtoNet(ProtoNetConfig(), open_data("biased").spec(EpisodeShape(ways=2)), seed=0)
    found = explain(biased, torch.randn(6, 6, generator=torch.Generator().manual_seed(0)), [0, 1] * 3, torch.ones(2, 6))
    draw_explanation(found, 1, tmp_path / "table.png", classes=["no", "yes"])
    learner = ProtoNet(ProtoNetConfig(width=4), images.spec(EpisodeShape(2, 2, 2)), seed=0)
    x = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    shown = explain(learner, x, [0, 1, 0, 1], x[:2])
    draw_explanation(shown, 0, tmp_path / "picture.png", support=x, queries=x[:2])
    for name in ("table", "picture"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert len(np.unique(np.asarray(picture.convert("L")))) > 10
    with pytest.raises(UsageError, match="query must lie in 0 to 1"):
        draw_explanation(found, 2, tmp_path / "none.png")


def test_the_curve_of_penalties_is_that_of_the_runs(tmp_path: Path):
    options = {"iterations": 2, "hidden": (8,)}
    fair = {"penalty_inside": 2.0, "penalty_outside": 4.0, "criterion": "equal-opportunity"}
    config = FewShotConfig("protonet", "biased", "fairness", None, 5, 20, options, objective_options=fair, episodes=5)
    rows = fairness_curve(config, [0, 3], tmp_path / "curve", progress=False)
    assert [row["penalty"] for row in rows] == [0, 3]
    assert json.loads((tmp_path / "curve" / "curve.json").read_text()) == rows
    assert (tmp_path / "curve" / "curve.png").is_file()
    result = json.loads((tmp_path / "curve" / "penalty-3" / "evaluation.json").read_text())
    assert rows[1]["gap"] == result["metrics"]["equal_opportunity_gap"]["mean"]
    assert "--penalty-inside 1.5 --penalty-outside 3.0" in result["command"]
    with pytest.raises(UsageError, match="different numbers"):
        fairness_curve(config, [1, 1], tmp_path / "other")
    with pytest.raises(UsageError, match="objective fairness"):
        fairness_curve(FewShotConfig("protonet", "biased"), [1], tmp_path / "other")


@pytest.mark.parametrize("name", list_learners())
def test_every_classifier_predicts_one_query_and_explains_it(name: str):
    data = open_data("iris")
    cls = learner_class(name)
    spec = data.spec(EpisodeShape(3, 2, 2))
    if "classification" not in cls.kinds:
        pytest.skip("regression alone")
    config = cls.default_config(spec)
    config = dataclasses.replace(config, test_steps=2) if hasattr(config, "test_steps") else config
    learner = cls(config, spec, seed=0)
    episode = data.episodes("test", 1, spec.shape, seed=0)
    x, y, q = data.pools["test"].inputs[:6], episode.support.y[0].sort().values, data.pools["test"].inputs[6:7]
    found = explain(learner, x, y, q)
    assert torch.allclose(found.probabilities, learner.predict(x, y, q), atol=1e-6)
    assert found.support_effect.isfinite().all()
    assert found.feature_effect.shape == (1, 4)
