"""The data that come with the core: sine waves by their formula, glyphs, Omniglot's layout and split."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metarl import UsageError
from metarl.fewshot.data import data_class, open_data
from metarl.fewshot.data.glyphs import draw
from metarl.fewshot.data.omniglot import TEST_ALPHABETS, VALIDATION_ALPHABETS, split_of
from metarl.fewshot.episodes import EpisodeShape
from metarl.fewshot.preprocessing import Preprocessing, resize_images
from metarl.fewshot.validation import hold_out
from metarl.registry import list_data


def test_every_sine_wave_is_one_within_its_ranges():
    data = open_data("sinusoid")
    episodes = data.episodes("train", 500, EpisodeShape(1, 5, 20), seed=0)
    x = torch.cat([episodes.support.x, episodes.query.x], 1).double()
    y = torch.cat([episodes.support.y, episodes.query.y], 1).double()
    # A sin(x − φ) = a sin x + b cos x: two numbers found by least squares explain all 25 points.
    features = torch.cat([x.sin(), x.cos()], 2)
    found = torch.linalg.lstsq(features, y).solution
    torch.testing.assert_close(features @ found, y, atol=1e-5, rtol=1e-5)
    amplitude, phase = found.norm(dim=1)[:, 0], torch.atan2(-found[:, 1], found[:, 0])[:, 0]
    assert 0.1 <= amplitude.min() < 0.2
    assert 4.9 < amplitude.max() <= 5 + 1e-5
    assert -1e-5 <= phase.min() < 0.1
    assert 3.0 < phase.max() <= torch.pi + 1e-5
    assert -5 <= x.min() < -4.9
    assert 4.9 < x.max() <= 5
    assert not torch.equal(x[:, :5].float(), data.episodes("test", 500, EpisodeShape(1, 5, 20), seed=0).support.x)


@pytest.fixture(scope="module")
def glyphs():
    return open_data("glyphs", {"drawings": 3})


def test_glyphs_are_the_same_every_time_and_every_drawing_differs(glyphs):
    draw.cache_clear()
    again = open_data("glyphs", {"drawings": 3})
    for split, fewest in (("train", 500), ("test", 200)):
        pool = glyphs.pools[split]
        assert pool.inputs.dtype == torch.uint8
        assert pool.inputs.shape[1:] == (1, 28, 28)
        assert len(pool.classes) >= fewest
        assert torch.equal(pool.inputs, again.pools[split].inputs)
        ink = 1 - pool.inputs.float().div(255)
        share = ink.mean((1, 2, 3))
        assert share.min() > 0.005  # every one has ink,
        assert share.max() < 0.7  # and paper
        first, second = ink[0::3], ink[1::3]
        assert (first - second).abs().mean((1, 2, 3)).min() > 0.005


def test_glyphs_of_one_class_are_nearer_than_those_of_others(glyphs):
    ink = glyphs.pools["test"].inputs.float().flatten(1)
    distances = torch.cdist(ink[0::3], ink[1::3])
    same = distances.diagonal()
    assert (same[:, None] < distances).float().mean() > 0.65  # chance: 0.5


def write_omniglot(root: Path, *, zipped: bool) -> None:
    """Three alphabets of two characters; drawing d of a character is white but for d + 1 black columns."""
    alphabets = {"images_background": ("Greek", "Bengali"), "images_evaluation": ("Tibetan",)}
    root.mkdir(exist_ok=True)
    for part, names in alphabets.items():
        for name in names:
            for character in (1, 2):
                folder = root / part / name / f"character{character:02d}"
                folder.mkdir(parents=True)
                for drawing in range(20):
                    pixels = np.full((105, 105), 255, np.uint8)
                    pixels[: 50 * character, : 3 * (drawing + 1)] = 0
                    Image.fromarray(pixels).convert("1").save(folder / f"{drawing + 1:04d}_{drawing + 1:02d}.png")
        if zipped:
            with zipfile.ZipFile(root / f"{part}.zip", "w") as archive:
                for file in sorted((root / part).rglob("*.png")):
                    archive.write(file, file.relative_to(root))
                    file.unlink()
            (root / part).rename(root / f"unpacked-{part}")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_omniglot_is_read_from_folders_from_zips_and_from_the_cache(tmp_path: Path, cache: Path):
    write_omniglot(tmp_path / "folders", zipped=False)
    write_omniglot(tmp_path / "zips", zipped=True)
    folders = open_data("omniglot", {"root": str(tmp_path / "folders")})
    assert len(list((cache / "metarl").glob("*.safetensors"))) == 1
    cached = open_data("omniglot", {"root": str(tmp_path / "folders")})
    zips = open_data("omniglot", {"root": str(tmp_path / "zips")})
    assert len(list((cache / "metarl").glob("*.safetensors"))) == 2
    for split, characters in (("train", 4), ("test", 2)):
        images = folders.pools[split].inputs
        assert images.shape == (4 * characters * 20, 1, 28, 28)
        assert torch.equal(images, zips.pools[split].inputs)
        assert torch.equal(images, cached.pools[split].inputs)
        upright, turned = images[: characters * 20], images[characters * 20 : 2 * characters * 20]
        assert torch.equal(turned, upright.rot90(1, (-2, -1)))
    ink = folders.preprocessing(folders.pools["test"].inputs[:40])  # Tibetan's two characters
    share = torch.tensor([[50 * c * 3 * (d + 1) / 105**2 for d in range(20)] for c in (1, 2)]).flatten()
    torch.testing.assert_close(ink.mean((1, 2, 3)), share, atol=0.01, rtol=0)


def test_omniglots_options(tmp_path: Path):
    write_omniglot(tmp_path, zipped=False)
    upright = open_data("omniglot", {"root": str(tmp_path), "rotations": False})
    assert [len(upright.pools[split].classes) for split in ("train", "test")] == [4, 2]
    validation = open_data("omniglot", {"root": str(tmp_path), "validation": True})
    assert [len(validation.pools[split].classes) for split in ("train", "test")] == [8, 8]


def test_rotations_of_a_character_are_one_unit(tmp_path: Path):
    write_omniglot(tmp_path, zipped=False)
    data = open_data("omniglot", {"root": str(tmp_path)})
    members = data.episodes("train", 50, EpisodeShape(5, 1, 1), seed=0).members
    assert members.name == "characters"
    assert members.are_classes
    assert set(members.support.flatten().tolist()) == set(range(4))
    assert torch.equal(members.support, members.support_classes % 4)  # four characters, turned three times
    kept, held = hold_out(data.pools["train"], 0.5)
    assert [len(part.classes) for part in (kept, held)] == [8, 8]
    assert not set((kept.classes % 4).tolist()) & set((held.classes % 4).tolist())


def test_the_split_is_the_published_one():
    assert split_of("Gurmukhi/character41") == "train"
    assert split_of("Gurmukhi/character42") == "test"
    assert split_of("Bengali/character01") == "validation"
    assert split_of("ULOG/character26") == "test"
    assert split_of("Latin/character01") == "train"
    assert len(TEST_ALPHABETS) == 12
    assert not set(TEST_ALPHABETS) & set(VALIDATION_ALPHABETS)


def test_what_is_not_omniglot_is_told_in_one_line(tmp_path: Path):
    with pytest.raises(UsageError, match="name with --root the folder that holds images_background and"):
        open_data("omniglot")
    with pytest.raises(UsageError, match="does not hold images_background and images_evaluation"):
        open_data("omniglot", {"root": str(tmp_path)})
    write_omniglot(tmp_path / "folders", zipped=False)
    drawing = tmp_path / "folders" / "images_background" / "Greek" / "character01" / "0001_01.png"
    whole = drawing.read_bytes()
    drawing.write_bytes(whole[:40])
    with pytest.raises(UsageError, match=r"0001_01.png is no image"):
        open_data("omniglot", {"root": str(tmp_path / "folders")})
    Image.new("1", (50, 105)).save(drawing)
    with pytest.raises(UsageError, match="is 50 × 105, want 105 × 105"):
        open_data("omniglot", {"root": str(tmp_path / "folders")})
    drawing.unlink()
    with pytest.raises(UsageError, match="Greek/character01 has 19 of 20 drawings"):
        open_data("omniglot", {"root": str(tmp_path / "folders")})
    write_omniglot(tmp_path / "zips", zipped=True)
    archive = tmp_path / "zips" / "images_background.zip"
    archive.write_bytes(archive.read_bytes()[:-3000])
    with pytest.raises(UsageError, match=r"images_background.zip is damaged"):
        open_data("omniglot", {"root": str(tmp_path / "zips")})


def test_every_data_set_is_there_and_an_unknown_one_is_refused():
    for name in list_data():
        assert data_class(name).kind in ("classification", "regression")
    with pytest.raises(UsageError, match="unknown data set 'omnigot'; did you mean omniglot"):
        data_class("omnigot")


IMAGES = Preprocessing((1, 20, 20), scale=(-1.0,), shift=(1.0,))


def test_users_images_come_in_any_layout_as_bytes_or_floats():
    raw = torch.randint(0, 256, (4, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = 1 - raw[:, None].float() / 255
    for given in (raw, raw[:, None], raw[..., None], raw.numpy(), list(raw), raw.float() / 255, raw.numpy() / 255):
        torch.testing.assert_close(IMAGES.from_user(given, "x"), expected)
    large = raw.repeat_interleave(3, 1).repeat_interleave(3, 2)
    assert (IMAGES.from_user(large, "x") - expected).abs().mean() < 0.1  # the same picture


def test_shrinking_averages_as_pillow_does():
    raw = torch.randint(0, 256, (2, 1, 105, 105), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = resize_images(raw, (28, 28))
    for image, small in zip(raw, found, strict=True):
        picture = Image.fromarray(image[0].numpy()).resize((28, 28), Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(picture).astype(int) - small[0].numpy()).max() <= 1


@pytest.mark.parametrize(
    ("preprocessing", "given", "message"),
    [
        (IMAGES, torch.zeros(2, 3, 20, 20), "want images with 1 channel"),
        (IMAGES, [torch.zeros(20, 20), torch.zeros(20, 21)], "all must have one size"),
        (IMAGES, torch.full((1, 20, 20), torch.nan), "NaN"),
        (IMAGES, torch.full((1, 20, 20), 200.0), "uint8 from 0 to 255 or floats from 0 to 1"),
        (IMAGES, torch.zeros(0, 20, 20), "x is empty"),
        (Preprocessing((3,)), [[1, 2, 3], [1, 2, 1e39]], "x holds NaN.* first in example 2, its number 3"),
        (Preprocessing((3,)), torch.zeros(2, 4), "want rows of 3 number"),
        (Preprocessing((3,)), [[1, 2, 3], [1, 2]], "no array of numbers"),
        (Preprocessing((3,)), [["a", "b", "c"]], "no array of numbers"),
    ],
)
def test_users_mistakes_are_told(preprocessing: Preprocessing, given: object, message: str):
    with pytest.raises(UsageError, match=message):
        preprocessing.from_user(given, "x")


def test_vectors_are_scaled_feature_by_feature():
    preprocessing = Preprocessing((2,), scale=(2.0, 0.5), shift=(1.0, -1.0))
    found = preprocessing.from_user([[1, 2], [3, 4]], "x")
    torch.testing.assert_close(found, torch.tensor([[3.0, 0.0], [7.0, 1.0]]))
