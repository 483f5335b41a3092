"""Preparing and opening datasets: locks, kills, adoption, damage; on real files and real processes."""

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from convolt.data.prepare import prepare
from convolt.data.prepared import mean_and_std, open_prepared
from convolt.data.sources.base import ArrayFile, Contents, fingerprint, open_split, slug
from convolt.errors import UserError


def some_images(count: int, seed: int = 0, channels: int = 3, side: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


class Toy:
    """40 training and 20 test images of two classes."""

    name = "toy"

    def write(self, folder: Path, downloads: Path) -> Contents:
        for split, count in (("train", 40), ("test", 20)):
            with open_split(folder, split, (6, 6, 3)) as (images, labels):
                images.append(some_images(count, count))
                labels.append(np.arange(count) % 2)
        return Contents(("a", "b"), "a toy", {"letters": ("a", "b")})


class Failing(Toy):
    def __init__(self, error: Exception) -> None:
        self.error = error

    def write(self, folder: Path, downloads: Path) -> Contents:
        super().write(folder, downloads)
        raise self.error


def bare(folder: Path, classes: list[str] | None = None, **arrays: np.ndarray) -> Path:
    """Write a dataset as shared/data/unpack.py does."""
    folder.mkdir(parents=True)
    contents = {
        "train_images": some_images(40, 1),
        "train_labels": np.arange(40) % 2,
        "test_images": some_images(20, 2),
        "test_labels": np.arange(20) % 2,
        **arrays,
    }
    for name, array in contents.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "dataset.json").write_text(json.dumps({"name": "bare", "classes": classes or ["a", "b"]}))
    return folder


def left_overs(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.name.endswith(".tmp"))


