"""Image files that are hard to read right: depth, metadata, order, memory, and files that are odd in any other way."""

import json
import random
import struct
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import odd_images
from convolt.data.prepare import prepare
from convolt.data.sources import Folder, Masks, decoding
from convolt.data.sources.decoding import read_mask, voc_palette
from convolt.data.sources.image_notes import ImageNotes
from convolt.data.sources.parallel_reading import read_each
from convolt.data.sources.squares import read_image
from convolt.errors import UserError
from convolt.inference import evaluate, predict
from convolt.inference.trained import TrainedRun
from convolt.runs.config_hash import config_hash
from odd_images import chunk, png, rows


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def gray(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint16)).save(path)
    return path


def ten_bits(root: Path) -> Path:
    """Two classes of ten images each of 10 bits in 16: dark ones and light ones; one has the largest value."""
    values = np.random.default_rng(0).integers(0, 512, (20, 8, 8))
    for index, one in enumerate(values):
        gray(root / "ab"[index % 2] / f"{index}.png", one + 511 * (index % 2))
    return gray(root / "b/1.png", np.full((8, 8), 1023)).parents[1]


# --- depth


def test_white_is_the_largest_value_of_16_bits(tmp_path):
    path = gray(tmp_path / "x.png", np.array([[0, 1024], [2048, 4095]]))
    assert read_image(path, 2, 1, white=4095)[..., 0].tolist() == [[0, 64], [128, 255]]
    assert read_image(path, 2, 1)[..., 0].tolist() == [[0, 4], [8, 16]]
    with pytest.raises(ValueError, match=r"integers from 0 to 4095, not 0 to data\.white=4000"):
        read_image(path, 2, 1, white=4000)
    eight = tmp_path / "8.png"
    Image.fromarray(np.array([[7, 200]] * 2, np.uint8)).save(eight)
    assert read_image(eight, 2, 1, white=4095)[..., 0].tolist() == [[7, 200]] * 2


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_16_bits_of_either_byte_order(tmp_path, order):
    values = np.array([[0, 1000], [2000, 4095]]).astype(order)
    mode = "I;16" if order == "<u2" else "I;16B"
    Image.frombytes(mode, (2, 2), values.tobytes()).save(tmp_path / "x.tif")
    assert read_image(tmp_path / "x.tif", 2, 1, white=4095)[..., 0].tolist() == [[0, 62], [125, 255]]


def test_a_file_that_tells_its_own_white_keeps_it(tmp_path):
    pixels = np.array([0, 1000, 2000, 4095], ">u2").tobytes()
    path, notes = written(tmp_path / "x.pgm", b"P5\n2 2\n4095\n" + pixels), ImageNotes()
    for white in (None, 1023):
        assert read_image(path, 2, 1, white=white, notes=notes)[..., 0].tolist() == [[0, 62], [125, 255]]
    assert notes.lines() == ()


def test_transparency_of_16_bits_is_kept(tmp_path):
    values = np.array([[4352, 4353], [0, 65535]], np.uint16)
    path = written(tmp_path / "x.png", png(2, 2, 16, 0, rows(values), chunk(b"tRNS", struct.pack(">H", 4352))))
    assert read_image(path, 2, 1)[..., 0].tolist() == [[255, 17], [0, 255]]
    both = np.stack([values, np.array([[0, 65535], [65535, 0]], np.uint16)], 2)
    path = written(tmp_path / "a.png", png(2, 2, 16, 4, rows(both)))
    assert read_image(path, 2, 1)[..., 0].tolist() == [[255, 17], [0, 255]]


def test_transparent_color_of_16_bits_is_matched_by_its_upper_half(tmp_path):
    color = np.repeat(np.array([[4352, 300]], np.uint16)[..., None], 3, 2)
    path = written(tmp_path / "x.png", png(2, 1, 16, 2, rows(color), chunk(b"tRNS", struct.pack(">HHH", *[4352] * 3))))
    notes = ImageNotes()
    assert read_image(path, 1, 3, "stretch", notes=notes)[0, 0, 0] in (127, 128)  # half white, half nearly black
    assert any("transparent color of 16 bits" in line for line in notes.lines())


