"""A prepared dataset on a disk of this node: copied once from shared storage, and used by all runs here."""

import logging
import os
import shutil
import tempfile
from pathlib import Path

from convolt.data.prepared import RECORD, TEST, PreparedDataset, open_prepared
from convolt.errors import UserError
from convolt.system.files import atomic_folder, atomic_write
from convolt.system.locks import make_lock
from convolt.system.os_errors import explain_os_error

log = logging.getLogger(__name__)


def local_disk() -> Path:
    """Return the folder of this node that datasets are copied to: below $SLURM_TMPDIR, $TMPDIR, or the system's own."""
    above = os.environ.get("SLURM_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()
    user = os.getuid() if hasattr(os, "getuid") else 0
    return Path(above) / f"convolt-{user}"


def stage(shared: PreparedDataset, local: Path | None = None) -> PreparedDataset:
    """Open a copy of a prepared dataset on this node's disk; make it first where it is not there.

    Processes that start together wait for one of them. A copy is written aside, read again, compared with the digests
    of `dataset.json`, and renamed when it is complete. The digests are part of its name; later its sizes and times are
    compared. A damaged one is made again. A run that never tests leaves the test images where they are; the first one
    that tests adds them.

    Args:
        shared: The dataset where it was prepared.
        local: The folder of all copies; None: `local_disk()`.

    Returns:
        The copy, memory-mapped.

    Raises:
        UserError: When there is no space, or what arrives is not what was prepared.
    """
    above = local_disk() if local is None else local
    folder = above / f"{shared.folder.name}-{shared.digest[:16]}"
    try:
        above.mkdir(mode=0o700, parents=True, exist_ok=True)
        if hasattr(os, "getuid") and above.stat().st_uid != os.getuid():  # who could exchange the images
            raise UserError(f"data.stage=true: {above} belongs to another user; set TMPDIR to a folder of yours")
        with make_lock(above / f".{folder.name}.lock"):
            return _open_copy(folder, shared) or _copy(shared, folder)
    except (OSError, NotImplementedError) as error:
        opened = (shared.train_images, shared.test_images)
        size = sum(images.nbytes for images in opened if images is not None) / 2**20
        raise UserError(
            f"data.stage=true: {shared.name} ({size:,.0f} MiB) cannot be copied: {explain_os_error(error, above)}; "
            "set TMPDIR to another disk, or data.stage=false"
        ) from error


def _open_copy(folder: Path, shared: PreparedDataset) -> PreparedDataset | None:
    """Open a copy that is complete; remove one that is not."""
    if not folder.exists():
        return None
    with_test = shared.test_images is not None
    try:
        for name in TEST if with_test else ():
            if not (folder / name).exists():
                with atomic_write(folder / name) as beside:
                    shutil.copyfile(shared.folder / name, beside)
        copy = open_prepared(folder, with_test=with_test)
        if copy.digest == shared.digest:
            return copy
        log.warning("%s holds other images than its name says: copied again", folder)
    except UserError as error:
        log.warning("Copied again: %s", error)
    shutil.rmtree(folder)
    return None


def _copy(shared: PreparedDataset, folder: Path) -> PreparedDataset:
    """Copy the arrays and compare their digests; the lock is held."""
    with_test = shared.test_images is not None
    paths = [path for path in sorted(shared.folder.glob("*.npy")) if with_test or path.name not in TEST]
    with atomic_folder(folder) as temporary:
        for path in [*paths, shared.folder / RECORD]:
            target = temporary / path.name
            shutil.copyfile(path, target)  # with a time of its own, so that its digest is computed when it is opened
            with target.open("rb+") as file:
                os.fsync(file.fileno())
        try:
            same = open_prepared(temporary, with_test=with_test).digest == shared.digest
        except UserError as error:
            raise UserError(f"data.stage=true: the copy of {shared.folder} is not whole ({error})") from error
        if not same:
            raise UserError(f"data.stage=true: {shared.folder} changed while it was copied: start again")
    return open_prepared(folder, with_test=with_test)
