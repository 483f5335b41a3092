"""The user's own images: layouts, formats and mistakes."""

import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convolt.data.prepare import prepare
from convolt.data.sources import Folder
from convolt.data.sources.squares import read_image
from convolt.errors import UserError

RED, BLUE = (255, 0, 0), (0, 0, 255)


def picture(path: Path, color=RED, size=(12, 12), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **options)
    return path


def flat(root: Path, count: int = 10) -> Path:
    """Red cats and blue dogs; the green value tells the images apart."""
    for index in range(count):
        picture(root / "cat" / f"{index:02}.png", (255, index, 0))
        picture(root / "dog" / f"{index:02}.png", (0, index, 255))
    return root


def splits(root: Path, *names: str) -> Path:
    for name in names:
        flat(root / name, count=4)
    return root


def message(source: Folder, root: Path) -> str:
    with pytest.raises(UserError) as caught:
        prepare(source, root)
    assert "\n" not in str(caught.value)
    assert [path.name for path in root.glob("*") if path.suffix != ".lock"] == []
    return str(caught.value)


# --- layouts


def test_flat_folder_holds_out_a_stratified_fifth(tmp_path):
    dataset = prepare(Folder(flat(tmp_path / "pets"), image_size=8), tmp_path / "data")
    assert dataset.classes == ("cat", "dog")
    assert dataset.train_images.shape == (16, 8, 8, 3)
    assert np.bincount(dataset.test_labels).tolist() == [2, 2]
    for images, labels in (
        (dataset.train_images, dataset.train_labels),
        (dataset.test_images, dataset.test_labels),
    ):
        assert (images[labels == 0][..., 0] == 255).all()
        assert (images[labels == 1][..., 2] == 255).all()
    numbers = [int(image[0, 0, 1]) for image in (*dataset.train_images, *dataset.test_images)]
    assert sorted(numbers) == sorted([*range(10)] * 2)  # every image in one split


def test_held_out_images_are_the_same_everywhere(tmp_path):
    one = prepare(Folder(flat(tmp_path / "one/pets"), image_size=8), tmp_path / "data")
    two = prepare(Folder(flat(tmp_path / "two/pets"), image_size=8), tmp_path / "data")
    assert one.folder != two.folder
    assert one.digest == two.digest


def test_splits_are_kept(tmp_path):
    root = splits(tmp_path / "pets", "train", "val", "test")
    picture(root / "val/dog/deep/er/99.png", (0, 99, 255))
    picture(root / "test/cat/98.png", (255, 98, 0))
    dataset = prepare(Folder(root, image_size=4), tmp_path / "data")
    assert dataset.train_labels.tolist() == [0] * 4 + [1] * 4
    assert dataset.val_labels.tolist() == [0] * 4 + [1] * 5
    assert dataset.val_images[8, 0, 0].tolist() == [0, 99, 255]
    assert dataset.test_images[4, 0, 0].tolist() == [255, 98, 0]


def test_train_and_val_without_test(tmp_path):
    root = splits(tmp_path / "pets", "train", "Validation")
    dataset = prepare(Folder(root, image_size=4, test_fraction=0.25), tmp_path / "data")
    assert [len(dataset.train_labels), len(dataset.val_labels), len(dataset.test_labels)] == [6, 8, 2]


def test_hidden_files_and_litter_are_ignored(tmp_path):
    root = flat(tmp_path / "pets")
    (root / ".git/objects").mkdir(parents=True)
    (root / "cat/.DS_Store").write_text("x")
    (root / "cat/Thumbs.db").write_text("x")
    (root / "labels.csv").write_text("x")
    assert prepare(Folder(root, image_size=4), tmp_path / "data").classes == ("cat", "dog")


def test_size_channels_and_files_are_part_of_the_name(tmp_path):
    root = flat(tmp_path / "My Pets")
    names = {
        Folder(root).name,
        Folder(root, image_size=32).name,
        Folder(root, channels=1).name,
        Folder(root, resize="stretch").name,
        Folder(root, test_fraction=0.5).name,
    }
    assert len(names) == 5
    assert Folder(root).name.startswith("my_pets_12x3_")
    assert Folder(root, image_size=12).name == Folder(root).name
    before = Folder(root).name
    os.utime(root / "cat/00.png", ns=(1, 1))
    assert Folder(root).name != before
    before = Folder(root).name
    picture(root / "cat/new.png")
    assert Folder(root).name != before


# --- formats


def read(path: Path, channels: int = 3, size: int = 4, resize: str = "crop") -> np.ndarray:
    image = read_image(path, size, channels, resize)
    assert image.shape == (size, size, channels)
    assert image.dtype == np.uint8
    return image


@pytest.mark.parametrize("extension", ["png", "bmp", "gif", "tiff", "webp", "ppm", "tga"])
def test_lossless_formats(tmp_path, extension):
    options = {"lossless": True} if extension == "webp" else {}
    path = picture(tmp_path / f"x.{extension}", (10, 200, 30), **options)
    assert (read(path) == (10, 200, 30)).all()


