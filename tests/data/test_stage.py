"""Copies of prepared datasets on a node's own disk, and locks on shared ones."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convolt.data.prepare import prepare
from convolt.data.prepared import PreparedDataset, open_prepared
from convolt.data.sources.digits import Digits
from convolt.data.stage import local_disk, stage
from convolt.errors import UserError
from convolt.system.locks import single_node_mount
from convolt.training.run import run

STAGER = """
import sys
from pathlib import Path
from convolt.data.prepared import open_prepared
from convolt.data import stage
real, copies = stage.shutil.copyfile, []
stage.shutil.copyfile = lambda *files: copies.append(1) or real(*files)
sys.stdin.readline()
print(stage.stage(open_prepared(sys.argv[1]), Path(sys.argv[2])).digest, len(copies))
"""


@pytest.fixture
def shared(data_root: Path, tmp_path: Path) -> PreparedDataset:
    prepare(Digits(), data_root)
    shutil.copytree(data_root / "digits", tmp_path / "shared/digits")
    return open_prepared(tmp_path / "shared/digits")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_a_copy_holds_the_same_images_and_is_made_once(
    shared: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = tmp_path / "local"
    copy = stage(shared, local)
    assert copy.folder.parent == local
    assert copy.digest == shared.digest
    assert copy.mean == shared.mean
    np.testing.assert_array_equal(copy.train_images, shared.train_images)
    np.testing.assert_array_equal(copy.test_labels, shared.test_labels)
    monkeypatch.setattr(shutil, "copyfile", lambda *_: pytest.fail("copied twice"))
    assert stage(shared, local).folder == copy.folder
    assert names(local) == {copy.folder.name}


def test_processes_that_start_together_copy_once(shared: PreparedDataset, tmp_path: Path) -> None:
    command = [sys.executable, "-c", STAGER, str(shared.folder), str(tmp_path / "local")]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(4)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[0].split() for process in processes]
    assert {digest for digest, _ in said} == {shared.digest}
    assert sorted(int(copies) for _, copies in said) == [0, 0, 0, 5]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "exchange"])
def test_a_damaged_copy_is_made_anew(shared: PreparedDataset, tmp_path: Path, damage: str) -> None:
    copy = stage(shared, tmp_path / "local").folder
    file = copy / "train_images.npy"
    if damage == "remove":
        file.unlink()
    elif damage == "exchange":
        np.save(file, np.load(file)[::-1])
    else:
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content[:-100] if damage == "truncate" else content)
    again = stage(shared, tmp_path / "local")
    np.testing.assert_array_equal(again.train_images, shared.train_images)
    assert names(tmp_path / "local") == {copy.name}


def test_what_arrives_otherwise_than_it_was_prepared_is_refused(
    shared: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = shutil.copyfile

    def damaging(source: Path, target: Path) -> None:
        whole(source, target)
        if target.name == "test_images.npy":
            with target.open("rb+") as file:
                file.seek(-1, os.SEEK_END)
                file.write(b"\xff")

    monkeypatch.setattr(shutil, "copyfile", damaging)
    with pytest.raises(UserError, match=r"the copy of .* is not whole .*SHA-256"):
        stage(shared, tmp_path / "local")
    assert names(tmp_path / "local") == set()


def test_what_a_killed_process_left_is_cleared_away(shared: PreparedDataset, tmp_path: Path) -> None:
    name = f"digits-{shared.digest[:16]}"
    (tmp_path / f"local/.{name}.123.tmp").mkdir(parents=True)
    stage(shared, tmp_path / "local")
    assert names(tmp_path / "local") == {name}


def test_a_full_disk_is_told_in_a_line(
    shared: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(
        UserError, match=r"digits \(1 MiB\) cannot be copied: no space is left on the disk of .*: free some"
    ):
        stage(shared, tmp_path / "local")
    assert names(tmp_path / "local") == set()


def test_the_nodes_disk_is_the_jobs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    assert local_disk() == tmp_path / f"tmp/convolt-{os.getuid()}"
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "job"))
    assert local_disk() == tmp_path / f"job/convolt-{os.getuid()}"


def test_a_run_on_a_copy_is_the_same_run(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "job"))
    first = run(settings("trainer.max_epochs=1"), tmp_path / "first")
    staged = run(settings("trainer.max_epochs=1", "data.stage=true"), tmp_path / "second")
    assert len(list((tmp_path / "job").glob("convolt-*/digits-*/train_images.npy"))) == 1
    for name in ("metrics", "dataset_hash", "config_hash"):
        assert staged[name] == first[name]


@pytest.mark.parametrize(
    ("kind", "options", "alone"),
    [
        ("nfs4", "rw,vers=4.2,local_lock=none", False),
        ("nfs", "rw,vers=3,nolock", True),
        ("nfs", "rw,vers=3,local_lock=flock", True),
        ("nfs", "rw,vers=3,local_lock=posix", False),
        ("lustre", "rw,flock", False),
        ("lustre", "rw,localflock", True),
        ("ext4", "rw,relatime", False),
    ],
)
def test_locks_that_other_nodes_do_not_see_are_known_by_the_mount(
    tmp_path: Path, kind: str, options: str, alone: bool
) -> None:
    folder = tmp_path / "a b/outputs"
    folder.mkdir(parents=True)
    point = str(tmp_path.resolve() / "a b").replace(" ", "\\040")
    mounts = tmp_path / "mounts"
    mounts.write_text(f"overlay / overlay rw 0 0\nserver:/x {point} {kind} {options} 0 0\n")
    assert single_node_mount(folder, mounts) == (str(tmp_path.resolve() / "a b") if alone else None)
    assert single_node_mount(Path("/elsewhere"), mounts) is None
