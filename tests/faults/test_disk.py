"""Disks that are full, read-only, gone or without locks, data that change, and a clock that is set back."""

import errno
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.callbacks import Callback

from convolt.data.prepared import write_record
from convolt.errors import RunError, UserError
from convolt.runs.directory import RunDirectory
from convolt.system.signals import Interrupted
from convolt.training.run import run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a file system of a given size, where that is allowed: small_disk("1m")."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("no file system may be mounted here")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def with_callback(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callback], None]:
    """Let a callback take part in the runs of this test."""
    from convolt.training.trainer import _callbacks

    def add(callback: Callback) -> None:
        monkeypatch.setattr("convolt.training.trainer._callbacks", lambda *a, **k: [callback, *_callbacks(*a, **k)])

    return add


class AtEpoch(Callback):
    """Does something once when an epoch begins."""

    def __init__(self, epoch: int, do: Callable[[], Any]) -> None:
        self.epoch, self.do = epoch, do

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == self.epoch and self.do:
            self.do()
            self.do = lambda: None


def state(folder: Path) -> str:
    return str(json.loads((folder / "status.json").read_text())["state"])


def one_line(error: Any) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("free", [700, 1300, 1900, 2300], ids=lambda free: f"{free}K")
def test_a_run_whose_disk_fills_up_says_so_and_goes_on_when_there_is_space(
    settings: Any, tmp_path: Path, small_disk: Any, free: int, capfd: pytest.CaptureFixture[str]
) -> None:
    cfg = settings("trainer.max_epochs=3")
    whole = run(cfg, tmp_path / "whole")
    capfd.readouterr()
    disk = small_disk(f"{free}k")
    with pytest.raises(RunError, match=r"no space is left on the disk of .*: free some, and the same command") as error:
        run(cfg, disk / "run")
    one_line(error)
    assert "Traceback" not in capfd.readouterr().err
    assert not (disk / "run/result.json").exists()
    subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
    assert run(cfg, disk / "run")["metrics"] == whole["metrics"]
    assert state(disk / "run") == "finished"
    assert not list(disk.rglob("*.tmp"))


@pytest.mark.parametrize("nth", [1, 4, 7, 10, 13])
def test_a_write_that_finds_no_space_is_told_and_the_run_goes_on(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """The same without a file system of its own: the n-th file that is synced does not fit."""
    cfg = settings()
    whole = run(cfg, tmp_path / "whole")
    calls = 0
    sync = os.fsync

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises((RunError, UserError), match="no space is left"):
            run(cfg, tmp_path / "run")
    assert run(cfg, tmp_path / "run")["metrics"] == whole["metrics"]


def test_a_folder_that_is_taken_away_is_not_made_anew(settings: Any, tmp_path: Path, with_callback: Any) -> None:
    cfg = settings("trainer.max_epochs=3")
    whole = run(cfg, tmp_path / "whole")
    with_callback(AtEpoch(1, lambda: (tmp_path / "run").rename(tmp_path / "elsewhere")))
    with pytest.raises(RunError, match="run was removed: put it back") as error:
        run(cfg, tmp_path / "run")
    one_line(error)
    assert not (tmp_path / "run").exists()
    assert run(cfg, tmp_path / "elsewhere")["metrics"] == whole["metrics"]


def test_a_disk_that_becomes_read_only_is_told(
    settings: Any, tmp_path: Path, with_callback: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = settings()
    whole = run(cfg, tmp_path / "whole")

    def refuse(handle: int) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        with_callback(AtEpoch(1, lambda: patch.setattr(os, "fsync", refuse)))
        with pytest.raises(RunError, match=r"cannot be written \(Read-only file system\): make it writable") as error:
            run(cfg, tmp_path / "run")
    one_line(error)
    assert state(tmp_path / "run") == "running"  # with a free lock: cut off
    assert run(cfg, tmp_path / "run")["metrics"] == whole["metrics"]


def test_a_read_only_directory_is_refused_before_anything_starts(settings: Any, small_disk: Any) -> None:
    disk = small_disk("1m")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(UserError, match=r"\(Read-only file system\): choose another hydra\.run\.dir"):
        run(settings(), disk / "run")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_named(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    import fcntl

    def refuse(handle: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match=r"without locks: choose a hydra\.run\.dir on a local disk"):
        run(settings(), tmp_path / "run")


def test_a_dataset_that_changed_between_cut_off_and_resume_is_refused(
    settings: Any, tmp_path: Path, data_root: Path, with_callback: Any
) -> None:
    run(settings(), tmp_path / "first")  # prepares
    root = tmp_path / "data"
    shutil.copytree(data_root / "digits", root / "digits")
    cfg = settings(f"data.root={root}")
    with_callback(AtEpoch(1, stop))
    with pytest.raises(Interrupted):
        run(cfg, tmp_path / "run")
    before = (tmp_path / "run/status.json").read_bytes()
    change(root / "digits")
    with pytest.raises(UserError, match=r"digits has changed since this run began .*bring the images back") as error:
        run(cfg, tmp_path / "run")
    one_line(error)
    assert (tmp_path / "run/status.json").read_bytes() == before
    assert len(list((tmp_path / "run/checkpoints").glob("epoch-*.ckpt"))) == 1


def test_a_dataset_that_changes_under_a_run_is_found_out(
    settings: Any, tmp_path: Path, data_root: Path, with_callback: Any
) -> None:
    run(settings(), tmp_path / "first")
    root = tmp_path / "data"
    shutil.copytree(data_root / "digits", root / "digits")
    with_callback(AtEpoch(1, lambda: change(root / "digits")))
    with pytest.raises(UserError, match="was replaced while it was in use"):
        run(settings(f"data.root={root}"), tmp_path / "run")
    assert not (tmp_path / "run/result.json").exists()
    assert state(tmp_path / "run") == "failed"


def stop() -> None:
    raise Interrupted(signal.SIGTERM)


def change(folder: Path) -> None:
    """Replace a dataset by one that is whole, and another."""
    image = bytearray((folder / "train_images.npy").read_bytes())
    image[-1] ^= 255
    (folder / "beside").write_bytes(image)
    (folder / "beside").replace(folder / "train_images.npy")
    record = json.loads((folder / "dataset.json").read_text())
    write_record(folder, {key: record[key] for key in ("name", "classes")})  # adopted anew


def test_a_clock_that_is_set_back_shortens_nothing(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_callback: Any
) -> None:
    cfg = settings()
    whole = run(cfg, tmp_path / "whole")
    real = time.time
    with_callback(AtEpoch(1, lambda: monkeypatch.setattr(time, "time", lambda: real() - 86_400)))
    late = run(cfg, tmp_path / "run")
    assert late["metrics"] == whole["metrics"]
    assert 0 < late["seconds"] < 60
    assert run(cfg, tmp_path / "run")["finished"] == late["finished"]


def test_two_processes_never_hold_one_directory(settings: Any, tmp_path: Path) -> None:
    """Also where one of them clears the directory away as the other one comes."""
    cfg = settings()
    with RunDirectory(tmp_path / "run", cfg), pytest.raises(UserError, match="another process is at work"):
        run(cfg, tmp_path / "run")
    with pytest.raises(UserError, match="nothing"), RunDirectory(tmp_path / "run", cfg):
        raise UserError("nothing there")
    assert not (tmp_path / "run").exists()
