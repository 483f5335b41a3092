"""Datasets as memory-mapped arrays, made once: under a lock, and whole or not at all."""

import errno
import logging
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from convolt.data.prepared import RECORD, PreparedDataset, measure, open_prepared, write_record
from convolt.data.sources.base import Source, sync
from convolt.errors import UserError
from convolt.system.files import expand_home, remove_empty
from convolt.system.locks import has_no_locks, lock

__all__ = ["PreparedDataset", "Source", "open_prepared", "prepare"]

log = logging.getLogger(__name__)


def prepare(source: Source, root: Path | str) -> PreparedDataset:
    """Open a source's dataset below `root`; make it first where it is not there.

    It is made in a temporary folder under a lock, and renamed when it is whole: processes that start together wait
    for one of them, and what a killed process left is cleared away by the next.

    Args:
        source: Where the images come from.
        root: The folder of all prepared datasets (`data.root`).

    Returns:
        The dataset, memory-mapped.

    Raises:
        UserError: Where the images cannot be had, the folder cannot be written, or the arrays are damaged.
    """
    root = Path(expand_home(str(root)))
    folder = root / source.name
    if _exists(folder / RECORD):
        return open_prepared(folder)
    from filelock import Timeout

    made: list[Path] = []
    try:
        made = [path for path in (root, *root.parents) if not path.exists()]
        root.mkdir(parents=True, exist_ok=True)
        held = lock(root / f".{source.name}.lock")
        try:
            held.acquire(timeout=0)
        except Timeout:
            log.info("Another process is preparing %s; waiting for it", source.name)
            held.acquire()
        try:
            if not (folder / RECORD).is_file():
                _make(source, root, folder)
        except BaseException:
            _clear_away(source, root, made)
            raise
        finally:
            held.release()
    except (NotImplementedError, OSError) as error:
        if has_no_locks(error):
            raise UserError(f"{root} is on a file system without locks: set data.root to a local disk") from error
        if isinstance(error, OSError):
            raise _explain(error, source.name, root) from error
        raise
    return open_prepared(folder)


def _clear_away(source: Source, root: Path, made: list[Path]) -> None:
    """Leave nothing of a dataset that could not be made: neither empty folders nor, before it is let go, the lock.

    A process that waits for the lock sees that its file is gone, and makes a new one.
    """
    remove_empty(root / "downloads" / source.name)
    with suppress(OSError):
        (root / f".{source.name}.lock").unlink()
        for path in made:
            path.rmdir()


def _exists(path: Path) -> bool:
    """Say whether a file is there, or raise a `UserError` where the folder may not be looked into."""
    try:
        return path.is_file()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def _explain(error: OSError, name: str, root: Path) -> UserError:
    """Turn an error of the operating system into a line for the user."""
    where = f"the dataset {name!r} cannot be prepared in {root}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return UserError(f"{where}: no space is left; free some, or set data.root to another disk")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError(f"{where}: it cannot be written ({error.strerror}); set data.root to a folder that can")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return UserError(f"{where}: a part of that path is a file, not a folder; set data.root to a folder")
    culprit = f": {error.filename}" if error.filename else ""
    return UserError(f"{where}: {error.strerror or error}{culprit}")


def _make(source: Source, root: Path, folder: Path) -> None:
    """Write a dataset beside its folder, then rename it; the lock is held."""
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(
            f"{folder} is no prepared dataset: it has no {RECORD}; move it away, or set data.root elsewhere"
        )
    stale = re.compile(rf"\.{re.escape(source.name)}\.\d+\.tmp")
    for left_over in [path for path in root.iterdir() if stale.fullmatch(path.name)]:
        shutil.rmtree(left_over, ignore_errors=True)
    temporary = root / f".{source.name}.{os.getpid()}.tmp"
    log.info("Preparing %s, once, in %s", source.name, folder)
    try:
        temporary.mkdir()
        contents = source.write(temporary, root / "downloads" / source.name)
        record: dict[str, Any] = {
            "name": source.name,
            "classes": list(contents.classes),
            "superclasses": {name: list(classes) for name, classes in contents.superclasses.items()},
            "source": contents.source,
        }
        record |= {key: [*lines] for key in ("skipped", "notes") if (lines := getattr(contents, key))}
        write_record(temporary, measure(temporary, record))
        open_prepared(temporary)
        if folder.is_dir():
            folder.rmdir()  # an empty one
        temporary.rename(folder)
        sync(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
