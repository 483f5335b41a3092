"""Sources of images with masks: generated shapes, folders of the user's own, VOC2012 from a server on this machine."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from convolt.data.prepare import prepare
from convolt.data.sources import VOC2012, Masks, Shapes
from convolt.data.sources.decoding import read_mask, voc_palette
from convolt.data.sources.shapes import KINDS
from convolt.data.sources.squares import fit_to_square, restore_from_square
from convolt.errors import UserError
from local_server import Server, md5, server

__all__ = ["server"]

RANDOM = np.random.default_rng(0)


def said(source: Any, root: Path) -> str:
    with pytest.raises(UserError) as caught:
        prepare(source, root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- shapes


def test_scenes_are_the_same_for_the_same_seed_and_others_for_another(tmp_path: Path) -> None:
    options = {"image_size": 24, "train_images": 6, "test_images": 3}
    first, again, other = (
        prepare(Shapes(**options, seed=seed), tmp_path / name) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first.digest == again.digest != other.digest
    assert first.train_labels.dtype == np.uint8
    assert first.train_labels.shape == (6, 24, 24)
    assert first.train_labels.ndim == 3
    assert first.classes == ("background", "disk", "square", "triangle", "cross")
    assert not np.array_equal(first.train_images[:3], first.test_images)


@pytest.mark.parametrize("thin", [False, True])
def test_masks_are_exact(thin: bool) -> None:
    """Without noise a pixel has its shape's color, and nothing else has it."""
    source = Shapes(image_size=48, num_classes=9, noise=0, thin=thin)
    for index in range(20):
        image, mask = source.scene(np.random.default_rng([5, index]))
        background = image[mask == 0]
        assert len(np.unique(background, axis=0)) == 1
        assert background[0].max() == background[0].min()  # gray, and nothing else is
        for label in np.unique(mask[mask > 0]):
            colors = np.unique(image[mask == label], axis=0).astype(int)
            assert len(colors) <= 4
            assert (colors.max(1) > colors.min(1)).all()


def test_a_disk_is_the_pixels_whose_middle_is_in_it() -> None:
    source = Shapes(image_size=40, num_classes=2, noise=0)
    random = np.random.default_rng(3)
    inside = source._inside(1, random)
    random = np.random.default_rng(3)
    radius = random.uniform(0.16, 0.32) * 40
    y, x = random.uniform(0.15, 0.85, 2) * 40
    for row in range(40):
        for column in range(40):
            assert inside[row, column] == ((row + 0.5 - y) ** 2 + (column + 0.5 - x) ** 2 < radius**2)


def test_thin_shapes_are_a_few_pixels_wide() -> None:
    for label in range(1, len(KINDS) + 1):
        thick, thin = (
            Shapes(image_size=64, num_classes=9, thin=kind, thickness=2)._inside(label, np.random.default_rng(1)).sum()
            for kind in (False, True)
        )
        assert thin > 0
        if list(KINDS)[label - 1] in ("disk", "square", "triangle"):
            assert thin < 0.6 * thick


def test_any_number_of_classes_has_names_and_colors_of_its_own() -> None:
    source = Shapes(image_size=16, num_classes=20)
    assert len(set(source.classes)) == 20
    assert source.classes[1] == "disk_1"
    assert source.classes[9] == "disk_2"
    hues = [max(range(3), key=lambda c, k=k: source._color(k, np.random.default_rng(0))[c]) for k in (1, 8, 14)]
    assert hues == [0, 1, 2]


@pytest.mark.parametrize(
    "options", [{"num_classes": 1}, {"num_classes": 256}, {"image_size": 4}, {"thickness": 0.5}, {"noise": -1}]
)
def test_shapes_that_cannot_be_are_one_line(tmp_path: Path, options: dict[str, Any]) -> None:
    assert f"data.{next(iter(options))}=" in said(Shapes(**options), tmp_path)


# --- how images become squares


