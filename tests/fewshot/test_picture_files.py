"""What becomes of the values of every kind of picture file, against values computed here."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_folders import SCALES, SIZE, folder, inputs_of, opened, same, scan, write
from PIL import Image

from metarl.errors import UsageError
from metarl.fewshot.data import open_data
from metarl.fewshot.data.picture_files import read_picture
from metarl.fewshot.episodes import EpisodeShape

pytestmark = pytest.mark.usefixtures("cache")


@pytest.mark.parametrize(("bits", "shift"), [(8, 0), (10, 2), (12, 4), (14, 6), (16, 8)])
def test_deep_pictures_are_read_by_the_bits_that_the_largest_value_needs(bits, shift):
    data = opened(folder("scans", change=lambda v: v.astype(np.uint16) << shift))
    got = inputs_of(data)
    assert got.shape == (1, SIZE, SIZE)
    same(got, (scan(0).astype(int) << shift) / (2**bits - 1), 1e-6)
    assert 0.1 < data.pools["train"].inputs.float().mean() < 255


def test_deep_pictures_keep_what_8_bits_would_lose():
    data = opened(folder("scans", change=lambda v: v.astype(np.uint16) + 30000))
    assert len(np.unique(inputs_of(data))) == 256
    x = data.episodes("train", 1, EpisodeShape(2, 1, 1), seed=0).support.x
    assert x.std() > 0.5  # standardised over training pictures


@pytest.mark.parametrize(
    ("kind", "black", "white"), [(np.int32, 0, 2**20 - 1), (np.int16, -(2.0**15), 2.0**15), (np.float32, 0, 2.0)]
)
def test_numbers_of_other_types(kind, black, white):
    largest = {np.int32: 2**20 - 256, np.int16: -17000, np.float32: 1.5}[kind]

    def change(values):
        return (values + largest if kind != np.float32 else values / 255 * largest).astype(kind)

    for way in range(2):
        for number in range(8):
            values = change(scan(number, 40 * way).astype(np.float64))
            path = Path(f"scans/class{way:02}/{number:02}.tif")
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == np.int16:
                path.write_bytes(tiff_int16(values))
            else:
                Image.fromarray(values).save(path)
    data = opened("scans")
    got = data.encode(["scans/class00/03.tif"])[0].numpy()
    same(got, (change(scan(3).astype(np.float64)).astype(np.float64) - black) / (white - black), 1e-6)


def tiff_int16(values: np.ndarray) -> bytes:
    """A TIFF of signed 16-bit numbers, which Pillow reads and does not write."""
    height, width = values.shape
    tags = [(256, width), (257, height), (258, 16), (259, 1), (262, 1), (273, 8 + 2 + 12 * 9 + 4), (277, 1)]
    tags += [(278, height), (279, values.nbytes), (339, 2)]
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    start = len(head) + len(entries) + 4
    entries = entries.replace(
        struct.pack("<HHII", 273, 4, 1, 8 + 2 + 12 * 9 + 4), struct.pack("<HHII", 273, 4, 1, start)
    )
    return head + entries + bytes(4) + values.astype("<i2").tobytes()


@pytest.mark.parametrize("largest", [1, 3, 15])
def test_masks_of_few_values_are_spread_from_black_to_white(largest):
    data = opened(folder("masks", change=lambda v: v % (largest + 1)))
    same(inputs_of(data), scan(0) % (largest + 1) / largest)
    assert f"8-bit files with {largest} as white" in data.summary()[1]


def test_a_dark_picture_among_others_stays_dark():
    folder("scans")
    write("scans/class00/00.png", scan(0) % 2)
    same(inputs_of(opened("scans")), scan(0) % 2 / 255)


def test_8_bit_and_deep_pictures_in_one_folder_are_each_read_by_their_depth():
    folder("scans")
    write("scans/class00/00.png", scan(0).astype(np.uint16) << 4)
    data = opened("scans")
    same(inputs_of(data), scan(0).astype(int) * 16 / 4095, 1e-6)
    same(inputs_of(data, number=1), scan(1) / 255, 1e-6)


def test_transparency_lies_over_white_and_information_in_alpha_alone_is_kept():
    black = np.zeros((SIZE, SIZE), np.uint8)
    data = opened(folder("drawings", change=lambda v: np.dstack([black, black, black, v])))
    same(inputs_of(data), 1 - scan(0) / 255, 1.1 / 255)
    assert "16 of 16 pictures have transparent parts (over white)" in data.summary()


def test_white_on_transparent_ground_is_refused_until_the_ground_is_black():
    white = np.full((SIZE, SIZE), 255, np.uint8)
    folder("drawings", change=lambda v: np.dstack([white, v]))
    with pytest.raises(UsageError, match=r"16 of 16 pictures are constant .* or --background black if they are"):
        opened("drawings")
    same(inputs_of(opened("drawings", background="black")), scan(0) / 255, 1.1 / 255)


def test_palettes_show_their_colours_and_grey_ones_stay_one_channel():
    grey, colour = (np.arange(256, dtype=np.uint8)[::-1, None].repeat(3, 1) for _ in range(2))
    colour = colour * [1, 0, 1]
    for root, palette in (("grey", grey), ("colour", colour)):
        for way in range(2):
            for number in range(8):
                image = Image.fromarray(scan(number, 40 * way)).convert("P")
                image.putpalette(palette.astype(np.uint8).tobytes())
                Path(root, f"class{way:02}").mkdir(parents=True, exist_ok=True)
                image.save(f"{root}/class{way:02}/{number:02}.png")
    assert inputs_of(opened("grey")).shape == (1, SIZE, SIZE)
    same(inputs_of(opened("grey")), 1 - scan(0) / 255)
    same(inputs_of(opened("colour")), (1 - scan(0) / 255) * np.array([1, 0, 1])[:, None, None])


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_the_orientation_of_exif_is_applied(suffix):
    folder("photos")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    values = np.kron(np.arange(4, dtype=np.uint8).reshape(2, 2) * 80, np.ones((8, 8), np.uint8))
    write(f"photos/class00/00.{suffix}", values, exif=exif, **({"quality": 100} if suffix == "jpg" else {}))
    Path("photos/class00/00.png").unlink()
    data = opened("photos")
    got = data.encode([f"photos/class00/00.{suffix}"])[0, 0]
    np.testing.assert_allclose(got, np.rot90(values, -1), atol=2)
    assert "1 of 16 pictures have an orientation in EXIF, by which they are turned" in data.summary()


def test_a_grey_palette_with_transparency_stays_grey():
    image = Image.fromarray(scan(0)).convert("P")
    image.putpalette(np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1).tobytes())
    image.save("transparent.gif", transparency=7)
    picture = read_picture("transparent.gif", "transparent.gif")
    np.testing.assert_array_equal(picture.pixels, np.where(scan(0) == 7, 255, scan(0)))


def test_cmyk_becomes_rgb_and_black_and_white_becomes_grey():
    cmyk = Image.merge("CMYK", [Image.fromarray(scan(i)) for i in range(3)] + [Image.new("L", (SIZE, SIZE))])
    cmyk.save("cmyk.tif")
    picture = read_picture("cmyk.tif", "cmyk.tif")
    np.testing.assert_array_equal(picture.pixels, 255 - np.dstack([scan(i) for i in range(3)]))
    Image.fromarray(scan(0) % 2 == 1).save("two.png")
    assert sorted(np.unique(read_picture("two.png", "two.png").pixels)) == [0, 255]


def test_of_several_frames_the_first_is_taken_and_they_are_counted():
    folder("films")
    frames = [Image.fromarray(scan(i)) for i in range(3)]
    for name in ("00.tif", "01.gif"):
        frames[0].save(f"films/class00/{name}", save_all=True, append_images=frames[1:])
    data = opened("films")
    same(data.encode(["films/class00/00.tif"])[0].numpy(), scan(0))
    assert "2 of 18 pictures have several frames, of which the first is taken" in data.summary()


def test_one_colour_picture_makes_all_colour_unless_grey_is_asked_for():
    folder("scans")
    colour = np.dstack([scan(i) for i in range(3)])
    write("scans/class00/00.png", colour)
    same(inputs_of(opened("scans")), colour.transpose(2, 0, 1) / 255)
    same(inputs_of(opened("scans"), number=1), scan(1) / 255)
    grey = inputs_of(opened("scans", channels=1))
    same(grey, colour @ [0.299, 0.587, 0.114] / 255, 1 / 255)


@pytest.mark.parametrize(
    "suffix", ["png", "jpg", "jpeg", "bmp", "gif", "tif", "tiff", "webp", "pgm", "ppm", "PNG", "Jpg"]
)
def test_every_suffix_in_any_case_is_read(suffix):
    root = folder("scans", change=lambda v: np.kron(v[:4, :4], np.ones((4, 4), np.uint8)), suffix=suffix)
    assert opened(root).pools["train"].counts.tolist() == [6, 6]


def png_of_16_bit_colour(values: np.ndarray) -> bytes:
    """A PNG of `[H, W, 3]` with 16 bits a channel, which Pillow reads and does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_16_bit_colour_is_read_by_its_upper_bytes_and_refused_if_these_are_empty():
    folder("scans")
    colour = np.dstack([scan(i) for i in range(3)]).astype(np.uint16)
    Path("scans/class00/00.png").write_bytes(png_of_16_bit_colour(colour << 8))
    data = opened("scans")
    same(inputs_of(data), colour.transpose(2, 0, 1) / 255)
    assert "1 of 16 pictures have 16 bits a channel, of which the upper 8 are taken" in data.summary()
    Path("scans/class00/00.png").write_bytes(png_of_16_bit_colour(colour << 4))
    with pytest.raises(UsageError, match="1 pictures have colours of 16 bits a channel, of which 14 or fewer are used"):
        opened("scans")


