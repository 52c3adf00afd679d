"""miniImageNet and tieredImageNet in every layout, as tiny data sets on disk; and pickles that are not plain data."""

import collections
import csv
import io
import os
import pickle
import pickletools

import numpy as np
import pytest
import torch
from PIL import Image

from metarl.errors import UsageError
from metarl.fewshot.data import open_data
from metarl.fewshot.data.plain_pickle import PlainArray, read_plain_pickle
from metarl.fewshot.episodes import EpisodeShape

CLASSES = {"train": ("n01", "n02", "n03"), "val": ("n04", "n05"), "test": ("n06", "n07")}
PER_CLASS = 4
COLOURS = {
    name: (40 * i, 255 - 30 * i, 10 * i) for i, name in enumerate(n for names in CLASSES.values() for n in names)
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "metarl"


def picture(name: str, number: int, size: tuple[int, int] = (84, 84)) -> Image.Image:
    """All of the class's colour, but for one row that numbers it."""
    image = Image.new("RGB", size, COLOURS[name])
    image.paste((number, number, number), (0, 0, size[0], 1))
    return image


def folders(root):
    for split, names in CLASSES.items():
        for name in names:
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(PER_CLASS):
                picture(name, number).save(folder / f"{name}_{number}.png")


def tables(root):
    (root / "images").mkdir()
    for split, names in CLASSES.items():
        rows = [(f"{name}{number}.png", name) for number in range(PER_CLASS) for name in names]
        for file, name in rows:
            picture(name, int(file[3])).save(root / "images" / file)
        with (root / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("filename", "label"), *rows])


def mini_pickles(root, protocol=4):
    for split, names in CLASSES.items():
        order = [(name, number) for number in range(PER_CLASS) for name in names]
        images = np.stack([np.asarray(picture(*entry)) for entry in order])
        members = {name: [row for row, entry in enumerate(order) if entry[0] == name] for name in names}
        content = {"image_data": images, "class_dict": members}
        (root / f"mini-imagenet-cache-{split}.pkl").write_bytes(pickle.dumps(content, protocol))


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def tiered_pickles(root, protocol=4):
    for split, names in CLASSES.items():
        order = [(way, number) for number in range(PER_CLASS) for way in range(len(names))]
        images = [np.frombuffer(png(picture(names[w], n)), np.uint8)[:, None] for w, n in order]
        labels = {"label_specific": np.array([way for way, _ in order], np.int32), "label_specific_str": list(names)}
        (root / f"{split}_images_png.pkl").write_bytes(pickle.dumps(images, protocol))
        (root / f"{split}_labels.pkl").write_bytes(pickle.dumps(labels, protocol))


def check(data, train=CLASSES["train"], test=CLASSES["test"]):
    """Every class has its four images in order of number or name, of its own colour."""
    for split, names in (("train", train), ("test", test)):
        pool = data.pools[split]
        assert pool.inputs.dtype == torch.uint8
        assert pool.inputs.shape == (PER_CLASS * len(names), 3, 84, 84)
        assert pool.counts.tolist() == [PER_CLASS] * len(names)
        for index, image in enumerate(pool.inputs):
            name, number = names[index // PER_CLASS], index % PER_CLASS
            np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), np.asarray(picture(name, number)))


@pytest.mark.parametrize("name", ["miniimagenet", "tieredimagenet"])
@pytest.mark.parametrize("layout", [folders, tables])
def test_images(name, layout, tmp_path):
    layout(tmp_path)
    check(open_data(name, {"root": tmp_path}))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(("name", "layout"), [("miniimagenet", mini_pickles), ("tieredimagenet", tiered_pickles)])
def test_published_pickles(name, layout, protocol, tmp_path):
    layout(tmp_path, protocol)
    check(open_data(name, {"root": tmp_path}))


def test_validation_takes_its_own_classes_for_the_test(tmp_path):
    folders(tmp_path)
    check(open_data("miniimagenet", {"root": tmp_path, "validation": True}), test=CLASSES["val"])


def test_episodes_are_normalised_as_a_users_images_are(tmp_path):
    folders(tmp_path)
    data = open_data("miniimagenet", {"root": tmp_path})
    x = data.episodes("train", 2, EpisodeShape(3, 1, 2), seed=0).query.x
    assert x.shape == (2, 6, 3, 84, 84)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = {tuple(np.round((np.array(COLOURS[name]) / 255 - mean) / std, 3)) for name in CLASSES["train"]}
    assert {tuple(np.round(image[:, -1, -1].numpy().astype(float), 3)) for image in x.flatten(0, 1)} == expected
    image = np.array(picture("n02", 3))
    torch.testing.assert_close(
        data.preprocessing.from_user(image[None], "x")[0], data.preprocessing(data.pools["train"].inputs[7])
    )