def test_color_of_16_bits_is_told_and_refuses_white(tmp_path):
    color = np.full((2, 2, 3), 1023, np.uint16)
    path, notes = written(tmp_path / "x.png", png(2, 2, 16, 2, rows(color))), ImageNotes()
    assert (read_image(path, 2, 3, notes=notes) == 3).all()
    (line,) = notes.lines()
    assert "16-bit color reach 3 of 255 only" in line
    assert "save 8-bit files" in line
    with pytest.raises(ValueError, match=r"data\.white=1023 cannot be applied"):
        read_image(path, 2, 3, white=1023)


def test_a_folder_that_uses_few_values_is_told(tmp_path):
    root, data = ten_bits(tmp_path / "d"), tmp_path / "data"
    dark = prepare(Folder(root, image_size=8, channels=1), data)
    assert dark.train_images.max() == 4
    (note,) = json.loads((dark.folder / "dataset.json").read_text())["notes"]
    assert "reach 1023 of 65535 only" in note
    assert "data.white=1023" in note
    assert "a/0.png" in note
    light = prepare(Folder(root, image_size=8, channels=1, white=1023), data)
    assert light.folder != dark.folder
    assert len(np.unique(light.train_images)) > 200
    assert "notes" not in json.loads((light.folder / "dataset.json").read_text())
    with pytest.raises(UserError, match=r"not 0 to data\.white=700.*on_error=skip"):
        prepare(Folder(root, image_size=8, white=700), data)
    for wrong in (0, 1.5, "x", True):
        with pytest.raises(UserError, match=r"data\.white=.* will not do: give the largest value of 16-bit files"):
            prepare(Folder(root, white=wrong), data)


def test_files_that_use_an_eighth_of_the_range_are_not_told(tmp_path):
    for value, told in ((8191, True), (8192, False)):
        notes = ImageNotes()
        read_image(gray(tmp_path / "x.png", np.array([[0, value]])), 2, 1, notes=notes)
        assert bool(notes.lines()) == told


def test_names_and_hashes_are_as_they_were_without_white(settings, tmp_path):
    root = ten_bits(tmp_path / "d")
    assert Folder(root).name == Folder(root, white=None).name != Folder(root, white=65535).name
    for data in ("folder", "masks"):
        cfg = settings(f"data={data}", f"data.path={root}")
        asked = config_hash(cfg)
        for node in (cfg.data, cfg.data.source):
            del node["white"]
        assert config_hash(cfg) == asked
        assert config_hash(settings(f"data={data}", f"data.path={root}", "data.white=4095")) != asked


def test_a_run_takes_white_along(train, tmp_path, capfd):
    root = ten_bits(tmp_path / "d")
    options = ["data=folder", f"data.path={root}", "data.image_size=16", "data.channels=1", "trainer.max_epochs=1"]
    train(*options, "data.white=1023")
    run = TrainedRun(tmp_path / "run")
    assert run.input_spec.white == 1023
    again = evaluate.evaluate(run, ["data=folder", f"data.path={root}"])
    assert again.data.dataset.digest == run.result["dataset_hash"]
    assert predict.main([str(tmp_path / "run"), str(gray(tmp_path / "x.png", np.full((8, 8), 1024)))]) == 1
    assert "not 0 to data.white=1023" in capfd.readouterr().err


def test_masks_take_white_too(tmp_path):
    for index in range(4):
        gray(tmp_path / f"d/images/{index}.png", np.full((4, 4), 1023 * (index % 2)))
        (tmp_path / "d/masks").mkdir(exist_ok=True)
        Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / f"d/masks/{index}.png")
    told = prepare(Masks(tmp_path / "d", image_size=4, channels=1), tmp_path / "data")
    assert "data.white=1023" in (told.folder / "dataset.json").read_text()
    dataset = prepare(Masks(tmp_path / "d", image_size=4, channels=1, white=1023), tmp_path / "data")
    assert set(np.unique(np.concatenate([dataset.train_images, dataset.test_images]))) == {0, 255}


# --- metadata