# The same in the layout with train/ and test/, under every data set of picture files

WIDE = np.kron(SCALES[::4, ::4].astype(np.uint8), np.ones((21, 21), np.uint8))
"""84 × 84 pixels of 16 greys."""
BLACK = np.zeros_like(WIDE)
CASES = {
    "rgb": (lambda v: np.dstack([v, v, v]), "png", lambda v: v / 255),
    "16 bits": (lambda v: v.astype(np.uint16) << 8, "png", lambda v: v * 256 / 65535),
    "12 bits": (lambda v: v.astype(np.uint16) << 4, "tif", lambda v: v * 16 / 4095),
    "alpha": (lambda v: np.dstack([BLACK, BLACK, BLACK, v]), "png", lambda v: 1 - v / 255),
    "mask": (lambda v: (v > 99).astype(np.uint8), "png", lambda v: 1.0 * (v > 99)),
    "grey": (lambda v: v, "png", lambda v: v / 255),
    "upper case": (lambda v: v, "PNG", lambda v: v / 255),
    "tif": (lambda v: v, "tif", lambda v: v / 255),
    "bmp": (lambda v: v, "bmp", lambda v: v / 255),
}


def in_splits(root: str, change, suffix: str, inner: str = "") -> None:
    for split, ways in (("train", range(3)), ("test", range(3, 5))):
        for way in ways:
            for number in range(3):
                write(f"{root}/{split}/class{way}{inner}/{number}.{suffix}", change(np.roll(WIDE, 21 * way, 1)))


