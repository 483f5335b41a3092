"""Datasets as memory-mapped arrays, made once: under a lock, and completely or not at all."""

import logging
from contextlib import suppress
from pathlib import Path

from filelock import Timeout

from convolt.data.prepared import RECORD, PreparedDataset, open_prepared, write_record
from convolt.data.sources.base import Contents, Source
from convolt.errors import UserError
from convolt.system.files import atomic_folder, expand_home, remove_empty
from convolt.system.locks import make_lock
from convolt.system.os_errors import explain_os_error

log = logging.getLogger(__name__)


def prepare(source: Source, root: Path | str, *, with_test: bool = True) -> PreparedDataset:
    """Open a source's dataset below `root`; make it first where it is not there.

    It is made in a temporary folder under a lock, and renamed when it is complete: processes that start together wait
    for one of them, and what a killed process left is cleared away by the next.

    Args:
        source: Where the images come from.
        root: The folder of all prepared datasets (`data.root`).
        with_test: Open the test images too.

    Returns:
        The dataset, memory-mapped.

    Raises:
        UserError: Where the images cannot be had, the folder cannot be written, or the arrays are damaged.
    """
    root = Path(expand_home(str(root)))
    folder = root / source.name
    try:
        if (folder / RECORD).is_file():
            return open_prepared(folder, with_test=with_test)
        made = [path for path in (root, *root.parents) if not path.exists()]
        root.mkdir(parents=True, exist_ok=True)
        file_lock = make_lock(root / f".{source.name}.lock")
        try:
            acquired = file_lock.acquire(timeout=0)
        except Timeout:
            log.info("Another process is preparing %s; waiting for it", source.name)
            acquired = file_lock.acquire()
        with acquired:
            try:
                if not (folder / RECORD).is_file():
                    _make(source, root, folder)
            except BaseException:
                _remove_traces(source, root, made)
                raise
    except (NotImplementedError, OSError) as error:
        raise UserError(
            f"the dataset {source.name!r} cannot be prepared: {explain_os_error(error, root)}; "
            "data.root=FOLDER puts it elsewhere"
        ) from error
    return open_prepared(folder, with_test=with_test)


def _remove_traces(source: Source, root: Path, made: list[Path]) -> None:
    """Leave nothing of a dataset that could not be made: neither empty folders nor, before it is released, the lock.

    A process that waits for the lock sees that its file is gone, and makes a new one.
    """
    remove_empty(root / "downloads" / source.name)
    with suppress(OSError):
        (root / f".{source.name}.lock").unlink()
        for path in made:
            path.rmdir()


def _make(source: Source, root: Path, folder: Path) -> None:
    """Write a dataset beside its folder, then rename it; the lock is held."""
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(
            f"{folder} is no prepared dataset: it has no {RECORD}; move it away, or set data.root elsewhere"
        )
    log.info("Preparing %s, once, in %s", source.name, folder)
    with atomic_folder(folder) as temporary:
        contents = source.write(temporary, root / "downloads" / source.name)
        if not isinstance(contents, Contents):
            raise UserError(
                f"data.source: {type(source).__name__}.write returned a {type(contents).__name__}; it returns "
                "convolt.data.sources.Contents(CLASSES, WHERE_THEY_CAME_FROM)"
            )
        record: dict[str, object] = {
            "name": source.name,
            "classes": list(contents.classes),
            "superclasses": {name: list(classes) for name, classes in contents.superclasses.items()},
            "source": contents.source,
        }
        record |= {key: [*lines] for key in ("skipped", "notes") if (lines := getattr(contents, key))}
        write_record(temporary, record)
        open_prepared(temporary)  # which checks the arrays and completes the record