def test_stretch_crop_and_pad_and_back() -> None:
    mask = RANDOM.integers(0, 9, (6, 10)).astype(np.uint8)
    image = Image.fromarray(mask)
    cropped = np.asarray(fit_to_square(image, 6, "crop", mask=True))
    assert np.array_equal(cropped, mask[:, 2:8])
    back = restore_from_square(cropped, 10, 6, "crop")
    assert np.array_equal(back[:, 2:8], cropped)
    assert (back[:, :2] == 255).all()
    padded = np.asarray(fit_to_square(image, 8, "pad", mask=True))
    assert np.array_equal(padded[1:7], mask[:, 1:9])
    assert (padded[0] == 255).all()
    assert np.array_equal(restore_from_square(padded, 10, 6, "pad")[:, 1:9], mask[:, 1:9])
    assert (np.asarray(fit_to_square(image, 8, "pad"))[0] == 0).all()
    stretched = np.asarray(fit_to_square(image, 30, "stretch", mask=True))
    assert np.array_equal(stretched, mask.repeat(5, 0).repeat(3, 1))
    assert np.array_equal(restore_from_square(stretched, 10, 6, "stretch"), mask)


def test_the_palette_is_vocs() -> None:
    palette = voc_palette()
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    assert {label: tuple(palette[label].tolist()) for label in known} == known
    assert palette[255].tolist() == [224, 224, 192]
    assert len(np.unique(palette, axis=0)) == 256


@pytest.mark.parametrize("kind", ["palette", "gray", "colors", "16 bits"])
def test_masks_of_every_kind_are_read_alike(tmp_path: Path, kind: str) -> None:
    mask = RANDOM.integers(0, 21, (7, 9)).astype(np.uint8)
    mask[0] = 255
    image = Image.fromarray(mask)
    if kind == "palette":
        image.putpalette(voc_palette().flatten().tolist())
    elif kind == "colors":
        image = Image.fromarray(voc_palette()[mask])
    elif kind == "16 bits":
        image = Image.fromarray(mask.astype(np.uint16))
    image.save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), mask)


# --- folders


def write_folder(root: Path, count: int = 10, highest: int = 2, splits: tuple[str, ...] = ("",)) -> None:
    for split in splits:
        (root / split / "images").mkdir(parents=True)
        (root / split / "masks").mkdir()
        for number in range(count):
            height, width = 10 + number, 21 - number
            mask = np.full((height, width), number % (highest + 1), np.uint8)
            mask[0] = 255
            Image.fromarray(np.stack([mask] * 3, 2) * 10).save(root / split / "images" / f"{number}.png")
            Image.fromarray(mask).save(root / split / "masks" / f"{number}.png")


def test_a_folder_becomes_arrays(tmp_path: Path) -> None:
    write_folder(tmp_path / "own")
    dataset = prepare(Masks(tmp_path / "own", image_size=16, resize="pad"), tmp_path / "data")
    assert dataset.train_images.shape == (8, 16, 16, 3)
    assert dataset.test_labels.shape == (2, 16, 16)
    assert dataset.classes == ("0", "1", "2")
    for images, masks in ((dataset.train_images, dataset.train_labels), (dataset.test_images, dataset.test_labels)):
        labeled = masks != 255
        assert np.array_equal(images[..., 0][labeled], masks[labeled] * 10)
    record = json.loads((dataset.folder / "dataset.json").read_text())
    assert record["arrays"]["train_labels.npy"]["shape"] == [8, 16, 16]


def test_splits_and_names_of_a_folder(tmp_path: Path) -> None:
    write_folder(tmp_path / "own", 3, splits=("train", "val", "test"))
    (tmp_path / "own/classes.txt").write_text("nothing\ncat\ndog\nbird\n")
    dataset = prepare(Masks(tmp_path / "own", image_size=16, channels=1), tmp_path / "data")
    assert dataset.classes == ("nothing", "cat", "dog", "bird")
    assert dataset.val_labels is not None
    assert len(dataset.val_labels) == len(dataset.train_labels) == 3
    assert Masks(tmp_path / "own", image_size=16).name != Masks(tmp_path / "own", image_size=16, resize="crop").name