def message(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- preparing


def test_prepare_writes_the_contract(tmp_path):
    dataset = prepare(Toy(), tmp_path)
    assert np.array_equal(dataset.train_images, some_images(40, 40))
    assert np.array_equal(dataset.test_images, some_images(20, 20))
    assert dataset.train_labels.tolist() == [0, 1] * 20
    assert dataset.train_labels.dtype == np.int64
    assert (dataset.name, dataset.classes, dataset.folder) == ("toy", ("a", "b"), tmp_path / "toy")
    assert dataset.superclasses == {"letters": ("a", "b")}
    assert dataset.val_images is None
    assert isinstance(dataset.train_images, np.memmap)
    record = json.loads((tmp_path / "toy/dataset.json").read_text())
    assert record["source"] == "a toy"
    for name, facts in record["arrays"].items():
        content = (tmp_path / "toy" / name).read_bytes()
        assert facts["sha256"] == hashlib.sha256(content).hexdigest()
        assert facts["bytes"] == len(content)
    assert set(record["arrays"]) == {f"{s}_{k}.npy" for s in ("train", "test") for k in ("images", "labels")}
    assert record["arrays"]["train_images.npy"]["shape"] == [40, 6, 6, 3]
    assert left_overs(tmp_path) == []


def test_prepare_makes_a_dataset_once(tmp_path):
    first = prepare(Toy(), tmp_path)
    again = prepare(Failing(AssertionError("written twice")), tmp_path)  # the same name: only opened
    assert again.digest == first.digest
    assert len(first.digest) == 64


def test_digest_follows_the_arrays(tmp_path):
    one = open_prepared(bare(tmp_path / "one"))
    same = open_prepared(bare(tmp_path / "same"))
    other = open_prepared(bare(tmp_path / "other", test_labels=np.array([1, 0] * 10)))
    assert one.digest == same.digest != other.digest


def test_mean_and_std_are_those_of_numpy_and_exact():
    images = some_images(2500, seed=5, side=4)  # more than two chunks
    mean, std = mean_and_std(images)
    fractions = images.astype(np.float64) / 255
    assert mean == pytest.approx(fractions.mean(axis=(0, 1, 2)), rel=1e-12)
    assert std == pytest.approx(fractions.std(axis=(0, 1, 2)), rel=1e-12)
    constant = np.full((3, 2, 2, 2), 51, np.uint8)
    constant[0, ..., 1] = 0
    assert mean_and_std(constant)[0] == pytest.approx((0.2, 0.2 * 2 / 3))
    assert mean_and_std(constant)[1][0] == 1.0  # dividing by it is safe
    # a large mean and a small deviation: sums of floats would lose it
    nearly = np.full((3000, 8, 8, 1), 255, np.uint8)
    nearly[0, 0, 0, 0] = 254
    count = 3000 * 64
    assert mean_and_std(nearly)[1][0] == pytest.approx((1 / count - 1 / count**2) ** 0.5 / 255, rel=1e-12)


def test_array_file_has_the_bytes_of_numpy_save(tmp_path):
    images = some_images(1234)
    with ArrayFile(tmp_path / "rows.npy", (6, 6, 3)) as file:
        for start in range(0, 1234, 100):
            file.append(images[start : start + 100])
    np.save(tmp_path / "numpy.npy", images)
    assert (tmp_path / "rows.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    with ArrayFile(tmp_path / "bad.npy", (6, 6, 3)) as file, pytest.raises(ValueError, match="expected uint8"):
        file.append(images.astype(np.float32))


def test_images_cannot_be_changed_on_disk_through_the_arrays(tmp_path):
    dataset = prepare(Toy(), tmp_path)
    dataset.train_images[0] = 0
    assert np.array_equal(prepare(Toy(), tmp_path).train_images, some_images(40, 40))


def test_a_source_of_the_users_that_returns_something_else_is_told_what_it_returns(tmp_path):
    class Names(Toy):
        def write(self, folder: Path, downloads: Path) -> list[str]:
            return [*super().write(folder, downloads).classes]

    with pytest.raises(
        UserError, match=r"data\.source: Names\.write returned a list; it returns convolt\.data\.sources\.C"
    ):
        prepare(Names(), tmp_path)
    assert left_overs(tmp_path) == []


def test_an_error_leaves_nothing_behind(tmp_path):
    with pytest.raises(UserError, match="no such images"):
        prepare(Failing(UserError("no such images")), tmp_path)
    assert not (tmp_path / "toy").exists()
    assert left_overs(tmp_path) == []
    assert prepare(Toy(), tmp_path).name == "toy"


def test_an_error_leaves_neither_a_lock_nor_empty_folders(tmp_path):
    (tmp_path / "kept").mkdir()
    for root in (tmp_path / "made/root", tmp_path / "kept"):
        message(prepare, Failing(UserError("no such images")), root)
    assert [path.name for path in tmp_path.rglob("*")] == ["kept"]


def test_an_error_leaves_what_was_downloaded(tmp_path):
    class Unpacking(Toy):
        def write(self, folder, downloads):
            downloads.mkdir(parents=True)
            (downloads / "archive.zip").write_bytes(b"half")
            raise UserError("no such images")

    message(prepare, Unpacking(), tmp_path / "root")
    assert [path.name for path in tmp_path.rglob("*.zip")] == ["archive.zip"]


def test_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/thesis.txt").write_text("mine")
    assert "is no prepared dataset" in message(prepare, Toy(), tmp_path)
    assert (tmp_path / "toy/thesis.txt").read_text() == "mine"


def test_empty_folder_is_filled(tmp_path):
    (tmp_path / "toy").mkdir()
    assert prepare(Toy(), tmp_path).train_labels.sum() == 20


def test_root_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    assert "is a file, not a folder" in message(prepare, Toy(), tmp_path / "file")
    assert "is a file, not a folder" in message(prepare, Toy(), tmp_path / "file/below")


def test_root_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert "cannot be accessed (Permission denied): change its permissions; data.root=FOLDER" in message(
        prepare, Toy(), tmp_path / "root"
    )


def test_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    assert "without locks: use a local disk; data.root=FOLDER puts it elsewhere" in message(prepare, Toy(), tmp_path)


# --- several processes

SCRIPT = """
import os, sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from data.test_prepare import Toy, prepare, UserError

class Slow(Toy):
    def write(self, folder, downloads):
        with open({log!r}, "a") as log:
            log.write(f"{{os.getpid()}}\\n")
        (folder / "part.npy").write_bytes(b"half of an array")
        time.sleep({pause})
        (folder / "part.npy").unlink()
        return super().write(folder, downloads)

while not Path({go!r}).exists():
    time.sleep(0.005)
try:
    dataset = prepare(Slow(), {root!r})
    print(dataset.digest)
except UserError as error:
    print("UserError", error)
"""


def start(tmp_path: Path, pause: float, before: str = "") -> "subprocess.Popen[str]":
    places = {"log": str(tmp_path / "log"), "go": str(tmp_path / "go"), "root": str(tmp_path / "root")}
    script = before + SCRIPT.format(tests=str(Path(__file__).parents[1]), pause=pause, **places)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


def wait_for(condition, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_processes_that_start_together_make_it_once(tmp_path):
    processes = [start(tmp_path, pause=0.3) for _ in range(3)]
    time.sleep(0.7)  # all of them wait
    (tmp_path / "go").touch()
    digests = {process.communicate(timeout=30)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert digests == {prepare(Toy(), tmp_path / "alone").digest}
    assert len((tmp_path / "log").read_text().split()) == 1
    assert left_overs(tmp_path / "root") == []


def test_a_kill_leaves_nothing_that_the_next_start_cannot_mend(tmp_path):
    (tmp_path / "go").touch()
    killed = start(tmp_path, pause=60)
    wait_for(lambda: list((tmp_path / "root").glob(".toy.*.tmp/part.npy")))
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=10)
    assert left_overs(tmp_path / "root") == [f".toy.{killed.pid}.tmp"]
    neighbor = tmp_path / "root/.toy.other.123.tmp"  # of a dataset of another name
    neighbor.mkdir()
    assert np.array_equal(prepare(Toy(), tmp_path / "root").train_images, some_images(40, 40))
    assert left_overs(tmp_path / "root") == [neighbor.name]


def test_a_process_goes_on_when_the_one_that_prepared_is_killed(tmp_path):
    (tmp_path / "go").touch()
    killed = start(tmp_path, pause=60)
    wait_for(lambda: list((tmp_path / "root").glob(".toy.*.tmp/part.npy")))
    waiting = start(tmp_path, pause=0)
    time.sleep(0.6)
    assert waiting.poll() is None  # it waits for the lock
    killed.send_signal(signal.SIGKILL)
    assert waiting.communicate(timeout=20)[0].strip() == prepare(Toy(), tmp_path / "alone").digest
    killed.communicate()
    assert left_overs(tmp_path / "root") == []


@pytest.mark.skipif(os.name != "posix", reason="limits of file sizes are POSIX's")
def test_a_full_disk_is_said_in_one_line(tmp_path):
    (tmp_path / "go").touch()
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
    output = start(tmp_path, pause=0, before=limit).communicate(timeout=20)[0]
    assert output.startswith("UserError")
    assert "no space is left" in output
    assert output.count("\n") == 1
    assert not (tmp_path / "root").exists()


# --- adoption


def test_a_bare_dataset_is_adopted(tmp_path):
    folder = bare(tmp_path / "bare")
    dataset = open_prepared(folder)
    fractions = some_images(40, 1) / 255
    assert dataset.mean == pytest.approx(fractions.mean(axis=(0, 1, 2)))
    assert dataset.std == pytest.approx(fractions.std(axis=(0, 1, 2)))
    record = json.loads((folder / "dataset.json").read_text())
    assert record["name"] == "bare"
    assert tuple(record["mean"]) == dataset.mean
    images = (folder / "test_images.npy").read_bytes()
    assert record["arrays"]["test_images.npy"]["sha256"] == hashlib.sha256(images).hexdigest()
    assert open_prepared(folder).digest == dataset.digest


def test_a_bare_dataset_is_adopted_in_memory_where_nothing_can_be_written(tmp_path, monkeypatch):
    folder = bare(tmp_path / "bare")
    before = (folder / "dataset.json").read_text()

    def refuse(*arguments, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("convolt.data.prepared.write_record", refuse)
    dataset = open_prepared(folder)
    assert dataset.mean == pytest.approx((some_images(40, 1) / 255).mean(axis=(0, 1, 2)))
    assert (folder / "dataset.json").read_text() == before


def test_validation_arrays_of_its_own(tmp_path):
    folder = bare(tmp_path / "bare", val_images=some_images(10, 9), val_labels=np.arange(10) % 2)
    dataset = open_prepared(folder)
    assert np.array_equal(dataset.val_images, some_images(10, 9))
    assert dataset.val_labels.tolist() == [0, 1] * 5
    assert dataset.digest != open_prepared(bare(tmp_path / "without")).digest
    (folder / "val_labels.npy").unlink()
    assert "val_labels.npy" in message(open_prepared, folder)


# --- changes and damage


def test_a_touched_file_is_hashed_once_and_accepted(tmp_path):
    dataset = prepare(Toy(), tmp_path)
    path = dataset.folder / "train_images.npy"
    os.utime(path, ns=(1, 12345))
    assert open_prepared(dataset.folder).digest == dataset.digest
    record = json.loads((dataset.folder / "dataset.json").read_text())
    assert record["arrays"]["train_images.npy"]["mtime_ns"] == 12345


def test_a_changed_pixel_is_found_out(tmp_path):
    folder = prepare(Toy(), tmp_path).folder
    path = folder / "train_images.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    text = message(prepare, Toy(), tmp_path)
    assert "has changed since it was prepared" in text
    assert f"delete the folder {folder}" in text


def test_a_longer_array_is_found_out(tmp_path):
    folder = prepare(Toy(), tmp_path).folder
    for kind in ("images", "labels"):
        path = folder / f"test_{kind}.npy"
        array, before = np.load(path), path.stat()
        np.save(path, np.concatenate([array, array[:2]]))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # the size alone tells
    assert "2504 bytes, but 2288 were prepared" in message(open_prepared, folder)


def test_an_unknown_array_is_found_out(tmp_path):
    folder = prepare(Toy(), tmp_path).folder
    np.save(folder / "val_images.npy", some_images(4))
    np.save(folder / "val_labels.npy", np.array([0, 1, 0, 1]))
    assert "does not belong to this dataset" in message(open_prepared, folder)


@pytest.mark.parametrize("size", [0, 7, 60, 128, 1000])
@pytest.mark.parametrize("name", ["train_images.npy", "test_labels.npy"])
def test_a_truncated_array_is_found_out(tmp_path, name, size):
    folder = prepare(Toy(), tmp_path).folder
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: min(size, len(content) - 1)])
    text = message(open_prepared, folder)
    assert name in text
    assert "delete the folder" in text


def test_a_missing_array_is_found_out(tmp_path):
    folder = prepare(Toy(), tmp_path).folder
    (folder / "test_images.npy").unlink()
    assert "test_images.npy is missing" in message(open_prepared, folder)


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trapped",)


def test_pickles_are_never_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = bare(tmp_path / "bare")
    np.save(folder / "train_labels.npy", np.array([Trap()] * 40, dtype=object), allow_pickle=True)
    assert "train_labels.npy is no whole .npy file" in message(open_prepared, folder)
    (folder / "train_labels.npy").write_bytes(pickle.dumps(Trap()))
    assert "train_labels.npy is no whole .npy file" in message(open_prepared, folder)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"train_images": some_images(40).astype(np.float32)}, "float32 of shape (40, 6, 6, 3), but must be uint8"),
        ({"train_images": some_images(40)[..., 0]}, "must be uint8 (N, H, W, C)"),
        ({"test_images": some_images(20, side=8)}, "test images are (8, 8, 3), but training images are (6, 6, 3)"),
        ({"test_labels": np.arange(19) % 2}, "must be int64 (20,)"),
        ({"test_labels": (np.arange(20) % 2).astype(np.int32)}, "int32 of shape (20,), but must be int64"),
        ({"test_labels": np.arange(20) % 3}, "labels 0 to 2, but there are 2 classes"),
        ({"train_labels": np.arange(40) % 2 - 1}, "labels -1 to 0"),
    ],
)
def test_arrays_outside_the_contract(tmp_path, arrays, expected):
    assert expected in message(open_prepared, bare(tmp_path / "bare", **arrays))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "3",
        "{}",
        '{"classes": "ab"}',
        '{"classes": ["a"]}',
        '{"classes": ["a", "a"]}',
        '{"classes": ["a", 1]}',
        '{"classes": ["a", "b"], "superclasses": {"x": ["c"]}}',
        '{"classes": ["a", "b"], "arrays": 3, "mean": [0.5], "std": [0.5]}',
        '{"classes": ["a", "b"], "arrays": {}, "mean": [0.5], "std": [0.5]}',
        '{"classes": ["a", "b"], "arrays": {"train_images.npy": {}}, "mean": [0.5], "std": [0.5]}',
    ],
)
def test_damaged_records(tmp_path, content):
    folder = bare(tmp_path / "bare")
    (folder / "dataset.json").write_text(content)
    assert "dataset.json is damaged" in message(open_prepared, folder)


def test_a_record_without_its_means(tmp_path):
    folder = prepare(Toy(), tmp_path).folder
    record = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**record, "mean": [0.5]}))
    assert "one number a channel" in message(open_prepared, folder)


def test_no_dataset_there(tmp_path):
    assert "has no dataset.json" in message(open_prepared, tmp_path / "nothing")


# --- names


def test_slugs_and_fingerprints():
    assert slug("My Photos (2024)/Cats!") == "my_photos_2024_cats"
    assert slug("../..") == "data"
    assert fingerprint("a", [1, 2]) == fingerprint("a", [1, 2]) != fingerprint("a", [2, 1])
    assert len(fingerprint("a")) == 10
