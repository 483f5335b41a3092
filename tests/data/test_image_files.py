"""Which files below a folder are images, what is left out, and that a run, an evaluation and predict.py tell it."""

import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convolt.config.compose import compose
from convolt.data.labels import select
from convolt.data.prepare import prepare
from convolt.data.sources import Arrays, Folder, Masks
from convolt.data.sources.discovery import describe_linked_twice, find_files, is_litter, native_size, read_file
from convolt.data.sources.image_notes import describe_resizing
from convolt.errors import UserError, printable
from convolt.inference import evaluate, predict
from convolt.inference.trained import TrainedRun
from convolt.runs.config_hash import config_hash

LATIN_1 = os.fsdecode(b"caf\xe9")
"""A folder's name that is not UTF-8."""


def picture(path: Path, value: int = 100, size: tuple[int, int] = (40, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 10, 10)).save(path)
    return path


def classes(root: Path, *names: str, count: int = 5) -> Path:
    for place, name in enumerate(names):
        for index in range(count):
            picture(root / name / f"{index:02}.png", 20 * place + index)
    return root


def mistake(source: Any, root: Path) -> str:
    with pytest.raises(UserError) as caught:
        prepare(source, root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what is found


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store", "._x.png", ".stfolder", "@eaDir", "@Recycle", "@Recently-Snapshot", "#recycle", "$RECYCLE.BIN",
        "System Volume Information", "lost+found", "found.000", "__MACOSX", "Thumbs.db", "ehthumbs.db", "desktop.ini",
        "Icon\r", "x.jpg:Zone.Identifier", "x.jpg@SynoEAStream", "~snapshot",
    ],
)  # fmt: skip
def test_what_systems_leave_is_litter(name: str) -> None:
    assert is_litter(name)


@pytest.mark.parametrize("name", ["recycle", "lost", "icon", "thumbs", "founder", "x.png", "ini", "a.b", "@home"])
def test_ordinary_names_are_no_litter(name: str) -> None:
    assert not is_litter(name)


def test_thumbnails_and_trash_are_neither_classes_nor_images(tmp_path: Path) -> None:
    root = classes(tmp_path / "pets", "cat", "dog")
    for litter in ("@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"):
        picture(root / litter / "00.png")
        picture(root / "cat" / litter / "00.png/SYNOPHOTO_THUMB_M.png")
    dataset = prepare(Folder(root), tmp_path / "data")
    assert dataset.classes == ("cat", "dog")
    assert len(dataset.train_labels) + len(dataset.test_labels) == 10
    assert predict.find_files([root])[0] == sorted(root.glob("[cd]*/*.png"))


def test_links_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    root, more = classes(tmp_path / "pets", "cat", "dog"), classes(tmp_path / "more", "cat", "dog", count=3)
    for name in ("cat", "dog"):
        (root / name / "more").symlink_to(more / name)
        (root / name / "again").symlink_to(more / name)  # the same images once more
        (root / name / "up").symlink_to(root)
        (more / name / "self").symlink_to(more / name)
        (root / name / "first.png").symlink_to(root / name / "00.png")
    (root / "round").symlink_to(root)
    source = Folder(root, image_size=4)
    dataset = prepare(source, tmp_path / "data")
    assert dataset.classes == ("cat", "dog")
    values = [int(image[0, 0, 0]) for image in (*dataset.train_images, *dataset.test_images)]
    assert sorted(values) == sorted([*range(5), *range(3), *range(20, 25), *range(20, 23)])
    files, others = predict.find_files([root])
    assert len(files) == 16
    assert others == []
    assert not any("linked from" in note for note in dataset.notes)


def test_a_folder_of_links_to_files_is_read(tmp_path: Path) -> None:
    kept = classes(tmp_path / "kept", "x")
    for name in ("cat", "dog"):
        (tmp_path / "links" / name).mkdir(parents=True)
        for file in sorted((kept / "x").iterdir()):
            (tmp_path / "links" / name / file.name).symlink_to(file)
    source = Folder(tmp_path / "links", image_size=4)
    dataset = prepare(source, tmp_path / "data")
    assert len(dataset.train_labels) == 8
    assert dataset.notes[0] == (
        "files that are linked from more than one class or split (5): cat/00.png and dog/00.png; "
        "cat/01.png and dog/01.png; cat/02.png and dog/02.png; cat/03.png and dog/03.png; cat/04.png and dog/04.png"
    )
    assert describe_linked_twice([("a", "/a"), ("b", "/b")]) == []


