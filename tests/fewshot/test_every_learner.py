"""Every learner on classification data of every kind that people bring: trains, resumes, predicts a query, explains."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

import metarl
from metarl.fewshot import EpisodeShape, FewShotConfig, FewShotRun, explain, from_dataset
from metarl.fewshot.data import DataSet, open_data
from metarl.registry import list_learners

ROWS = 160
GENERATOR_SEED = 0


def columns() -> dict[str, list[Any]]:
    """Two classes, of which the second is larger and says so in words; four sites, two groups."""
    generator = np.random.default_rng(GENERATOR_SEED)
    second = np.arange(ROWS) % 2
    return {
        "size": (generator.normal(size=ROWS) + 3 * second).round(3).tolist(),
        "city": [("Rome", "Oslo", "Paris")[row % 3] for row in range(ROWS)],
        "note": [("calm and well today", "fever and cough again")[value] for value in second],
        "site": [f"site {row // 2 % 4}" for row in range(ROWS)],
        "sex": [("f", "m")[row // 3 % 2] for row in range(ROWS)],
        "state": [("well", "ill")[value] for value in second],
    }


def table(folder: Path, **options: Any) -> DataSet:
    pl.DataFrame(columns()).write_csv(folder / "table.csv")
    return open_data("csv", {"csv": str(folder / "table.csv"), "label": "state", **options})


def parquet(folder: Path) -> DataSet:
    pl.DataFrame(columns()).write_parquet(folder / "table.parquet")
    return open_data("csv", {"csv": str(folder / "table.parquet"), "label": "state", "ignore": ("note",)})


def arrays(folder: Path, *shape: int) -> DataSet:
    y = np.arange(ROWS) % 2
    x = np.random.default_rng(0).normal(size=(ROWS, *shape)) + 2 * y.reshape(-1, *[1] * len(shape))
    np.savez(folder / "arrays.npz", x=x, y=y)
    return open_data("npz", {"file": str(folder / "arrays.npz")})


def pictures(folder: Path) -> DataSet:
    generator = np.random.default_rng(0)
    for way in range(2):
        (folder / "pictures" / f"kind{way}").mkdir(parents=True)
        for number in range(20):
            values = generator.integers(0, 128, (28, 28)) + 120 * way * (np.arange(28) % 4 < 2)
            Image.fromarray(values.astype(np.uint8)).save(folder / "pictures" / f"kind{way}" / f"{number}.png")
    return open_data("folder", {"root": folder / "pictures", "size": 28})


def in_memory(folder: Path) -> DataSet:
    draw = torch.Generator().manual_seed(0)
    pairs = [(torch.randn(5, generator=draw) + 2 * (row % 2), row % 2) for row in range(90)]
    return from_dataset(pairs[:50], pairs[50:])


KINDS: dict[str, Callable[[Path], DataSet]] = {
    "csv": lambda folder: table(folder, ignore=("note",)),
    "groups": lambda folder: table(folder, ignore=("note",), group="sex", favourable="well"),
    "sites": lambda folder: table(folder, ignore=("note",), task_column="site"),
    "text": lambda folder: table(folder, text=("note",), ignore=("size", "city", "sex", "site"), text_inputs=16),
    "parquet": parquet,
    "embeddings": lambda folder: arrays(folder, 6),
    "signals": lambda folder: arrays(folder, 2, 32),
    "pictures": pictures,
    "in memory": in_memory,
}
SHAPE = EpisodeShape(ways=2, shots=3, queries=2)


def check(folder: Path, learner: str, kind: str) -> None:
    data = KINDS[kind](folder)
    options = {"iterations": 2, "num_tasks": 2, "train_ways": 2, "train_shots": 3, "train_queries": 2, "width": 4}
    sizes: dict[str, Any] = {"ways": SHAPE.ways, "shots": SHAPE.shots, "queries": SHAPE.queries}
    config = FewShotConfig(
        learner,
        data,
        **sizes,
        learner_options=options,
        episodes=2,
        baselines=False,
        checkpoint_every=1,
        output=folder / "run",
    )
    whole = metarl.train(config, progress=False)
    before = metarl.load_run(whole).checkpoint.tensors
    for file in whole.glob("checkpoints/iteration-000002.*"):
        file.unlink()
    (whole / "evaluation.json").unlink()
    metarl.resume(whole, data=data, progress=False)
    run = metarl.load_run(whole)
    assert isinstance(run, FewShotRun)
    after = run.checkpoint.tensors
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=0)
    pool = data.pools["test"]  # type: ignore[attr-defined]
    support = torch.cat([pool.examples(torch.arange(int(start), int(start) + 4)) for start in pool.starts[:2]])
    y = [0] * 4 + [1] * 4
    p = run.learner.predict(support, y, support[:1])
    assert p.shape == (1, 2)
    torch.testing.assert_close(p.sum(1), torch.ones(1))
    torch.testing.assert_close(run.learner.predict(support, y, support[:5])[:1], p, rtol=1e-4, atol=1e-5)
    found = explain(run.learner, support, y, support[:1])
    assert found.support_effect.shape == (1, 8)
    assert found.support_effect.isfinite().all()
    assert found.feature_effect.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_prototypes_on_every_kind(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    check(tmp_path, "protonet", kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("learner", list_learners())
def test_every_learner_on_every_kind(learner: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    check(tmp_path, learner, kind)