@pytest.mark.parametrize("name", ["folder", "miniimagenet"])
@pytest.mark.parametrize("case", CASES)
def test_every_case_in_folders_of_splits(case, name):
    change, suffix, expected = CASES[case]
    in_splits("photos", change, suffix)
    pool = open_data(name, {"root": "photos"}).pools["test"]
    assert pool.counts.tolist() == [3, 3]
    for row, way in ((0, 3), (3, 4)):
        values = pool.examples(torch.tensor([row]))[0].numpy()
        values = values / 255 if values.dtype == np.uint8 else values
        same(values, expected(np.roll(WIDE, 21 * way, 1).astype(float)), 1.1 / 255)


@pytest.mark.parametrize("name", ["folder", "miniimagenet"])
def test_nested_pictures_and_junk_in_folders_of_splits(name):
    in_splits("photos", lambda v: v, "png", "/patient/scan")
    for junk in ("train/.DS_Store", "train/class0/._0.png", "train/class0/notes.txt", "train/1.png"):
        Path("photos", junk).write_bytes(b"Mac OS X")
    Path("photos/train/__MACOSX").mkdir()
    Path("photos/train/__MACOSX/._x.png").write_bytes(b"bad")
    data = open_data(name, {"root": "photos"})
    assert data.pools["train"].counts.tolist() == [3, 3, 3]
    (line,) = (line for line in data.summary() if line.startswith("skipped"))
    for part in ("1 .DS_Store", "1 ._*", "1 .txt", "1 in __MACOSX", "1 pictures outside of class folders"):
        assert part in line


