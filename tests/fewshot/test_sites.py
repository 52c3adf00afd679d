"""Tables of several sites, each of which is a task: what is drawn, what is left out, and the interval over sites."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats

import metarl.fewshot
from metarl import UsageError
from metarl.fewshot import EpisodeShape, FewShotConfig
from metarl.fewshot.data import open_data
from metarl.fewshot.data.csv_table import CsvTable
from metarl.fewshot.data.sites import SitePool
from metarl.fewshot.episodes import Members
from metarl.fewshot.intervals import mean_interval


def clinics(folder: Path, sites: int = 10, rows: int = 40, *, small: int = 0) -> str:
    """A table of sites whose scale of `dose` differs; `small` further sites have too few rows of the ill."""
    generator = np.random.default_rng(0)
    site = np.repeat(np.arange(sites), rows)
    ill = np.tile(np.arange(rows) % 2, sites)
    dose = generator.normal(size=len(site)) + 2 * ill + 3 * site
    words = [f"site {number:02d}" for number in site] + [
        f"small {number}" for number in range(small) for _ in range(12)
    ]
    table = pl.DataFrame(
        {
            "site": words,
            "dose": np.append(dose, np.zeros(12 * small)).round(3),
            "sex": np.resize(["f", "m", "m"], len(words)),
            "state": [*np.array(["well", "ill"])[ill], *(["ill"] + ["well"] * 11) * small],
            "cost": np.append(100 * (site + 1) + 50 * dose, np.zeros(12 * small)).round(3),
        }
    )
    table.write_csv(folder / "clinics.csv")
    return str(folder / "clinics.csv")


def read(file: str, **options: object) -> CsvTable:
    data = open_data("csv", {"csv": file, "label": "state", "task_column": "site", "ignore": ("cost",), **options})
    assert isinstance(data, CsvTable)
    return data


def test_an_episode_is_of_one_site_and_label_j_is_class_j(tmp_path: Path) -> None:
    data = read(clinics(tmp_path))
    assert data.classes == ["ill", "well"]
    pools = data.pools
    assert {split: len(pool.units.unique()) for split, pool in pools.items()} == {"train": 5, "test": 5}
    assert not set(pools["train"].units.tolist()) & set(pools["test"].units.tolist())
    episodes = data.episodes("test", 200, data.default_shape(), seed=0)
    assert episodes.members is not None
    assert episodes.members.name == "sites"
    both = torch.cat([episodes.members.support, episodes.members.query], 1)
    assert bool((both == both[:, :1]).all())
    assert set(both[:, 0].tolist()) == set(pools["test"].units.tolist())
    for part in (episodes.support, episodes.query):  # the ill have the higher doses in every episode
        dose = part.x[..., 0]
        means = [torch.stack([row[y == label].mean() for row, y in zip(dose, part.y, strict=True)]) for label in (0, 1)]
        assert bool((means[0] > means[1]).double().mean() > 0.95)


def test_support_and_query_share_no_row() -> None:
    pool = SitePool(torch.arange(60.0)[:, None], torch.arange(60) % 2, torch.arange(60) // 20)
    drawn = pool.draw(50, EpisodeShape(2, 4, 6), torch.Generator().manual_seed(0))
    assert drawn.shape == (50, 2, 10)
    assert all(len(set(row)) == 20 for row in drawn.flatten(1).tolist())
    inputs, labels = pool.labelled()
    torch.testing.assert_close(inputs[:, 0] % 2, labels.float())


def test_small_sites_are_named_left_out_and_counted(tmp_path: Path) -> None:
    data = read(clinics(tmp_path, small=2))
    lines = data.summary()
    assert "2 sites left out, with fewer than 10 rows of a class: small 0 (1 of ill), small 1 (1 of ill)" in lines
    assert "site: the sites, each a task: 5 train, 5 test" in lines
    assert data.facts() == {"split_by": "site", "task_column": "site", "sites_left_out": 2}
    assert sum(len(pool.inputs) for pool in data.pools.values()) == 400
    assert sum(len(pool.inputs) for pool in read(clinics(tmp_path, small=2), task_rows=1).pools.values()) == 424
    with pytest.raises(UsageError, match=r"column 'site': 0 of 10 sites have 50 rows of each class, and two are"):
        read(clinics(tmp_path), task_rows=50)


def test_the_favourable_class_is_label_one_at_every_site(tmp_path: Path) -> None:
    for favourable, classes in (("well", ["ill", "well"]), ("ill", ["well", "ill"])):
        data = read(clinics(tmp_path), group="sex", favourable=favourable)
        assert data.classes == classes
        episodes = data.episodes("test", 20, data.default_shape(), seed=0)
        assert episodes.support.groups is not None
        ill = episodes.support.x[..., 0][episodes.support.y == classes.index("ill")].mean()
        assert ill > episodes.support.x[..., 0].mean()
    with pytest.raises(UsageError, match=r"--favourable fine: 'state' has ill, well"):
        read(clinics(tmp_path), group="sex", favourable="fine")


def test_sites_of_a_regression(tmp_path: Path) -> None:
    file = clinics(tmp_path)
    data = open_data("csv", {"csv": file, "target": "cost", "task_column": "site", "ignore": ("state",)})
    assert data.kind == "regression"
    spec = data.spec(data.default_shape())
    assert (spec.shape.ways, spec.outputs) == (1, 1)
    train = data.pools["train"].targets  # type: ignore[attr-defined]
    torch.testing.assert_close(train.mean(0), torch.zeros(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.std(0, correction=0), torch.ones(1))
    options = {"iterations": 3}
    config = FewShotConfig(
        "maml", "csv", learner_options=options, data_options=data.config, episodes=20, output=tmp_path / "run"
    )
    run = metarl.train(config, progress=False)
    learner = metarl.fewshot.load(run)
    x = torch.zeros(5, spec.input_shape[0])
    low, high = (learner.predict(x, torch.full((5, 1), value), x).mean() for value in (0.0, 1000.0))
    assert abs(float(low)) < 200  # in the units of the file, after steps towards the support
    assert 700 < float(high) < 1200


def test_rows_of_one_table_are_one_task_and_the_summary_says_so(tmp_path: Path) -> None:
    data = open_data("csv", {"csv": clinics(tmp_path), "target": "cost", "ignore": ("site",)})
    assert data.pools["test"].unit_name == "rows"  # type: ignore[attr-defined]
    assert any(line.startswith("every episode is the same task, some rows of one table") for line in data.summary())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "cost"}, "--label COLUMN of classes, or --target COLUMN"),
        ({"label": None}, "--label COLUMN of classes, or --target COLUMN"),
        ({"label": None, "target": "state", "ignore": ()}, "holds|has no number"),
        ({"label": None, "target": "cost", "ignore": (), "group": "sex", "favourable": "x"}, "leave --group"),
        ({"split_by": "rows", "label": "site"}, "'site' cannot be both label and --task-column"),
        ({"split_by": "site"}, "leave --split-by out"),
        ({"task_column": "sit"}, "did you mean site"),
        ({"task_rows": 0}, "task_rows must be"),
    ],
)
def test_mistakes_are_refused_in_a_line(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read(clinics(tmp_path), **options)
    assert "\n" not in str(caught.value)


def test_ways_are_all_classes(tmp_path: Path) -> None:
    data = read(clinics(tmp_path))
    with pytest.raises(UsageError, match=r"3 ways asked for, but every episode of clinics.csv \(test\) has all 2"):
        data.episodes("test", 1, EpisodeShape(3, 1, 1), seed=0)
    with pytest.raises(UsageError, match=r"has a site with 20 of one: --task-rows 30 leaves"):
        data.episodes("test", 1, EpisodeShape(2, 15, 15), seed=0)


def test_the_interval_over_sites_is_students_of_their_means() -> None:
    """As many episodes of each site, without noise within one: the interval of the mean of a sample."""
    means = torch.tensor([0.5, 0.9, 0.7, 0.8, 0.6, 0.75]).double()
    sites = torch.arange(6).repeat(2000)
    members = Members("sites", *(sites[:, None].expand(-1, size) for size in (4, 6, 4, 6)))
    found = mean_interval(means[sites], members, means[sites][:, None].expand(-1, 6))
    low, high = stats.t.interval(0.95, 5, means.mean(), stats.sem(means))
    assert found.half == pytest.approx((high - low) / 2, rel=5e-3)
    assert found.over == "over 6 sites and the episodes drawn"
    few = Members("sites", *(sites[:2, None].expand(-1, size) for size in (4, 6, 4, 6)))
    assert mean_interval(means[:2], few, means[:2, None].expand(-1, 6)).half is None


def test_the_interval_over_sites_covers() -> None:
    """Sites of which each has its own difficulty, and a classifier that is right with that probability."""
    generator, hits, trials = np.random.default_rng(0), 0, 300
    for _ in range(trials):
        difficulty = generator.beta(8, 2, 8)
        drawn = generator.integers(0, 8, 300)
        right = torch.from_numpy(generator.random((300, 10)) < difficulty[drawn][:, None]).double()
        units = torch.from_numpy(drawn)[:, None]
        members = Members("sites", *(units.expand(-1, size) for size in (4, 10, 4, 10)))
        found = mean_interval(right.mean(1), members, right)
        assert found.mean is not None
        assert found.half is not None
        hits += abs(found.mean - 0.8) < found.half
    assert 0.92 <= hits / trials <= 0.985