def test_folders_that_cannot_be_used_are_one_line(tmp_path: Path) -> None:
    root = tmp_path / "data"
    assert "data=masks needs a folder" in said(Masks(None), root)
    assert "does not exist" in said(Masks(tmp_path / "nowhere"), root)
    own = tmp_path / "own"
    own.mkdir()
    assert "has no folder images/" in said(Masks(own), root)
    write_folder(own, 3)
    assert "data.resize=squeeze is not one of" in said(Masks(own, resize="squeeze"), root)
    assert "but there are 2 class names" in said(Masks(own, class_names=["a", "b"]), root)
    (own / "masks/1.png").rename(own / "masks/other.png")
    assert f"{own / 'images/1.png'} has no mask" in said(Masks(own), root)
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(own / "masks/1.png")
    assert "images/1.png in" in said(Masks(own), root)
    assert "the mask has 3 x 3 pixels, its image 20 x 11" in said(Masks(own), root)
    (own / "masks/1.png").write_bytes(b"none")
    assert "no image that Pillow knows" in said(Masks(own), root)
    Image.fromarray(RANDOM.integers(0, 256, (11, 20, 3)).astype(np.uint8)).save(own / "masks/1.png")
    assert "is none of VOC's" in said(Masks(own), root)


def test_masks_of_0_and_255_alone_are_a_mistake_that_is_told(tmp_path: Path) -> None:
    write_folder(tmp_path / "own", 3, highest=0)
    assert "hold 255 and 0 alone, and 255 is ignored" in said(Masks(tmp_path / "own"), tmp_path / "data")


# --- VOC2012