@pytest.mark.parametrize("ending", ["png", "webp", "jpg"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_pixels_are_read_where_exif_cannot_be(tmp_path, ending, exif):
    Image.new("RGB", (8, 8), (200, 10, 20)).save(tmp_path / f"x.{ending}", exif=exif, quality=100)
    notes = ImageNotes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = read_image(tmp_path / f"x.{ending}", 4, 3, notes=notes)
    assert np.abs(image.astype(int) - (200, 10, 20)).max() < 6
    (line,) = notes.lines(lambda path: path.name)
    assert line == f"1 file: EXIF could not be read, so the orientation is as stored: x.{ending}"


@pytest.mark.parametrize("ending", ["png", "webp", "jpg", "tif"])
@pytest.mark.parametrize("orientation", [0, 5, 6, 7, 9])
def test_orientation_is_applied_once_in_every_format(tmp_path, ending, orientation):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8, :8] = 255
    pixels[:8, 8:] = 120
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if ending == "webp" else {"quality": 100} if ending == "jpg" else {}
    Image.fromarray(pixels).save(tmp_path / f"x.{ending}", exif=exif, **options)
    notes = ImageNotes()
    image = read_image(tmp_path / f"x.{ending}", 16, 1, notes=notes)[4::8, 4::8, 0].astype(int)
    wanted = {5: [[255, 0], [120, 0]], 6: [[0, 255], [0, 120]], 7: [[0, 120], [0, 255]]}
    assert np.abs(image - wanted.get(orientation, [[255, 120], [0, 0]])).max() < 12
    assert notes.lines() == ()


def test_pixels_of_a_png_are_read_where_its_texts_cannot_be(tmp_path):
    values = np.full((8, 8, 3), 77, np.uint8)
    bomb = odd_images.zlib.compress(b"x" * 3_000_000)
    damaged = chunk(b"tEXt", b"a\0b")[:-1] + b"?"
    for name, extra, after in (
        ("bomb", chunk(b"zTXt", b"note\0\0" + bomb), b""),
        ("late", b"", chunk(b"zTXt", b"note\0\0" + bomb)),
        ("checksum", damaged, b""),
    ):
        path, notes = written(tmp_path / f"{name}.png", png(8, 8, 8, 2, rows(values), extra, after=after)), ImageNotes()
        assert (read_image(path, 4, 3, notes=notes) == 77).all()
        assert notes.lines(lambda path: path.name) == (
            f"1 file: metadata could not be read and is left out: {name}.png",
        )
    whole = png(8, 8, 8, 2, rows(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)), damaged)
    with pytest.raises(Exception, match=r"trunc|broken"):
        read_image(written(tmp_path / "half.png", whole[:-60]), 4, 3)


def test_predict_tells_of_metadata_and_ends_well(finished, tmp_path, capfd):
    Image.new("L", (8, 8), 90).save(tmp_path / "x.png", exif=b"Exif\0\0garbage")
    assert predict.main([str(finished), str(tmp_path / "x.png")]) == 0
    assert "note: 1 file: EXIF could not be read" in capfd.readouterr().err


# --- the state of the libraries