def test_jpeg_of_any_size(tmp_path):
    path = picture(tmp_path / "x.jpg", (10, 200, 30), size=(900, 700), quality=95)
    assert np.abs(read(path, size=32).astype(int) - (10, 200, 30)).max() <= 4


def test_grayscale_file_as_color_and_color_file_as_grayscale(tmp_path):
    Image.new("L", (6, 6), 77).save(tmp_path / "gray.png")
    assert (read(tmp_path / "gray.png") == 77).all()
    assert (read(picture(tmp_path / "red.png"), channels=1) == 76).all()  # 0.299 * 255


def test_black_and_white_file(tmp_path):
    Image.fromarray(np.array([[True, False]] * 2)).resize((8, 8)).save(tmp_path / "one_bit.png")
    assert read(tmp_path / "one_bit.png", channels=1, size=8)[0, :, 0].tolist() == [255] * 4 + [0] * 4


def test_transparency_is_laid_on_white(tmp_path):
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:, :2] = (200, 10, 20, 255)
    rgba[:, 3] = (0, 0, 0, 51)  # a fifth of black
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    assert read(tmp_path / "rgba.png")[0].tolist() == [[200, 10, 20]] * 2 + [[255] * 3, [204] * 3]
    Image.fromarray(rgba).convert("LA").save(tmp_path / "la.png")
    assert read(tmp_path / "la.png", channels=1)[0, 2:, 0].tolist() == [255, 204]


def test_palette_with_and_without_transparency(tmp_path):
    palette = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).convert("P")
    palette.putpalette([9, 8, 7, 100, 150, 200, 50, 60, 70])
    palette.save(tmp_path / "p.png")
    assert read(tmp_path / "p.png", size=2).tolist() == [[[9, 8, 7], [100, 150, 200]], [[50, 60, 70], [100, 150, 200]]]
    palette.save(tmp_path / "t.png", transparency=1)
    assert read(tmp_path / "t.png", size=2)[0].tolist() == [[9, 8, 7], [255, 255, 255]]


def test_16_bits_are_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257], [32896, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert read(tmp_path / "deep.png", channels=1, size=2)[..., 0].tolist() == [[0, 1], [128, 255]]
    Image.fromarray(values).save(tmp_path / "deep.tiff")
    assert read(tmp_path / "deep.tiff", size=2)[1].tolist() == [[128] * 3, [255] * 3]


def test_fractions_are_scaled_and_other_floats_refused(tmp_path):
    Image.fromarray(np.array([[0, 0.2], [0.5, 1]], np.float32)).save(tmp_path / "f.tiff")
    assert read(tmp_path / "f.tiff", channels=1, size=2)[..., 0].tolist() == [[0, 51], [128, 255]]
    Image.fromarray(np.array([[0, 300.0]], np.float32)).save(tmp_path / "g.tiff")
    with pytest.raises(ValueError, match=r"fractions from 0\.0 to 300\.0"):
        read(tmp_path / "g.tiff")


def test_cmyk_is_converted(tmp_path):
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "x.tiff")
    assert (read(tmp_path / "x.tiff") == (0, 255, 255)).all()


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (7, 7)), (6, (0, 7)), (8, (7, 0))])
def test_exif_orientation_is_applied(tmp_path, orientation, corner):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0, 0] = 255  # where a camera held upright has its first pixel
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    image = read(tmp_path / "x.png", size=8)
    assert np.argwhere(image[..., 0] == 255).tolist() == [list(corner)]


def test_crop_keeps_the_center_and_stretch_keeps_all(tmp_path):
    pixels = np.zeros((4, 12, 3), np.uint8)
    pixels[:, 4:8] = 100
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert (read(tmp_path / "wide.png") == 100).all()
    stretched = read(tmp_path / "wide.png", size=12, resize="stretch")
    assert stretched[0, [0, 5, 6, 11], 0].tolist() == [0, 100, 100, 0]


def test_animation_gives_its_first_picture(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, BLUE)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert (read(tmp_path / "x.gif") == RED).all()


def test_pixels_are_bounded(tmp_path, monkeypatch):
    path = picture(tmp_path / "x.png", size=(12, 12))
    monkeypatch.setattr("convolt.data.sources.decoding.MAX_PIXELS", 144)
    assert (read(path) == RED).all()
    monkeypatch.setattr("convolt.data.sources.decoding.MAX_PIXELS", 143)
    with pytest.raises(ValueError, match="12 x 12 pixels are more than 143"):
        read(path)