def voc_image(number: int) -> tuple[Image.Image, Image.Image]:
    """An image of odd sides and its mask: two objects with borders of 255, in VOC's palette."""
    height, width = 37 + 6 * number, 50 + 3 * number
    mask = np.zeros((height, width), np.uint8)
    for label, (top, left) in ((1 + number, (4, 5)), (15, (16, 24))):
        mask[top : top + 16, left : left + 18] = 255
        mask[top + 2 : top + 14, left + 2 : left + 16] = label
    pixels = np.where(mask[..., None] == 255, 128, voc_palette()[mask] // 2 + 40).astype(np.uint8)
    palette = Image.fromarray(mask)
    palette.putpalette(voc_palette().flatten().tolist())
    return Image.fromarray(pixels), palette


def encoded(image: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **({"quality": 95} if form == "JPEG" else {}))
    return buffer.getvalue()


def tar(files: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def serve_voc(server: Server, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Put a small VOC2012 of VOC's own layout on the server: six training images, three of validation."""
    from torchvision.datasets import voc

    names = {"train": [f"2007_00000{n}" for n in range(6)], "val": [f"2007_00000{n}" for n in range(6, 9)]}
    base = "VOCdevkit/VOC2012"
    files = {f"{base}/ImageSets/Segmentation/{s}.txt": "".join(f"{n}\n" for n in names[s]).encode() for s in names}
    for number, name in enumerate(names["train"] + names["val"]):
        image, mask = voc_image(number)
        files[f"{base}/JPEGImages/{name}.jpg"] = encoded(image, "JPEG")
        files[f"{base}/SegmentationClass/{name}.png"] = encoded(mask, "PNG")
    content = tar(files)
    facts = dict(voc.DATASET_YEAR_DICT["2012"], url=f"{server.url}voc.tar", md5=md5(content))
    monkeypatch.setitem(voc.DATASET_YEAR_DICT, "2012", facts)
    server.files["voc.tar"] = content
    return content


def serve_sbd(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a small SBD on the server: two images of its own, one that VOC trains on and one that VOC validates on."""
    from torchvision.datasets import SBDataset

    files = {}
    for number, name in ((3, "2008_000001"), (4, "2008_000002"), (0, "2007_000000"), (6, "2007_000006")):
        image, mask = voc_image(number)
        buffer = io.BytesIO()
        savemat(buffer, {"GTcls": {"Segmentation": np.asarray(mask)}})
        files[f"benchmark_RELEASE/dataset/img/{name}.jpg"] = encoded(image, "JPEG")
        files[f"benchmark_RELEASE/dataset/cls/{name}.mat"] = buffer.getvalue()
    content = tar(files, "w:gz")
    monkeypatch.setattr(SBDataset, "url", f"{server.url}sbd.tgz")
    monkeypatch.setattr(SBDataset, "md5", md5(content))
    server.files["sbd.tgz"] = content


def test_voc2012_is_downloaded_once_and_becomes_arrays(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = serve_voc(server, monkeypatch)
    server.files["voc.tar"] = content[:-4000]
    assert "cannot be downloaded" in said(VOC2012(image_size=64), tmp_path)
    server.files["voc.tar"] = content
    dataset = prepare(VOC2012(image_size=64, resize="pad"), tmp_path)
    assert set(server.asked) == {"voc.tar"}
    server.asked.clear()
    assert (len(dataset.classes), dataset.classes[15]) == (21, "person")
    assert dataset.train_images.shape == (6, 64, 64, 3)
    assert dataset.test_labels.shape == (3, 64, 64)
    mask = np.asarray(voc_image(0)[1])
    top, left = (64 - 37) // 2, (64 - 50) // 2
    assert np.array_equal(dataset.train_labels[0, top : top + 37, left : left + 50], mask)
    assert (dataset.train_labels[0, :top] == 255).all()
    # The image shows what the mask says, but for JPEG's losses.
    shown = dataset.train_images[0].astype(int)
    for label in (0, 1, 15):
        expected = voc_palette()[label].astype(int) // 2 + 40
        assert np.abs(np.median(shown[dataset.train_labels[0] == label], axis=0) - expected).max() < 12
    stretched = prepare(VOC2012(image_size=32), tmp_path)
    assert stretched.train_labels.shape == (6, 32, 32)
    assert {0, 1, 15, 255} == set(np.unique(stretched.train_labels[0]))
    assert server.asked == []


def test_sbd_adds_training_images_but_none_that_are_tested(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    serve_voc(server, monkeypatch)
    serve_sbd(server, monkeypatch)
    dataset = prepare(VOC2012(image_size=64, resize="pad", sbd=True), tmp_path)
    assert len(dataset.train_labels) == 8
    assert len(dataset.test_labels) == 3
    mask = np.asarray(voc_image(3)[1])
    top, left = (64 - mask.shape[0]) // 2, (64 - mask.shape[1]) // 2
    assert np.array_equal(dataset.train_labels[6, top : top + mask.shape[0], left : left + mask.shape[1]], mask)
    assert sorted(path.name for path in dataset.folder.iterdir()) == [
        "dataset.json", "test_images.npy", "test_labels.npy", "train_images.npy", "train_labels.npy"
    ]  # fmt: skip


def test_a_voc_that_lacks_a_mask_is_one_line(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torchvision.datasets import voc

    files = {f"VOCdevkit/VOC2012/ImageSets/Segmentation/{split}.txt": b"a\n" for split in ("train", "val")}
    content = tar(files | {"VOCdevkit/VOC2012/JPEGImages/a.jpg": encoded(voc_image(0)[0], "JPEG")})
    facts = dict(voc.DATASET_YEAR_DICT["2012"], url=f"{server.url}voc.tar", md5=md5(content))
    monkeypatch.setitem(voc.DATASET_YEAR_DICT, "2012", facts)
    server.files["voc.tar"] = content
    assert "cannot be read as VOC2012" in said(VOC2012(image_size=64), tmp_path)