def test_pipes_and_dead_links_are_files_that_cannot_be_read(tmp_path: Path) -> None:
    root = classes(tmp_path / "pets", "cat", "dog", count=10)
    os.mkfifo(root / "cat/pipe.png")
    (root / "dog/dead.png").symlink_to("/nowhere/x.png")
    (root / "dog/loop.png").symlink_to("loop.png")
    text = mistake(Folder(root, image_size=4), tmp_path / "data")
    assert "3 of 23 files" in text
    assert "cat/pipe.png: a named pipe, not a file" in text
    assert "dog/dead.png: a link to /nowhere/x.png, which does not exist" in text
    dataset = prepare(Folder(root, image_size=4, on_error="skip"), tmp_path / "data")
    assert len(dataset.skipped) == 3
    (root / "dog/dead.png").unlink()
    (root / "dog/dead.png").symlink_to(root / "dog/00.png")
    assert prepare(Folder(root, image_size=4, on_error="skip"), tmp_path / "data").folder != dataset.folder


def test_raw_photos_are_named_and_not_read_by_their_previews(tmp_path: Path) -> None:
    preview = tmp_path / "x.nef"
    Image.new("RGB", (16, 16)).save(preview, format="TIFF")
    with pytest.raises(ValueError, match=r"a raw photo \(NEF\), which cannot be read: convert it to JPEG or PNG"):
        read_file(preview, lambda path: Image.open(path).size)
    renamed = tmp_path / "y.dng"
    Image.new("RGB", (16, 12)).save(renamed, format="JPEG")
    assert read_file(renamed, lambda path: Image.open(path).size) == (16, 12)


# --- names


def test_names_are_written_in_one_line_of_unicode() -> None:
    assert printable(LATIN_1) == "caf\\xe9"
    assert printable("a\nb\x1b[1m") == "a\\nb\\x1b[1m"
    assert printable("Gemüse 😀 猫") == "Gemüse 😀 猫"
    assert str(UserError(f"{LATIN_1}\n")) == "caf\\xe9\\n"