def bomb(path: Path, side: int = 20_000) -> Path:
    """A PNG of some hundred bytes that claims side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b""))
    return path


# --- unreadable files


def spoil(root: Path) -> None:
    (root / "cat/empty.jpg").write_bytes(b"")
    (root / "cat/text.jpg").write_text("not an image")
    whole = (root / "dog/00.png").read_bytes()
    (root / "dog/half.png").write_bytes(whole[: len(whole) // 2])
    bomb(root / "dog/bomb.png")
    bomb(root / "dog/smaller_bomb.png", 11_000)


def test_unreadable_files_stop_the_preparation_and_are_all_named(tmp_path):
    spoil(flat(tmp_path / "pets"))
    text = message(Folder(tmp_path / "pets", image_size=8), tmp_path / "data")
    assert "5 of 25 files" in text
    for name in ("cat/empty.jpg", "cat/text.jpg", "dog/half.png", "dog/bomb.png", "dog/smaller_bomb.png"):
        assert name in text
    assert "data.on_error=skip" in text


def test_unreadable_files_are_skipped_when_asked(tmp_path):
    spoil(flat(tmp_path / "pets"))
    dataset = prepare(Folder(tmp_path / "pets", image_size=8, on_error="skip"), tmp_path / "data")
    assert len(dataset.train_labels) + len(dataset.test_labels) == 20
    images = np.concatenate([dataset.train_images, dataset.test_images])
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    assert np.array_equal(images[:, 0, 0, 0] == 255, labels == 0)  # no image slipped to another's label
    skipped = json.loads((dataset.folder / "dataset.json").read_text())["skipped"]
    assert tuple(skipped) == dataset.skipped
    assert [line.split(":")[0] for line in skipped] == [
        "cat/empty.jpg", "cat/text.jpg", "dog/bomb.png", "dog/half.png", "dog/smaller_bomb.png",
    ]  # fmt: skip
    again = prepare(Folder(tmp_path / "pets", image_size=8, on_error="skip"), tmp_path / "data")
    told = "5 of 25 files could not be read and were left out (data.on_error=skip): cat/empty.jpg: "
    assert again.remarks[0].startswith(told)


def test_many_unreadable_files_are_counted(tmp_path):
    root = flat(tmp_path / "pets")
    for index in range(30):
        (root / f"cat/x{index:02}.jpg").write_text("no")
    text = message(Folder(root, image_size=8), tmp_path / "data")
    assert "30 of 50 files" in text
    assert "and 25 more" in text


def test_a_class_without_readable_images(tmp_path):
    root = flat(tmp_path / "pets")
    for name in ("a", "b", "c"):
        (root / "fox").mkdir(exist_ok=True)
        (root / f"fox/{name}.png").write_text("no")
    text = message(Folder(root, image_size=8, on_error="skip"), tmp_path / "data")
    assert "no readable train image is left of fox" in text


# --- mistakes


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"path": None}, "data.path=FOLDER"),
        ({"path": "no/such/folder"}, "does not exist"),
        ({"resize": "crob"}, "did you mean 'crop'"),
        ({"on_error": "skp"}, "did you mean 'skip'"),
        ({"channels": 2}, "neither 1 (grayscale) nor 3"),
        ({"image_size": 0}, "at least 1 pixel"),
        ({"test_fraction": 1.0}, "must be above 0 and below 1"),
        ({"test_fraction": 0}, "must be above 0 and below 1"),
    ],
)
def test_mistaken_options(tmp_path, options, expected):
    given = {"path": flat(tmp_path / "pets"), **options}
    assert expected in message(Folder(**given), tmp_path / "data")


def test_near_match_of_a_misspelt_folder(tmp_path):
    flat(tmp_path / "pets")
    assert f"did you mean '{tmp_path}/pets'" in message(Folder(tmp_path / "petts"), tmp_path / "data")


def test_mistaken_layouts(tmp_path):
    data = tmp_path / "data"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no class folders" in message(Folder(empty), data)
    picture(tmp_path / "single/cat/0.png")
    assert "only the class folder 'cat'" in message(Folder(tmp_path / "single"), data)
    (flat(tmp_path / "hollow") / "fox").mkdir()
    assert "no images in fox" in message(Folder(tmp_path / "hollow"), data)
    picture(flat(tmp_path / "rare") / "fox/0.png")
    assert "fox in" in message(Folder(tmp_path / "rare"), data)
    assert "but no train folder" in message(Folder(splits(tmp_path / "untrained", "test", "val")), data)
    flat(splits(tmp_path / "mixed", "train", "test"))
    assert "cat, dog beside test and train" in message(Folder(tmp_path / "mixed"), data)
    assert "both" in message(Folder(splits(tmp_path / "twice", "train", "val", "valid")), data)
    picture(splits(tmp_path / "differing", "train", "test") / "test/fox/0.png")
    assert "train has no images of fox" in message(Folder(tmp_path / "differing"), data)
    picture(splits(tmp_path / "lacking", "train", "test") / "train/fox/0.png")
    assert "test has no images of fox" in message(Folder(tmp_path / "lacking"), data)
