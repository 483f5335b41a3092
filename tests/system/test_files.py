"""Folders that are written completely or not at all, and the words for errors of the operating system."""

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from convolt.system.files import atomic_folder, count_bytes
from convolt.system.os_errors import explain_os_error


def test_a_folder_appears_when_the_block_has_ended(tmp_path: Path) -> None:
    (tmp_path / ".data.1.tmp").mkdir()  # a killed process left it
    (tmp_path / ".data.more.1.tmp").mkdir()  # another folder's
    (tmp_path / "data").mkdir()
    with atomic_folder(tmp_path / "data") as beside:
        (beside / "file").touch()
        assert not list((tmp_path / "data").iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == [".data.more.1.tmp", "data"]
    assert (tmp_path / "data/file").exists()


def test_a_folder_whose_block_raises_leaves_nothing(tmp_path: Path) -> None:
    with suppress(KeyError), atomic_folder(tmp_path / "data") as beside:
        (beside / "file").touch()
        raise KeyError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (errno.ENOSPC, "no space is left on the disk of /data: free some"),
        (errno.EROFS, "/data cannot be written (Read-only file system): make it writable"),
        (errno.EACCES, "/data cannot be accessed (Permission denied): change its permissions"),
        (errno.EIO, "the disk of /data fails (Input/output error): repair it"),
        (errno.ENOTDIR, "a part of the path /data is a file, not a folder: move that file"),
        (errno.ENOLCK, "/data is on a file system without locks: use a local disk"),
        (errno.EMFILE, "/data: Too many open files"),
    ],
)
def test_an_error_of_the_system_says_what_to_do(number: int, line: str) -> None:
    assert explain_os_error(OSError(number, os.strerror(number)), "/data") == line
    named = explain_os_error(OSError(number, os.strerror(number), "/other"), "/data")
    assert named == line.replace("/data", "/other")


def test_the_bytes_of_a_folder_are_those_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below/file").write_bytes(bytes(30))
    (tmp_path / "file").write_bytes(bytes(12))
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert [count_bytes(tmp_path / name) for name in ("", "file", "nothing")] == [42, 12, 0]
