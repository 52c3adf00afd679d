"""Embeddings and signals in .npz files, and data sets in memory."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import metarl.fewshot
from metarl import UsageError
from metarl.fewshot import FewShotConfig
from metarl.fewshot.data import open_data
from metarl.fewshot.data.arrays import NpzData
from metarl.registry import list_learners


def embeddings(classes: int = 12, rows: int = 20, size: int = 8) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    y = np.arange(classes * rows) % classes
    return {"x": generator.normal(size=(classes, size))[y] + 0.3 * generator.normal(size=(len(y), size)), "y": y}


def signals(rows: int = 30, length: int = 32, channels: int = 1) -> dict[str, np.ndarray]:
    """Sine waves of a frequency for each of four classes, with a random phase."""
    generator = np.random.default_rng(0)
    y = np.arange(4 * rows) % 4
    phase = generator.uniform(0, 6.28, (len(y), channels, 1))
    wave = np.sin(2 * np.pi * (1 + 2 * y[:, None, None]) * np.arange(length) / length + phase)
    return {"x": (5 + wave + 0.1 * generator.normal(size=wave.shape)).astype(np.float32), "y": y}


def save(folder: Path, **arrays: object) -> str:
    np.savez(folder / "data.npz", **arrays)  # type: ignore[arg-type]
    return str(folder / "data.npz")


def read(folder: Path, options: dict | None = None, **arrays: object) -> NpzData:
    data = open_data("npz", {"file": save(folder, **arrays), **(options or {})})
    assert isinstance(data, NpzData)
    return data


def test_many_classes_are_split_by_class_and_few_by_row(tmp_path: Path) -> None:
    data = read(tmp_path, **embeddings())
    train, test = (set(pool.classes.tolist()) for pool in data.pools.values())
    assert not train & test
    assert data.pools["test"].unit_name == "classes"
    assert data.summary() == ["x: 240 vectors of 8", "y: 12 labels", "split by classes: 160 train, 80 test rows"]
    features = data.preprocessing(data.pools["train"].inputs)
    torch.testing.assert_close(features.mean(0), torch.zeros(8), atol=1e-6, rtol=0)
    few = read(tmp_path, **embeddings(3))
    assert few.pools["test"].unit_name == "rows"
    assert few.pools["test"].classes.tolist() == [0, 1, 2]
    assert read(tmp_path, {"split_by": "rows"}, **embeddings()).pools["train"].unit_name == "rows"


def test_other_names_words_as_labels_and_a_split_of_ones_own(tmp_path: Path) -> None:
    arrays = embeddings(4)
    words = np.array(["ash", "elm", "fir", "oak"])[arrays["y"]]
    split = np.where(np.arange(80) < 60, "train", "test")
    data = read(tmp_path, embeddings=arrays["x"].astype(np.float16), labels=words, split=split)
    assert data.classes == ["ash", "elm", "fir", "oak"]
    assert [len(pool.inputs) for pool in data.pools.values()] == [60, 20]
    assert data.pools["test"].unit_name == "rows"
    new = np.where(arrays["y"] < 2, "train", "test")
    assert read(tmp_path, x=arrays["x"], y=words, split=new).pools["test"].unit_name == "classes"
    partly = np.where((arrays["y"] < 2) | (np.arange(80) < 8), "train", "test")
    with pytest.raises(UsageError, match=r"2 of the 2 test classes|2 of the 4 test classes are training classes too"):
        read(tmp_path, x=arrays["x"], y=arrays["y"], split=np.where(np.arange(80) < 78, partly, "test"))


def test_groups_need_the_favourable_label(tmp_path: Path) -> None:
    arrays = embeddings(2, 40) | {"groups": np.arange(80) // 2 % 2}
    assert "groups: ignored, --favourable uses them" in read(tmp_path, **arrays).summary()
    data = read(tmp_path, {"favourable": "0"}, **arrays)
    assert data.facts() == {"group": "groups", "groups": ["0", "1"], "favourable": "0"}
    assert data.episodes("test", 2, data.default_shape(), seed=0).support.groups is not None
    with pytest.raises(UsageError, match=r"--favourable 7: y of .* has 0, 1"):
        read(tmp_path, {"favourable": "7"}, **arrays)
    with pytest.raises(UsageError, match="goes with groups"):
        read(tmp_path, {"favourable": "0"}, **embeddings(2))


def test_signals_have_a_convolutional_network(tmp_path: Path) -> None:
    arrays = signals()
    data = read(tmp_path, **arrays)
    assert data.preprocessing.shape == (1, 32)
    assert read(tmp_path, {"signal": True}, x=arrays["x"][:, 0], y=arrays["y"]).preprocessing == data.preprocessing
    config = FewShotConfig(
        "protonet",
        data,
        learner_options={"iterations": 40, "width": 8},
        episodes=20,
        baselines=False,
        output=tmp_path / "run",
    )
    learner = metarl.fewshot.load(metarl.train(config, progress=False))
    assert metarl.fewshot.evaluate(learner, data, episodes=20)["accuracy"] > 0.9
    x = arrays["x"]
    same = learner.predict(x[:8], arrays["y"][:8], x[:3]), learner.predict(x[:8, 0], arrays["y"][:8], x[:3, 0])
    torch.testing.assert_close(*same)
    with pytest.raises(UsageError, match=r"want signals of 1 channel\(s\) and length 32, got shape \[3, 1, 31\]"):
        learner.predict(x[:8], arrays["y"][:8], x[:3, 0, 1:])


@pytest.mark.parametrize("name", list_learners())
def test_every_learner_takes_signals_and_vectors(tmp_path: Path, name: str) -> None:
    for arrays in (signals(channels=2), embeddings(4, 30)):
        data = read(tmp_path, **arrays)
        options = {"iterations": 1, "num_tasks": 2, "train_queries": 2}
        config = FewShotConfig(name, data, learner_options=options, shots=2, queries=3)
        experiment = config.resolve(data)
        learner = experiment.make()
        learner.fit(data.episodes("train", 2, learner.training_shape, seed=0), seed=0)
        result = metarl.fewshot.evaluate(learner, data, episodes=2)
        assert 0 <= result["accuracy"] <= 1


def test_data_sets_of_torch(tmp_path: Path) -> None:
    arrays = embeddings(6)
    x, y = torch.from_numpy(arrays["x"]).float(), torch.from_numpy(arrays["y"])
    whole = torch.utils.data.TensorDataset(x, y)
    train, test = (torch.utils.data.Subset(whole, rows) for rows in (range(80), range(80, 120)))
    data = metarl.fewshot.from_dataset(train, test)
    assert (data.classes, data.pools["test"].unit_name) == (list("012345"), "rows")
    run = metarl.train(
        FewShotConfig("protonet", data, learner_options={"iterations": 2}, episodes=3, output=tmp_path / "run"),
        progress=False,
    )
    assert metarl.fewshot.load(run).predict(x[:6], y[:6], x[:2]).shape == (2, 6)
    other = metarl.fewshot.from_dataset([(row, int(label)) for row, label in train], test)
    assert other.fingerprint() == data.fingerprint()


def test_pictures_and_signals_in_memory() -> None:
    picture = np.zeros((20, 20, 3), np.uint8)
    sides = [[(picture + number, name) for number in range(4) for name in names] for names in ("abc", "xyz")]
    data = metarl.fewshot.from_dataset(*sides)
    assert (data.preprocessing.shape, data.has_baselines) == ((3, 20, 20), False)
    assert data.pools["test"].unit_name == "classes"
    wave = [(torch.rand(2, 16), number % 2) for number in range(20)]
    assert metarl.fewshot.from_dataset(wave[:10], wave[10:], signal=True).preprocessing.shape == (2, 16)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "train is empty"),
        (3, "want a sequence of pairs"),
        ([1, 2], "want a sequence of pairs"),
        ([(torch.zeros(2), 0.5)], "labels must be whole numbers or words"),
        ([(torch.zeros(2), 0), (torch.zeros(3), 1)], "all must have one size"),
        ([(torch.full((2,), torch.nan), 0)], "holds NaN"),
        ([(torch.zeros(2, 2, 2, 2), 0)], "want inputs"),
        ([(torch.full((3, 20, 20), 7.0), 0)], "images are uint8 from 0 to 255 or floats from 0 to 1"),
        ([(torch.zeros(4), 0), (torch.zeros(4), 1), (torch.zeros(4), 9)], "2 of the 2 test classes are training"),
    ],
)
def test_what_is_no_data_set_is_refused(pairs: object, message: str) -> None:
    test = [(torch.zeros(4), number % 2) for number in range(8)]
    with pytest.raises(UsageError, match=message):
        metarl.fewshot.from_dataset(pairs, test)  # type: ignore[arg-type]


def claims(folder: Path, header: str, data: bytes = b"\0" * 64, *, compress: bool = False) -> str:
    """A file whose x has a header that somebody wrote by hand."""
    text = header.encode() + b"\n"
    raw = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data
    buffer = io.BytesIO()
    np.save(buffer, np.arange(4))
    with zipfile.ZipFile(folder / "data.npz", "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as file:
        file.writestr("x.npy", raw)
        file.writestr("y.npy", buffer.getvalue())
    return str(folder / "data.npz")


class Bomb:
    def __reduce__(self):
        return (Path("executed").touch, ())


def test_what_is_no_npz_file_is_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    x, y = embeddings()["x"], embeddings()["y"]
    text = tmp_path / "text.npz"
    text.write_text("x,y\n1,2\n")
    header = "{'descr': '%s', 'fortran_order': False, 'shape': %s}"
    cases = [
        (str(text), "is no .npz file of numbers"),
        (str(tmp_path / "none.npz"), "there is no file"),
        (save(tmp_path, y=y), "has no array x or embeddings or features"),
        (save(tmp_path, x=x), "has no array y or labels"),
    ]
    for file, message in cases[:2]:
        with pytest.raises(UsageError, match=message):
            open_data("npz", {"file": file})
    for arrays, message in (
        ({"y": y}, "has no array x or embeddings or features"),
        ({"x": x}, "has no array y or labels"),
        ({"x": x, "features": x, "y": y}, "has the arrays x and features"),
        (
            {"x": np.where(x == x[7, 0], np.nan, x), "y": y},
            "x holds NaN, .* first nan in row 8, column 1: drop",
        ),
        ({"x": x * 1e300, "y": y}, "too large for float32"),
        ({"x": x[:, 0], "y": y}, r"want vectors \[n, D\] or signals \[n, C, L\], got shape \[240\]"),
        ({"x": x[:, None, None], "y": y}, "pictures are for --data folder"),
        ({"x": x.astype(str), "y": y}, "want numbers"),
        ({"x": x, "y": y[:-1]}, "x has 240 rows, but y has 239"),
        ({"x": x, "y": y[:, None]}, "want one label for each row"),
        ({"x": x, "y": y + 0.5}, "labels must be whole numbers or words, that of row 1 is 0.5"),
        ({"x": x, "y": y, "split": y}, "want the words train and test"),
        ({"x": x, "y": np.arange(240)}, "needs two classes and two rows of each"),
        ({"x": np.array([Bomb(), None]), "y": y}, "x holds Python objects, which are not read"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            read(tmp_path, **arrays)
        assert "\n" not in str(caught.value)
    for file, message in (
        (lambda: claims(tmp_path, header % ("<f4", "(4, 1000000000000)")), "of which the file has not the numbers"),
        (lambda: claims(tmp_path, header % ("<f4", "(-4, -4)")), r"claims a shape of \[-4, -4\]"),
        (lambda: claims(tmp_path, header % ("<f4", "(2**99,)")), "is no .npz file"),
        (lambda: claims(tmp_path, "__import__('pathlib').Path('executed').touch()"), "is no .npz file"),
        (
            lambda: claims(tmp_path, header % ("<f4", "(4, 20000000)"), bytes(4 * 80_000_000), compress=True),
            "claim more than 50 times the bytes",
        ),
    ):
        with pytest.raises(UsageError, match=message):
            open_data("npz", {"file": file()})
    assert not Path("executed").exists()
