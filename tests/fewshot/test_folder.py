"""A folder of pictures as a data set: what its folders mean, how it is split, and its cache."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_folders import SIZE, folder, inputs_of, opened, same, scan, write

import metarl
from metarl.errors import UsageError
from metarl.fewshot.data import open_data
from metarl.fewshot.data.picture_cache import PictureCache, PictureOptions
from metarl.fewshot.episodes import EpisodeShape

pytestmark = pytest.mark.usefixtures("cache")


def test_what_is_skipped_is_counted_by_suffix():
    folder("scans")
    for name in ("notes.txt", ".DS_Store", "._00.png", "Thumbs.db", "a.TXT", "scan.dcm", "README"):
        Path("scans/class00", name).write_bytes(b"x")
    Path("scans/__MACOSX/class00").mkdir(parents=True)
    Path("scans/__MACOSX/class00/._00.png").write_bytes(b"x")
    write("scans/cover.png", scan(0))
    os.symlink("nowhere.png", "scans/class01/link.png")
    data = opened("scans")
    line = next(line for line in data.summary() if line.startswith("skipped"))
    assert set(line.removeprefix("skipped: ").split(", ")) == {
        "2 .txt",
        "1 .DS_Store",
        "1 ._* (AppleDouble)",
        "1 Thumbs.db",
        "1 .dcm",
        "1 without suffix",
        "1 in __MACOSX",
        "1 links to nothing",
        "1 others",
    }
    assert data.pools["train"].counts.tolist() == [6, 6]


@pytest.mark.parametrize(("classes", "unit"), [(9, "pictures"), (10, "classes")])
def test_many_classes_are_split_by_class_and_few_by_picture(classes, unit):
    data = opened(folder("scans", classes, 4))
    train, test = (set(data.pools[split].classes.tolist()) for split in ("train", "test"))
    assert {pool.unit_name for pool in data.pools.values()} == {unit}
    assert data.classes == [f"class{way:02}" for way in range(classes)]
    if unit == "classes":
        assert not train & test
        assert len(test) == 3
    else:
        assert train == test == set(range(9))
    paths = [data.pictures.names[row] for split in data.pools for row in data.pools[split]._inputs.tolist()]
    assert len(set(paths)) == len(paths) == 4 * classes


def test_the_label_of_every_input_is_that_of_its_folder():
    data = opened(folder("scans", 3, 8))
    for pool in data.pools.values():
        labels = pool.classes.repeat_interleave(pool.counts).tolist()
        for values, label in zip(pool.inputs, labels, strict=True):
            number = next(n for n in range(8) if np.array_equal(values[0].numpy(), scan(n, 40 * label)))
            assert number in range(8)
    episodes = data.episodes("test", 3, EpisodeShape(3, 1, 1), seed=1)
    assert episodes.members is not None
    assert episodes.members.name == "pictures"


def test_train_and_test_folders_are_respected():
    for split, ways in (("train", (0, 1, 2)), ("Test", (3, 4)), ("val", (5, 6))):
        for way in ways:
            for number in range(4):
                write(f"photos/{split}/class{way}/deep/er/{number}.png", scan(number, 40 * way))
    data = opened("photos")
    assert [pool.classes.tolist() for pool in data.pools.values()] == [[0, 1, 2], [3, 4]]
    assert data.pools["test"].unit_name == "classes"
    assert opened("photos", validation=True).pools["test"].classes.tolist() == [5, 6]
    with pytest.raises(UsageError, match=r"split by its folders train/ and test/: leave --split-by classes out"):
        opened("photos", split_by="classes")
    os.rename("photos/Test", "photos/other")
    with pytest.raises(UsageError, match=r"holds no pictures in test/ \(--validation tests on val/\)"):
        opened("photos")
    os.rename("photos/train", "photos/more")
    with pytest.raises(UsageError, match=r"photos holds val/ but no pictures in train/CLASS/"):
        opened("photos")


def test_the_same_classes_in_train_and_test_are_a_split_by_pictures():
    for split in ("train", "test"):
        folder(f"photos/{split}")
    assert opened("photos").pools["test"].unit_name == "pictures"


def patients(root: str, count: int = 8) -> None:
    """Patients with pictures in both classes."""
    for patient in range(count):
        for way in range(2):
            for number in range(3):
                write(f"{root}/class{way}/patient{patient}/{number}.png", scan(3 * patient + number, 40 * way))


def test_all_pictures_of_an_inner_folder_are_on_one_side():
    patients("scans")
    data = opened("scans", split_by="folders")
    sides = [
        {data.pictures.names[row].split("/")[1] for row in data.pools[split]._inputs.tolist()} for split in data.pools
    ]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 8
    assert data.pools["test"].unit_name == "folders"
    assert len(data.pools["test"].units.unique()) == len(sides[1])
    assert any("--split-by folders" in line for line in opened("scans").summary()), "the hint"
    write("scans/class0/0.png", scan(0))
    with pytest.raises(UsageError, match=r"--split-by folders: class0/0.png lies in no folder inside"):
        opened("scans", split_by="folders")


def test_a_patient_in_train_and_in_test_is_named():
    patients("photos/train")
    patients("photos/test", 1)
    with pytest.raises(UsageError, match=r"patient0 lie in train/ and in test/"):
        opened("photos", split_by="folders")
    os.rename("photos/test/class0/patient0", "photos/test/class0/patient8")
    os.rename("photos/test/class1/patient0", "photos/test/class1/patient8")
    assert opened("photos", split_by="folders").pools["test"].unit_name == "folders"


def test_folders_without_a_data_set_are_explained():
    with pytest.raises(UsageError, match="data folder needs the folder of the pictures: --root DIR"):
        open_data("folder")
    with pytest.raises(UsageError, match="nowhere is no folder"):
        opened("nowhere")
    Path("empty/class00").mkdir(parents=True)
    Path("empty/class00/a.dcm").touch()
    with pytest.raises(UsageError, match=r"empty holds no pictures in class folders: want .* \(skipped: 1 .dcm\)"):
        opened("empty")
    with pytest.raises(UsageError, match="has pictures of one class only, 'class00'"):
        opened(folder("one", 1))
    folder("small", 3)
    write("small/class03/0.png", scan(0))
    with pytest.raises(UsageError, match="class 'class03' has 1 picture"):
        opened("small")
    folder("cases", 2)
    os.rename("cases/class01", "cases/Class00")
    with pytest.raises(UsageError, match="has the classes 'Class00' and 'class00': write them alike"):
        opened("cases")
    with pytest.raises(UsageError, match="size must be at most 1024"):
        opened("cases", size=5000)
    os.symlink(Path("cases").absolute(), "cases/class00/back")
    with pytest.raises(UsageError, match="folders more than 32 deep; does a link lead back"):
        opened("cases")


def test_names_that_no_terminal_prints_stay_on_one_line():
    folder("scans")
    os.rename("scans/class00/00.png", b"scans/class00/a\nb\xff.png")
    Path(os.fsdecode(b"scans/class00/a\nb\xff.png")).write_bytes(b"")
    with pytest.raises(UsageError) as caught:
        opened("scans")
    assert r"a\nb\udcff.png is no image" in str(caught.value)


# The cache


def test_pictures_are_decoded_when_drawn_and_once(cache, monkeypatch):
    root = folder("scans", 2, 20)
    data = opened(root, checked=2)
    assert not data.pictures._known.all()
    episodes = data.episodes("test", 2, EpisodeShape(2, 2, 2), seed=0)
    for pool in data.pools.values():
        _ = pool.inputs
    assert data.pictures._known.all()
    monkeypatch.setattr("metarl.fewshot.data.picture_cache.read_picture", None)  # nothing is decoded again
    again = opened(root, checked=2)
    torch.testing.assert_close(again.episodes("test", 2, EpisodeShape(2, 2, 2), seed=0).query.x, episodes.query.x)
    assert again.summary() == data.summary()
    assert again.fingerprint() == data.fingerprint()
    assert len(list(cache.iterdir())) == 3


def test_a_damaged_cache_is_decoded_again(cache):
    root = folder("scans")
    before = opened(root).pools["train"].inputs
    (values,) = cache.glob("*.inputs")
    content = bytearray(values.read_bytes())
    content[3 * SIZE * SIZE + 5] ^= 255
    values.write_bytes(content[:-40])
    assert torch.equal(opened(root).pools["train"].inputs, before)
    (findings,) = cache.glob("*.json")
    findings.write_text(json.dumps({"survey": {}, "reading": 3}))
    assert torch.equal(opened(root).pools["train"].inputs, before)


def test_a_changed_picture_changes_inputs_and_fingerprint():
    root = folder("scans")
    data = opened(root)
    write("scans/class00/00.png", 255 - scan(0))
    os.utime("scans/class00/00.png", ns=(1, 1))
    again = opened(root)
    assert again.fingerprint() != data.fingerprint()
    same(inputs_of(again), 1 - scan(0) / 255)


def test_a_picture_that_vanishes_before_it_is_drawn_is_named():
    data = opened(folder("scans"), checked=2)
    for number in range(1, 8):
        Path(f"scans/class00/{number:02}.png").unlink()
    with pytest.raises(UsageError, match=r"class00/0\d.png is no image that can be read: No such file"):
        data.pictures[torch.arange(16)]


def test_a_full_or_forbidden_disk_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="folder: cannot write the decoded pictures to"):
        opened(folder("scans"))


def test_more_pictures_than_are_kept_from_the_look(monkeypatch):
    monkeypatch.setattr("metarl.fewshot.data.picture_cache._KEPT_BYTES", 3 * SIZE * SIZE)
    folder("scans")
    names = [f"class00/{number:02}.png" for number in range(8)]
    pictures = PictureCache("few", Path("scans"), names, [(1, 1)] * 8, PictureOptions(SIZE))
    assert pictures._known.sum() == 3
    np.testing.assert_array_equal(pictures[torch.arange(8)][:, 0], np.stack([scan(n) for n in range(8)]))


@pytest.mark.slow
def test_a_run_on_a_folder_trains_and_predicts_and_records_its_data():
    """The classes differ in the place of a bright bar."""
    for way in range(12):
        for number in range(8):
            values = np.random.default_rng([way, number]).integers(0, 60, (SIZE, SIZE)).astype(np.uint8)
            values[way + 1] = 255
            write(f"bars/class{way:02}/{number:02}.png", values)
    config = metarl.fewshot.FewShotConfig(
        "protonet",
        "folder",
        ways=3,
        shots=1,
        queries=2,
        data_options={"root": Path("bars"), "size": SIZE},
        learner_options={"iterations": 3, "train_ways": 3, "width": 4},
        episodes=10,
    )
    run = metarl.train(config, progress=False)
    result = json.loads((run / "evaluation.json").read_text())
    assert result["split_by"] == "classes"
    learner = metarl.fewshot.load(run)
    data = config.resolve().data
    support = data.encode([f"bars/class{way:02}/00.png" for way in range(3)])
    assert learner.predict(support, [0, 1, 2], data.encode(["bars/class01/05.png"])).shape == (1, 3)
    assert f"fingerprint: {data.fingerprint()}" in (run / "config.yaml").read_text().replace("'", "")
