"""Predictions for files of every kind of one's own data: sites, regression, texts, arrays, pictures."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from small_runs import train_small

import metarl.fewshot
from metarl import UsageError
from metarl.fewshot import EpisodeShape, FewShotClassifier, FewShotConfig, FewShotRun, figures, predict_files
from metarl.fewshot.data import open_data
from metarl.fewshot.data.encoder import open_encoder
from metarl.fewshot.data.sites import SitePool
from metarl.fewshot.validation import Validated, hold_out
from metarl.scripts.cli import main


def clinics(path: Path, labels: tuple[str, str] = ("10", "9"), rows: int = 240) -> pl.DataFrame:
    """Six sites; the second label has the higher doses, and costs grow with them. A note names the label in words."""
    generator = np.random.default_rng(0)
    second = np.arange(rows) % 2
    table = pl.DataFrame(
        {
            "site": [f"site {row % 12 // 2}" for row in range(rows)],
            "dose": (generator.normal(size=rows) + 4 * second).round(3),
            "note": [("calm and well today", "fever and cough again")[value] for value in second],
            "cost": [f"{value:.2f}".replace(".", ",") for value in 1000 + 300 * second + generator.normal(size=rows)],
            "state": [labels[value] for value in second],
        }
    )
    table.write_csv(path, separator=";")
    return table


def trained(folder: Path, data: str, options: dict[str, object], iterations: int = 60, **others: object) -> FewShotRun:
    learner = "protonet" if options.get("target") is None else "maml"
    learner_options = {"iterations": iterations, **({"train_ways": 2} if data == "folder" else {})}
    return train_small(learner, data, options, folder / "run", learner_options=learner_options, **others)


def site_options(path: Path) -> dict[str, object]:
    return {"csv": str(path), "label": "state", "task_column": "site", "ignore": ("note", "cost")}


def test_labels_of_sites_mean_the_same_in_files(tmp_path: Path) -> None:
    """The classes are 9 and 10 in the order of numbers, which is not that of words."""
    table = clinics(tmp_path / "all.csv")
    run = trained(tmp_path, "csv", site_options(tmp_path / "all.csv"), shots=3, queries=3)
    assert run.encoder is not None
    assert run.encoder.fixed_classes == ("9", "10")
    table[:20].write_csv(tmp_path / "s.csv", separator=";")
    table[20:40].drop("state").write_csv(tmp_path / "q.csv", separator=";")
    found = predict_files(run, tmp_path / "s.csv", tmp_path / "q.csv", explained=False)
    assert found["classes"] == ["9", "10"]
    x, q = (run.encoder.inputs(tmp_path / f"{name}.csv") for name in "sq")
    y = [["9", "10"].index(label) for label in run.encoder.labels(tmp_path / "s.csv")]
    expected = run.learner.predict(x, y, q)
    given = torch.tensor([list(row["probabilities"].values()) for row in found["predictions"]])
    torch.testing.assert_close(given, expected)
    labels = np.array([float(label) for label in run.encoder.labels(tmp_path / "s.csv")])
    classifier = FewShotClassifier(run.path).fit(x.numpy(), labels)
    np.testing.assert_allclose(classifier.predict_proba(q.numpy()), expected.numpy(), rtol=1e-5)
    table[:20].with_columns(state=pl.lit("9")).write_csv(tmp_path / "one.csv", separator=";")
    with pytest.raises(UsageError, match=r"the support rows are of 9; the run wants rows of each of its classes 9, 10"):
        predict_files(run, tmp_path / "one.csv", tmp_path / "q.csv")


def test_figures_of_sites_are_by_class(tmp_path: Path) -> None:
    clinics(tmp_path / "all.csv", ("ill", "well"))
    options = {**site_options(tmp_path / "all.csv"), "protected": ("note",), "ignore": ("cost",), "favourable": "ill"}
    data = open_data("csv", options)
    learner = trained(tmp_path, "csv", options, shots=3, queries=3).learner
    found, _ = figures(learner, data, episodes=20)
    assert found["averaging"].endswith("labels mean the same in every episode")
    assert [row["class"] for row in found["per_class"]] == ["well", "ill"]
    assert np.array(found["confusion"]["counts"]).sum() == 20 * 6
    assert found["protected"]["note"]["favourable"] == "ill"
    assert [row["group"] for row in found["protected"]["note"]["groups"]] == [
        "calm and well today",
        "fever and cough again",
    ]
    rates = [row["selection_rate"]["mean"] for row in found["protected"]["note"]["groups"]]
    assert rates[0] > rates[1] + 0.5  # the notes name the label


def test_whole_sites_are_held_out_for_validation(tmp_path: Path) -> None:
    clinics(tmp_path / "all.csv")
    data = open_data("csv", site_options(tmp_path / "all.csv"))
    validated = Validated(data, share=0.3)
    sites = {split: set(pool.units.tolist()) for split, pool in validated.pools.items()}
    assert [len(sites[split]) for split in ("train", "validation", "test")] == [2, 1, 3]
    assert not sites["train"] & sites["validation"]
    assert validated.class_names("validation") == ["9", "10"]
    episodes = validated.episodes("validation", 4, EpisodeShape(2, 2, 2), seed=0)
    assert episodes.members is not None
    assert episodes.members.query_ids is not None
    assert bool((episodes.members.support_classes == episodes.support.y).all())
    run = trained(tmp_path, "csv", site_options(tmp_path / "all.csv"), validate_every=20, validation_episodes=5)
    assert json.loads((run.path / "evaluation.json").read_text())["validation"]["best"] > 0.5


def test_a_part_of_a_site_pool_keeps_rows_targets_and_ids() -> None:
    rows = torch.arange(24)
    pool = SitePool(
        rows[:, None].float(), torch.zeros(24, dtype=torch.int64), rows // 6, targets=rows[:, None] * 2.0, ids=rows
    )
    kept, held = hold_out(pool, 0.25)
    assert isinstance(held, SitePool)
    assert held.num_sites == 1
    assert len(kept) == 18
    for part in (kept, held):
        assert part.targets is not None
        torch.testing.assert_close(part.targets, 2 * part.inputs)
        assert part.ids is not None
        assert torch.equal(part.ids, part.inputs[:, 0].long())
    single = SitePool(rows[:, None].float(), torch.zeros(24, dtype=torch.int64), torch.zeros(24, dtype=torch.int64))
    with pytest.raises(UsageError, match="one site cannot be both in training and held out"):
        hold_out(single, 0.5)


def test_values_are_predicted_in_the_units_of_the_file(tmp_path: Path) -> None:
    """Targets with decimal commas, which are standardised for training."""
    table = clinics(tmp_path / "all.csv")
    options: dict[str, object] = {"csv": str(tmp_path / "all.csv"), "target": "cost", "task_column": "site"}
    run = trained(tmp_path, "csv", {**options, "ignore": ("note", "state")}, iterations=40)
    table[:20].write_csv(tmp_path / "s.csv", separator=";")
    table[20:30].drop("cost").write_csv(tmp_path / "q.csv", separator=";")
    found = predict_files(run, tmp_path / "s.csv", tmp_path / "q.csv")
    values = [row["value"][0] for row in found["predictions"]]
    assert all(800 < value < 1600 for value in values)
    with pytest.raises(UsageError, match="line 2: column 'cost' is empty"):
        table[:2].with_columns(cost=pl.lit("")).write_csv(tmp_path / "gap.csv", separator=";")
        predict_files(run, tmp_path / "gap.csv", tmp_path / "q.csv")


def test_texts_travel_with_the_run(tmp_path: Path) -> None:
    table = clinics(tmp_path / "all.csv", ("ill", "well"))
    options: dict[str, object] = {"csv": str(tmp_path / "all.csv"), "label": "state", "text": ("note",)}
    run = trained(tmp_path, "csv", {**options, "ignore": ("dose", "cost", "site"), "text_inputs": 64}, iterations=5)
    table[:10].write_csv(tmp_path / "s.csv", separator=";")
    table[10:14].drop("state").write_csv(tmp_path / "q.csv", separator=";")
    found = predict_files(run, tmp_path / "s.csv", tmp_path / "q.csv")
    assert [row["label"] for row in found["predictions"]] == table["state"][10:14].to_list()
    assert found["predictions"][0]["explanation"]["features"][0]["feature"] == "note"


def test_arrays_are_predicted(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    y = np.array(["cat", "dog"])[np.arange(80) % 2]
    x = generator.normal(size=(80, 2, 40)) + 3 * (np.arange(80) % 2)[:, None, None]
    np.savez(tmp_path / "all.npz", x=x, y=y)
    run = trained(tmp_path, "npz", {"file": str(tmp_path / "all.npz")}, iterations=10)
    np.savez(tmp_path / "s.npz", x=x[:10], y=y[:10])
    np.savez(tmp_path / "q.npz", x=x[10:14])
    found = predict_files(run, tmp_path / "s.npz", tmp_path / "q.npz")
    assert [row["label"] for row in found["predictions"]] == y[10:14].tolist()
    assert {part["feature"] for row in found["predictions"] for part in row["explanation"]["features"]} <= {
        f"steps {first} to {first + 4}" for first in range(1, 40, 5)
    }
    with pytest.raises(UsageError, match=r"q.npz has no array y or labels"):
        predict_files(run, tmp_path / "q.npz", tmp_path / "q.npz")
    entries = open_data("npz", {"file": str(tmp_path / "all.npz")}).encoder()
    assert open_encoder(json.loads(json.dumps(entries))) == run.encoder


def drawn(folder: Path, names: list[str], count: int = 8) -> None:
    """Stripes, whose direction is the class."""
    generator = np.random.default_rng(len(names))
    rows, columns = np.mgrid[:30, :30] / 5
    for turn, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        angle = np.pi * turn / 4
        for number in range(count):
            wave = np.sin(4 * (np.cos(angle) * rows + np.sin(angle) * columns) + generator.uniform(0, 6))
            Image.fromarray((128 + 100 * wave).astype(np.uint8)).save(folder / name / f"{number}.png")


def test_folders_of_pictures_are_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    drawn(tmp_path / "all", ["a", "b", "c", "d"], count=14)
    drawn(tmp_path / "s", ["up", "over"], count=3)
    drawn(tmp_path / "q", ["up"], count=2)
    options = {"root": str(tmp_path / "all"), "size": 28}
    run = trained(tmp_path, "folder", options, iterations=5, ways=2, shots=2, queries=2)
    command = ["fewshot", "predict", str(run.path), "--support", str(tmp_path / "s"), "--query", str(tmp_path / "q")]
    assert main([*command, "--explain"]) == 0
    first, *rows = capsys.readouterr().out.splitlines()
    assert first == "row,name,label,p(over),p(up),support rows,features"
    assert [row.split(",")[:3] for row in rows] == [["1", "up/0.png", "up"], ["2", "up/1.png", "up"]]
    Image.new("RGB", (30, 30), "red").save(tmp_path / "q" / "red.png")
    with pytest.raises(UsageError, match=r"has 4 classes: training episodes have 20 ways, .* --train-ways"):
        metarl.train(FewShotConfig("protonet", "folder", data_options=options, ways=2, shots=2, queries=2))
    with pytest.raises(UsageError, match=r"red.png is in colour, unlike the 56 pictures"):
        predict_files(run, tmp_path / "s", tmp_path / "q")
    (tmp_path / "s" / "up" / "0.png").rename(tmp_path / "s" / "loose.png")
    with pytest.raises(UsageError, match=r"loose.png lies in no class folder"):
        predict_files(run, tmp_path / "s", tmp_path / "s")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty holds no pictures"):
        predict_files(run, tmp_path / "empty", tmp_path / "s")


def test_switches_of_data_sets_are_taken_on_the_command_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", x=np.random.default_rng(0).normal(size=(60, 32)), y=np.arange(60) % 3)
    short = ["--iterations", "1", "--episodes", "10", "--no-baselines", "--output", str(tmp_path / "run")]
    assert main(["fewshot", "protonet", "--data", "npz", "--file", str(tmp_path / "all.npz"), "--signal", *short]) == 0
    assert metarl.fewshot.load(tmp_path / "run").spec.input_shape == (1, 32)