def test_images_of_any_size_and_kind_are_brought_to_84(tmp_path):
    folders(tmp_path)
    folder = tmp_path / "train" / "n01"
    (folder / "notes.txt").write_text("no image")
    picture("n01", 0, (120, 50)).save(folder / "n01_0.png")
    grey = Image.new("L", (84, 84), 77)
    grey.paste(0, (0, 42, 84, 84))
    grey.save(folder / "n01_1.JPEG")
    (folder / "n01_1.png").unlink()
    data = open_data("miniimagenet", {"root": tmp_path})
    images = data.pools["train"].inputs
    assert data.summary()[-1] == "skipped: 1 .txt"
    assert images.shape == (12, 3, 84, 84)
    wide = np.asarray(picture("n01", 0, (120, 50)).resize((84, 84), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(images[0].permute(1, 2, 0).numpy(), wide)
    assert (images[1, :, :32].float() - 77).abs().max() <= 1  # grey, and far from the edge of what is black


def test_decoded_once_mapped_and_decoded_again_when_a_file_changes(tmp_path, cache):
    folders(tmp_path)
    open_data("miniimagenet", {"root": tmp_path})
    files = {file: file.stat().st_mtime_ns for file in cache.iterdir()}
    assert len(files) == 3  # inputs, their checksums, and how they are read
    check(open_data("miniimagenet", {"root": tmp_path}))
    assert {file: file.stat().st_mtime_ns for file in cache.iterdir()} == files
    changed = tmp_path / "train" / "n01" / "n01_0.png"
    picture("n03", 0).save(changed)
    os.utime(changed, ns=(1, 1))
    first = open_data("miniimagenet", {"root": tmp_path}).pools["train"].inputs[0]
    assert tuple(first[:, -1, -1].tolist()) == COLOURS["n03"]


@pytest.mark.parametrize("name", ["miniimagenet", "tieredimagenet"])
def test_what_is_missing_is_named(name, tmp_path):
    pattern = {"miniimagenet": "mini-imagenet-cache-train.pkl", "tieredimagenet": "train_images_png.pkl and train_lab"}
    with pytest.raises(UsageError, match=f"{name}: name with --root the folder that holds train/CLASS/"):
        open_data(name)
    with pytest.raises(UsageError, match=f"does not hold train/CLASS/.*train.csv, or {pattern[name]}"):
        open_data(name, {"root": tmp_path})
    folders(tmp_path)
    for file in (tmp_path / "test").rglob("*.png"):
        file.unlink()
    with pytest.raises(UsageError, match="holds no images: want test/CLASS/"):
        open_data(name, {"root": tmp_path})


def test_wrong_tables_are_named(tmp_path):
    tables(tmp_path)
    (tmp_path / "images" / "n012.png").unlink()
    with pytest.raises(UsageError, match=r"n012.png is missing"):
        open_data("miniimagenet", {"root": tmp_path})
    (tmp_path / "train.csv").write_text("file,label\na,b\n")
    with pytest.raises(UsageError, match=r"train.csv: want a table with the columns filename and label"):
        open_data("miniimagenet", {"root": tmp_path})
    (tmp_path / "train.csv").write_text("filename,label\na.png,n01\nb.png\n")
    with pytest.raises(UsageError, match=r"train.csv, line 3: want a filename and a label"):
        open_data("miniimagenet", {"root": tmp_path})


def test_a_file_that_is_no_image_is_named(tmp_path, cache):
    folders(tmp_path)
    (tmp_path / "train" / "n02" / "n02_1.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    with pytest.raises(UsageError, match=r"n02_1.png is no image"):
        open_data("miniimagenet", {"root": tmp_path})
    assert not cache.exists()


def test_damaged_pickles_are_one_line(tmp_path):
    mini_pickles(tmp_path)
    file = tmp_path / "mini-imagenet-cache-train.pkl"
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not a pickle", whole[:40] + b"\xff" * 40 + whole[80:]):
        file.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"cache-train.pkl (is|asks)") as caught:
            open_data("miniimagenet", {"root": tmp_path})
        assert "\n" not in str(caught.value)
    for content, message in (
        ({"image_data": np.zeros((1, 84, 84, 3), np.uint8)}, "there is no class_dict"),
        ({"image_data": np.zeros((1, 84, 84), np.uint8), "class_dict": {}}, "is not as published"),
        ({"image_data": np.zeros((1, 84, 84, 3), np.uint8), "class_dict": {}}, "image 0 is of no class"),
        ({"image_data": np.zeros((1, 84, 84, 3), np.uint8), "class_dict": {"n01": [4]}}, "has an image 4 of 1"),
        ({"image_data": np.zeros((1, 84, 84, 3), np.uint8), "class_dict": {"n01": [None]}}, "has an image None of 1"),
        ([1, 2], "is not as published"),
    ):
        file.write_bytes(pickle.dumps(content))
        with pytest.raises(UsageError, match=message):
            open_data("miniimagenet", {"root": tmp_path})


def test_damaged_tiered_pickles_are_one_line(tmp_path):
    tiered_pickles(tmp_path)
    images, labels = tmp_path / "train_images_png.pkl", tmp_path / "train_labels.pkl"
    labels.write_bytes(pickle.dumps({"label_specific": np.arange(3)}))
    with pytest.raises(UsageError, match=r"has 12 images but .*train_labels.pkl 3 labels"):
        open_data("tieredimagenet", {"root": tmp_path})
    images.write_bytes(pickle.dumps([b"one", 2, None]))
    with pytest.raises(UsageError, match=r"train_images_png.pkl, image 0 is no image"):
        open_data("tieredimagenet", {"root": tmp_path})
    labels.write_bytes(pickle.dumps({"label_specific": np.array(["a", "b"])}))
    with pytest.raises(UsageError, match=r"train_labels.pkl is damaged: an array of type 'U1'"):
        open_data("tieredimagenet", {"root": tmp_path})


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_is_refused_and_does_nothing(protocol, tmp_path):
    proof = tmp_path / "proof"
    content = {"image_data": Touch(proof), "class_dict": {}}
    file = tmp_path / "mini-imagenet-cache-train.pkl"
    file.write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(UsageError, match=r"is refused: it asks for \w+\.mkdir, which is no plain data"):
        open_data("miniimagenet", {"root": tmp_path})
    assert not proof.exists()
    pickle.loads(file.read_bytes())  # the file would have done it
    assert proof.exists()


@pytest.mark.parametrize(
    "name",
    ["builtins.eval", "builtins.getattr", "os.system", "numpy.load", "numpy.ndarray.tofile", "functools.partial"],
)
def test_nothing_that_could_act_is_known(name, tmp_path):
    module, _, attribute = name.partition(".")
    file = tmp_path / "a.pkl"
    file.write_bytes(
        b"\x80\x04" + b"".join(b"\x8c" + bytes([len(p)]) + p.encode() for p in (module, attribute)) + b"\x93."
    )
    assert "STACK_GLOBAL" in [op.name for op, _, _ in pickletools.genops(file.read_bytes())]
    with pytest.raises(UsageError, match=f"it asks for {name}, which is no plain data"):
        read_plain_pickle(file)


def test_types_and_bytes_that_would_fool_numpy_are_refused(tmp_path):
    """An array of objects out of raw bytes would be pointers to anywhere."""
    file = tmp_path / "a.pkl"
    file.write_bytes(pickle.dumps(np.zeros(2)).replace(b"f8", b"O8"))
    with pytest.raises(ValueError, match="not of numbers"):
        read_plain_pickle(file).numpy()
    file.write_bytes(pickle.dumps(np.zeros((2, 3)), 4).replace(b"K\x02K\x03", b"K\x02K\x09"))
    with pytest.raises(ValueError, match="reshape"):
        read_plain_pickle(file).numpy()


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_come_back(protocol, tmp_path):
    arrays = [
        np.arange(6, dtype=np.int32).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([True, False]),
        np.arange(3, dtype=">i2"),
        np.array(5),
        np.zeros((0, 4), np.uint8),
    ]
    content = {"arrays": arrays, "n": np.int64(7), "x": np.float32(0.5), "b": b"\x00\xff", "s": "\u00fc", "set": {1, 2}}
    content["objects"] = np.array([b"one", [2, 3]], dtype=object)
    content["ordered"] = collections.OrderedDict(a=1, b=(2, None, True))
    file = tmp_path / "a.pkl"
    file.write_bytes(pickle.dumps(content, protocol))
    read = read_plain_pickle(file)
    for got, expected in zip(read["arrays"], arrays, strict=True):
        assert isinstance(got, PlainArray)
        assert got.numpy().dtype == expected.dtype
        np.testing.assert_array_equal(got.numpy(), expected)
    assert read["objects"].numpy().tolist() == [b"one", [2, 3]]
    for name in ("n", "x", "b", "s", "set", "ordered"):
        assert read[name] == content[name]


def test_python_2_pickles_are_read(tmp_path):
    """As cPickle wrote them: strings are bytes, the core of NumPy has its old name."""
    file = tmp_path / "a.pkl"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\nt"
        b"cnumpy\ndtype\n(S'i2'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x01\\x00\\x02\\x01'\ntb"
    )
    file.write_bytes(b"(dS'label_specific'\n" + array + b"s.")
    read = read_plain_pickle(file)
    assert read[b"label_specific"].numpy().tolist() == [1, 258]