def test_what_was_read_before_changes_nothing_and_libtiff_is_silent(tmp_path):
    """An icon is no TGA after a TGA was opened; and a damaged TIFF writes nothing on the screen."""
    Image.new("P", (8, 8)).save(tmp_path / "a.tga")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (160, 160, 4), np.uint8)).save(
        tmp_path / "b.ico", sizes=[(160, 160)]
    )
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "c.tif", compression="tiff_lzw")
    data = bytearray((tmp_path / "c.tif").read_bytes())
    data[2000:2040] = b"\xff" * 40
    (tmp_path / "c.tif").write_bytes(data)
    code = (
        "import sys; from pathlib import Path; from PIL import Image\n"
        "Image.open(sys.argv[1] + '/a.tga').load()\n"
        "from convolt.data.sources.parallel_reading import read_each\n"
        "from convolt.data.sources.squares import read_image\n"
        "paths = [Path(sys.argv[1], name) for name in ('a.tga', 'b.ico', 'c.tif')]\n"
        "for path, image in read_each(paths, lambda path: read_image(path, 8, 3)):\n"
        "    print(path.name, image if isinstance(image, str) else 'read')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[:2] == ["a.tga read", "b.ico read"]
    assert "c.tif" in done.stdout
    assert done.stderr == ""


def test_postscript_is_not_run(tmp_path):
    path = written(
        tmp_path / "x.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n%%EOF\n"
    )
    with pytest.raises(ValueError, match="PostScript is a program"):
        read_image(path, 8, 3)


# --- whose mistake it is


@pytest.mark.parametrize("error", [IndexError("out of range"), SyntaxError("broken header"), RuntimeError("bad data")])
def test_whatever_a_decoder_raises_is_the_fault_of_the_file(tmp_path, monkeypatch, error):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    def load(self):
        raise error

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    ((_, reason),) = read_each([tmp_path / "a.png"], lambda path: read_image(path, 8, 3))
    assert reason == str(error)


@pytest.mark.parametrize("error", [TypeError, KeyError, ValueError])
def test_a_mistake_of_our_own_is_not_blamed_on_the_file(error):
    def read(item):
        raise error("ours")

    with pytest.raises(error, match="ours"):
        list(read_each([1], read))


# --- memory


def test_threads_share_a_bound_of_memory(tmp_path, monkeypatch):
    for index in range(6):
        Image.new("RGB", (20, 20), "red").save(tmp_path / f"{index}.png")
    monkeypatch.setattr(decoding, "_memory", decoding._Memory(9 * 400 * 2))
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    inside, most, lock = [0], [0], threading.Lock()

    def read(path):
        with decoding.open_upright(path, 3):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            time.sleep(0.02)
            with lock:
                inside[0] -= 1
            return True

    assert all(result is True for _, result in read_each(sorted(tmp_path.iterdir()), read))
    assert most[0] == 2


def test_a_format_that_takes_more_memory_is_refused_sooner(tmp_path, monkeypatch):
    for ending in ("webp", "png"):
        Image.new("RGB", (20, 20), "red").save(tmp_path / f"x.{ending}")
    monkeypatch.setattr(decoding, "MEMORY", 9 * 400)
    assert read_image(tmp_path / "x.png", 4, 3).shape == (4, 4, 3)
    with pytest.raises(ValueError, match=r"20 x 20 pixels of WEBP take .* GB to read: make it smaller"):
        read_image(tmp_path / "x.webp", 4, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "F"])
def test_strips_change_nothing(tmp_path, monkeypatch, mode):
    image = odd_images.picture(mode, (33, 21))
    options = {"transparency": 3} if mode == "P" else {}
    path = tmp_path / f"x.{'tif' if mode == 'F' else 'png'}"
    image.save(path, **options)
    for channels in (1, 3):
        monkeypatch.setattr(decoding, "STRIP", 1 << 20)
        at_once = read_image(path, 16, channels)
        monkeypatch.setattr(decoding, "STRIP", 40)
        assert np.array_equal(read_image(path, 16, channels), at_once)


def test_masks_are_turned_and_their_colors_read_in_strips(tmp_path, monkeypatch):
    labels = np.arange(33 * 21, dtype=np.uint8).reshape(21, 33) % 21
    palette = Image.fromarray(labels)
    palette.putpalette(voc_palette().flatten().tolist())
    palette.convert("RGB").save(tmp_path / "x.png")
    monkeypatch.setattr(decoding, "STRIP", 40)
    assert np.array_equal(read_mask(tmp_path / "x.png"), labels)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(labels).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_mask(tmp_path / "turned.png"), np.rot90(labels, -1))
    Image.fromarray(labels).save(tmp_path / "exif.png", exif=b"Exif\0\0garbage")
    assert np.array_equal(read_mask(tmp_path / "exif.png"), labels)


# --- all sorts


def test_odd_files_are_read_or_named(finished, tmp_path, capfd):
    """A draw of `odd_images.py`, whose whole is for the command line: nothing is passed over in silence."""
    files = random.Random(1).sample(odd_images.everything(small=True), 100)
    paths = odd_images.write(tmp_path / "odd", files)
    capfd.readouterr()
    status = predict.main([str(finished), *map(str, paths), "--json"])
    out, err = capfd.readouterr()
    document = json.loads(out)
    told = [entry["file"] for entry in document["predictions"]] + [entry["file"] for entry in document["skipped"]]
    assert sorted(told) == sorted(map(str, paths))
    assert status == 1
    assert len(document["predictions"]) > 50
    assert all(entry["error"] for entry in document["skipped"])
    assert all(line.startswith(("note: ", "skipped: ")) for line in err.splitlines())
