"""Files and folders that are written completely or not at all, and JSON with a digest that reveals damage."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

DIGEST = "digest"
"""The key under which a signed JSON object holds the SHA-256 of all else in it."""


def expand_home(text: str) -> str:
    """Expand `~` at the beginning of a path."""
    return os.path.expanduser(text) if text.startswith("~") else text  # noqa: PTH111 (Path raises over unknown users)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; what was written is synced to disk and renamed when the block ends.

    When the block raises, nothing is left and `path` is unchanged.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        with suppress(OSError):  # a folder that was removed, a disk that fails: the first error says more
            beside.unlink(missing_ok=True)


def clear_unfinished(folder: Path) -> None:
    """Remove what killed processes left of `atomic_write` in a folder; nobody else may write there now."""
    for path in folder.glob(".*.tmp"):
        if re.fullmatch(r"\..+\.\d+\.tmp", path.name):
            path.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a folder beside `path` to fill; it is renamed to `path` when the block ends.

    When the block raises, nothing is left. The caller holds a lock: what killed processes left is removed first.

    Args:
        path: The folder to be; it may be there already while it is empty.
    """
    for beside in path.parent.iterdir():
        if re.fullmatch(rf"\.{re.escape(path.name)}\.\d+\.tmp", beside.name):
            shutil.rmtree(beside, ignore_errors=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.mkdir()
        yield beside
        if path.is_dir():
            path.rmdir()
        beside.rename(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make a folder's entries survive a power cut, where the system can do that."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; bytes of file names that are not UTF-8 become escapes."""
    with atomic_write(path) as beside:
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_write(path) as beside:
        beside.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically; infinite numbers and NaN become null."""
    write_text(path, to_json(value))


def to_json(value: Any) -> str:
    """Return a value as `write_json` writes it."""
    return json.dumps(_finite(value), indent=1, ensure_ascii=False) + "\n"


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ValueError: The file is missing or damaged: no JSON, no object, or not the content that was signed.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} cannot be read: it holds no JSON object")
    if is_damaged(value):
        raise ValueError(f"{path.name} is damaged: its content is not what was signed")
    return value


def read_json(path: Path) -> Any:
    """Read a JSON object; None where the file is missing or damaged, see `read_object`."""
    with suppress(ValueError):
        return read_object(path)
    return None


def add_digest(value: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON object as it will be read again, with the digest of all else in it."""
    content: dict[str, Any] = _finite({key: item for key, item in value.items() if key != DIGEST})
    return content | {DIGEST: _digest(content)}


def is_damaged(value: dict[str, Any]) -> bool:
    """Return whether a JSON object has a digest, and another content than was signed."""
    digest = _digest({key: item for key, item in value.items() if key != DIGEST})
    return bool(value.get(DIGEST, digest) != digest)


def count_bytes(path: Path) -> int:
    """Return the size of a file, or of all files below a folder; 0 where there is neither."""
    total = 0
    for each in [path, *path.rglob("*")]:
        with suppress(OSError):  # one that is just being renamed
            total += each.stat().st_size if each.is_file() and not each.is_symlink() else 0
    return total


def format_bytes(size: int | None) -> str:
    """Write a number of bytes as people read it."""
    if size is None:
        return "an unknown amount"
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 2**power:
            return f"{size / 2**power:.1f}".removesuffix(".0") + f" {unit}"
    return f"{size} bytes"


def remove_empty(folder: Path) -> None:
    """Remove a folder and those above it as far as they are empty, but not the working directory."""
    folder = folder.absolute()
    for path in (folder, *folder.parents):
        if path == Path.cwd():
            return
        try:
            path.rmdir()
        except OSError:
            return


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value