def test_names_of_classes_are_composed(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    root = tmp_path / "menu"
    classes(root / "train", composed, "zinc")
    classes(root / "val", decomposed, "zinc", count=2)
    dataset = prepare(Folder(root), tmp_path / "data")
    assert dataset.classes == (composed, "zinc")
    assert dataset.val_labels is not None
    assert dataset.val_labels.tolist() == [0, 0, 1, 1]
    _, _, kept = select(dataset.train_labels, dataset.classes, keep_classes=[decomposed, "zinc"])
    assert kept == (composed, "zinc")
    classes(root / "train", decomposed)
    assert "two folders named 'café'" in mistake(Folder(root), tmp_path / "data")


# --- splits


def test_messages_about_splits_agree(tmp_path: Path) -> None:
    root, data = tmp_path / "pets", tmp_path / "data"
    classes(root / "train", "cat", "dog")
    classes(root / "val", "cat")
    absent = mistake(Folder(root), data)
    assert "but val has no images of dog: add images of them, or move val/ away" in absent
    (root / "val/dog").mkdir()
    assert mistake(Folder(root), data) == absent
    picture(root / "val/dog/0.png")
    (root / "val/fox").mkdir()  # an empty folder more is none
    assert prepare(Folder(root), data).classes == ("cat", "dog")
    (root / "train/fox").mkdir()
    assert "no images in fox of" in mistake(Folder(root), data)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    root = classes(tmp_path / "traffic", "bus", "car", "train")
    dataset = prepare(Folder(root), tmp_path / "data")
    assert dataset.classes == ("bus", "car", "train")
    assert dataset.notes == ("train counts as a class, since images lie in train/ itself",)


def test_images_beside_the_classes_are_told(tmp_path: Path) -> None:
    root = classes(tmp_path / "pets", "cat", "dog")
    picture(root / "lost.png")
    (root / "labels.csv").write_text("x")
    dataset = prepare(Folder(root), tmp_path / "data")
    assert dataset.notes == ("images in no class's folder are left out (1): lost.png",)


# --- size


def test_images_of_one_small_size_are_kept_as_they_are(tmp_path: Path) -> None:
    root = classes(tmp_path / "pets", "cat", "dog")
    settings = ["data=folder", f"data.path={root}"]
    assert compose(settings).data.image_size == 40
    assert config_hash(compose(settings)) == config_hash(compose([*settings, "data.image_size=40"]))
    dataset = prepare(Folder(root), tmp_path / "data")
    assert dataset.train_images.shape == (8, 40, 40, 3)
    assert dataset.notes == ()
    picture(root / "cat/wide.png", size=(80, 60))
    cfg = compose(settings)
    assert cfg.data.image_size == 64  # as it was before there was a choice, with the hash of before
    assert config_hash(cfg) == config_hash(compose([*settings, "data.image_size=64"]))
    dataset = prepare(Folder(root), tmp_path / "data")
    assert dataset.folder.name.startswith("pets_64x3_")
    told = "images of 40x40 to 80x60 pixels, cropped and resized to 64x64 (data.image_size, data.resize)"
    assert dataset.notes == (told,)


def test_files_are_opened_once_and_their_sizes_told_upright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large JPEG is decoded at a part of its size, and lies on its side: what is told is what a viewer shows."""
    for name in ("cat", "dog"):
        for index in range(3):
            image = Image.new("RGB", (300, 200), (50 * index, 0, 0))
            exif = Image.Exif()
            exif[0x0112] = 6
            (tmp_path / "pets" / name).mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / "pets" / name / f"{index}.jpg", exif=exif)
    opened = []
    usual = Image.open
    monkeypatch.setattr(Image, "open", lambda path, *args, **more: opened.append(path) or usual(path, *args, **more))
    dataset = prepare(Folder(tmp_path / "pets", image_size=32), tmp_path / "data")
    told = "images of 200x300 pixels, cropped and resized to 32x32 (data.image_size, data.resize)"
    assert dataset.notes == (told,)
    assert len(opened) == len(set(opened)) == 6


def test_the_size_of_a_folder(tmp_path: Path) -> None:
    small = [picture(tmp_path / f"{index}.png", size=(16, 16)) for index in range(2)]
    broken = tmp_path / "broken.png"
    broken.write_text("x")
    assert native_size([broken, *small]) == 16
    assert native_size([*small, picture(tmp_path / "tall.png", size=(16, 17))]) == 64
    assert native_size([picture(tmp_path / "large.png", size=(65, 65))]) == 64
    assert native_size([broken]) == 64


@pytest.mark.parametrize(
    ("sizes", "resize", "told"),
    [
        ([(32, 32)], "crop", ""),
        ([(64, 64)], "crop", "images of 64x64 pixels, resized to 32x32"),
        ([(64, 32)], "crop", "images of 64x32 pixels, cropped to 32x32"),
        ([(64, 32), (8, 8)], "crop", "images of 8x8 to 64x32 pixels, cropped and resized to 32x32"),
        ([(64, 32)], "stretch", "images of 64x32 pixels, stretched to 32x32"),
        ([(64, 64)], "pad", "images of 64x64 pixels, cropped to 32x32"),
        ([(20, 32)], "pad", "images of 20x32 pixels, padded to 32x32"),
        ([(20, 40)], "pad", "images of 20x40 pixels, cropped and padded to 32x32"),
    ],
)
def test_what_resizing_does_is_told(sizes: list[tuple[int, int]], resize: str, told: str) -> None:
    assert describe_resizing(sizes, 32, resize).removesuffix(" (data.image_size, data.resize)") == told


# --- masks


def test_masks_in_folders_and_without_images(tmp_path: Path) -> None:
    root = tmp_path / "scenes"
    for index in range(4):
        picture(root / "images/day" / f"{index}.jpg", size=(20, 16))
        (root / "masks/day").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 20), index % 2, np.uint8)).save(root / "masks/day" / f"{index}.png")
    Image.fromarray(np.zeros((16, 20), np.uint8)).save(root / "masks/spare.png")
    (root / "masks/@eaDir").mkdir()
    source = Masks(root, image_size=16)
    dataset = prepare(source, tmp_path / "data")
    assert source.holds_out
    assert len(dataset.train_images) + len(dataset.test_images) == 4
    assert dataset.notes == (
        "masks without an image in scenes/masks are left out (1): spare.png",
        "images of 20x16 pixels, stretched to 16x16 (data.image_size, data.resize)",
    )
    os.mkfifo(root / "images/pipe.png")
    Image.fromarray(np.zeros((16, 20), np.uint8)).save(root / "masks/pipe.png")
    assert "a named pipe, not a file" in mistake(Masks(root, image_size=16), tmp_path / "data")


# --- what a run, an evaluation and predict.py tell


@pytest.fixture(scope="module")
def odd_run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run on a folder with everything odd in it: its directory, the folder, and what it showed."""
    from contextlib import redirect_stdout
    from io import StringIO

    from convolt.training.run import run

    above = tmp_path_factory.mktemp("odd")
    root = classes(above / "d", LATIN_1, "[b]", count=10)
    (root / LATIN_1 / os.fsdecode(b"\xff[x]\n.png")).write_text("x")
    os.mkfifo(root / "[b]/pipe.png")
    options = ["data=folder", f"data.path={root}", "data.on_error=skip", "data.image_size=32", f"data.root={above}/p"]
    common = ["trainer.threads=1", "trainer.max_epochs=1", "pictures.map_images=0", "pictures.graph=false"]
    shown = []
    for name in ("first", "second"):
        screen = StringIO()
        with redirect_stdout(screen):
            run(compose([*options, *common, f"pictures.enabled={str(name == 'first').lower()}"]), above / name)
        shown.append(screen.getvalue())
    return above, root, shown


SKIPPED = (
    "2 of 22 files could not be read and were left out (data.on_error=skip): [b]/pipe.png: a named pipe, not a file;"
)
RESIZED = "images of 40x40 pixels, resized to 32x32 (data.image_size, data.resize)"


def test_every_run_tells_what_was_left_out_and_changed(odd_run: Any) -> None:
    above, _, shown = odd_run
    for name, screen in zip(("first", "second"), shown, strict=True):
        result = json.loads((above / name / "result.json").read_text())
        assert result["skipped"] == {
            "count": 2,
            "files": ["[b]/pipe.png: a named pipe, not a file", "caf\\xe9/\\xff[x]\\n.png: no image that Pillow knows"],
        }
        assert result["notes"] == [RESIZED]
        assert [entry["class"] for entry in result["per_class"]] == ["[b]", "caf\\xe9"]
        for text in (screen, (above / name / "run.log").read_text()):
            assert text.count(SKIPPED) == 1
            assert text.count(RESIZED) == 1
    assert "Preparing d_32x3_" in (above / "first/run.log").read_text()  # said before there was a log
    assert "Preparing" not in (above / "second/run.log").read_text()


def test_a_report_tells_it_too(odd_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from convolt.reports import report

    above, _, _ = odd_run
    assert report.main([str(above / "first"), "--no-figures", "--out", str(above / "report")]) == 0
    told = "files that could not be read and were left out (2): [b]/pipe.png: a named pipe, not a file"
    assert told in " ".join(capsys.readouterr().out.split())
    assert told in (above / "report/report.html").read_text()
    assert RESIZED in (above / "report/report.html").read_text()


def test_evaluate_takes_all_of_a_flat_folder(odd_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    above, root, _ = odd_run
    run = TrainedRun(above / "second")
    fresh = classes(tmp_path / "fresh", LATIN_1, "[b]", count=25)
    options = ["data=folder", f"data.path={fresh}", f"data.root={tmp_path}/p"]
    found = evaluate.evaluate(run, options)
    assert (found.split, len(found.predicted.targets), found.of_own_images) == ("all", 50, False)
    assert np.bincount(found.predicted.targets).tolist() == [25, 25]
    assert evaluate.main([str(above / "second"), *options]) == 0
    shown = capsys.readouterr().out
    assert "all 50 images" in shown
    assert f"note: {RESIZED}" in shown
    folder = next((above / "second/evaluations").iterdir())
    assert json.loads((folder / "report.json").read_text())["split"] == "all"
    for more, count in ((["split=test"], 10), (["data.test_fraction=0.4"], 20)):
        found = evaluate.evaluate(run, [*options, *more])
        assert (found.split, len(found.predicted.targets)) == ("test", count)
    # Without data=folder it is the run's own folder elsewhere, which holds other images.
    found = evaluate.evaluate(run, [f"data.path={fresh}", f"data.root={tmp_path}/p"])
    assert (found.split, len(found.predicted.targets)) == ("all", 50)
    # The images that it learned from are not measured as if they were new.
    same = ["data=folder", f"data.path={root}", "data.on_error=skip", f"data.root={tmp_path}/p"]
    found = evaluate.evaluate(run, same)
    assert (found.split, len(found.predicted.targets)) == ("test", 4)


def test_evaluate_keeps_the_splits_of_a_folder(odd_run: Any, tmp_path: Path) -> None:
    above, _, _ = odd_run
    classes(tmp_path / "fresh/train", LATIN_1, "[b]", count=3)
    classes(tmp_path / "fresh/test", LATIN_1, "[b]", count=2)
    options = ["data=folder", f"data.path={tmp_path / 'fresh'}", f"data.root={tmp_path}/p"]
    for more, count in (([], 4), (["split=train", "data.val_fraction=0"], 6)):
        found = evaluate.evaluate(TrainedRun(above / "second"), [*options, *more])
        assert (found.split != "all", len(found.predicted.targets)) == (True, count)


def test_all_of_arrays_and_masks_without_test_images(tmp_path: Path) -> None:
    images, labels = np.zeros((10, 8, 8, 1), np.uint8), np.arange(10) % 2
    np.savez(tmp_path / "flat.npz", x_train=images, y_train=labels)
    np.savez(tmp_path / "split.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    assert Arrays(tmp_path / "flat.npz").holds_out
    assert not Arrays(tmp_path / "split.npz").holds_out
    from convolt.data.module import ImageDataModule

    data = ImageDataModule(Arrays(tmp_path / "flat.npz"), tmp_path / "data")
    data.setup()
    assert len(data.indices["test"]) == 2
    data.test_on_all()
    assert np.bincount(data.labels("test")).tolist() == [5, 5]
    assert len(data.inputs("test", np.arange(10), "cpu")) == 10


def test_predict_names_what_it_cannot_read(odd_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    above, _, _ = odd_run
    photos = tmp_path / "photos"
    picture(photos / "00.png")
    Image.new("RGB", (8, 8)).save(photos / "mislabeled.heic", format="PNG")
    Image.new("RGB", (8, 8)).save(photos / "stereo.mpo", format="MPO")
    for ending in ("HEIC", "dng", "CR2", "nef", "jxl"):
        (photos / f"IMG.{ending}").write_bytes(b"II*\0" + b"\0" * 20)
    for name in ("notes.txt", "film.mp4", "README", "data.h5"):
        (photos / name).write_text("x")
    os.mkfifo(photos / "pipe.jpg")
    (photos / "dead.jpg").symlink_to("nowhere.jpg")
    (photos / os.fsdecode(b"\xff.png")).write_text("x")
    assert predict.main([str(above / "second"), str(photos), "--json"]) == 1
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert [Path(entry["file"]).name for entry in document["predictions"]] == [
        "00.png",
        "mislabeled.heic",
        "stereo.mpo",
    ]
    errors = {Path(entry["file"]).name: entry["error"] for entry in document["skipped"]}
    assert errors == {
        "IMG.CR2": "a raw photo (CR2), which cannot be read: convert it to JPEG or PNG",
        "IMG.HEIC": "HEIC cannot be read: convert it to JPEG or PNG",
        "IMG.dng": "a raw photo (DNG), which cannot be read: convert it to JPEG or PNG",
        "IMG.jxl": "JXL cannot be read: convert it to JPEG or PNG",
        "IMG.nef": "a raw photo (NEF), which cannot be read: convert it to JPEG or PNG",
        "dead.jpg": "a link to nowhere.jpg, which does not exist",
        "pipe.jpg": "a named pipe, not a file",
        "\\xff.png": "no image that Pillow knows",
    }
    assert "passed over: 4 other files: .h5, .mp4, .txt, without an ending" in captured.err
    assert captured.err.count("skipped: ") == 8
    (photos / "only").mkdir()
    (photos / "only/a.txt").write_text("x")
    assert predict.main([str(above / "second"), str(photos / "only")]) == 2
    assert "holds no images, but 1 other file: .txt" in capsys.readouterr().err
    assert predict.main([str(above / "second"), str(photos / "pipe.jpg")]) == 1  # a named one does not hang either


def test_padding_and_resizing_are_shown(data_root: Path) -> None:
    from convolt.config.instantiate import build

    for options, told in (
        ([], "24x24 padded to 32x32"),
        (["data.image_size=64"], "24x24 padded to 32x32 and resized to 64x64"),
        (["data.padding=0", "data.image_size=24"], ""),
    ):
        data = build(compose([f"data.root={data_root}", *options]).data, "data", known_only=True)
        data.setup()
        assert data.describe_resizing() == told


def test_a_folder_is_looked_through_once_for_real(tmp_path: Path) -> None:
    """The files of a folder that links lead to twice are under their own path."""
    picture(tmp_path / "c/z/0.png")
    (tmp_path / "c/a").symlink_to(tmp_path / "c/z")
    assert [*find_files(tmp_path / "c")] == [tmp_path / "c/z/0.png"]