@pytest.mark.parametrize("name", ["folder", "miniimagenet"])
def test_constant_and_damaged_pictures_in_folders_of_splits(name):
    in_splits("photos", lambda v: v, "png")
    write("photos/train/class1/1.png", BLACK)
    with pytest.raises(UsageError, match=rf"{name}: 1 of 15 pictures is constant .*first .*class1/1.png"):
        open_data(name, {"root": "photos"})
    Path("photos/train/class1/1.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"photos/train/class1/1.png is no image: its content is of no known format"):
        open_data(name, {"root": "photos"})


# What is refused


def test_damaged_and_empty_files_are_named():
    folder("scans")
    file = Path("scans/class00/03.png")
    whole = file.read_bytes()
    for content, why in (
        (whole[:45], "no image that can be read: "),
        (b"", "no image: its content is of no known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image: its content is of no known format"),
    ):
        file.write_bytes(content)
        with pytest.raises(UsageError, match=rf"scans/class00/03.png is {why}") as caught:
            opened("scans")
        assert "\n" not in str(caught.value)


def test_a_file_that_claims_to_be_huge_is_refused_before_it_is_decoded():
    header = struct.pack(">IIBBBBB", 2**14, 2**13, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    with pytest.raises(UsageError, match=r"bomb.png has more than 67,108,864 pixels"):
        read_picture(content + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")), "bomb.png")


def test_constant_pictures_are_refused_with_their_number_and_the_first_or_kept():
    folder("scans")
    for number in (2, 5):
        write(f"scans/class00/{number:02}.png", np.full((SIZE, SIZE), 9, np.uint8))
    with pytest.raises(UsageError, match=r"2 of 16 pictures are constant at 16 × 16, first scans/class00/02.png"):
        opened("scans")
    data = opened("scans", keep_constant=True)
    assert "2 of 16 pictures are constant and kept" in data.summary()


def test_values_that_are_not_finite_are_refused():
    folder("scans")
    values = scan(0).astype(np.float32)
    values[3, 4] = np.nan
    write("scans/class00/00.tif", values)
    with pytest.raises(UsageError, match=r"class00/00.tif holds NaN or infinity"):
        opened("scans")


def test_a_picture_unlike_those_that_were_looked_at_is_refused_when_it_is_drawn():
    """Three of 16 are looked at: the first, the last, and one between."""
    for number, (values, what) in enumerate(
        (
            (np.dstack([scan(i) for i in range(3)]), "in colour"),
            (scan(0).astype(np.uint16), "of more than 8 bits"),
            (np.full((SIZE, SIZE), 3, np.uint8), "constant"),
        )
    ):
        root = folder(f"scans{number}")
        write(f"{root}/class00/01.png", values)
        data = opened(root, checked=3)
        assert data.pictures.survey.count == 3
        with pytest.raises(UsageError, match=rf"class00/01.png is {what}"):
            data.pools["train"].inputs, data.pools["test"].inputs
    opened("scans1", checked=16)
    masks = folder("masks", change=lambda v: v % 2)
    write(f"{masks}/class00/01.png", scan(1))
    with pytest.raises(
        UsageError, match=r"01.png is of values from 0 to 255, unlike the 3 .* with 1 as white.*--checked"
    ):
        opened(masks, checked=3).pictures[torch.arange(16)]
