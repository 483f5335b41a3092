"""Archives through torchvision's downloads and checksums, or found where they already are.

`datasets.X(download=True)` alone would wait forever for a silent server, keep a truncated file, know one place to look
in, print its bar into a log, and answer without the address, the checksum and what to do by hand.
"""

import contextlib
import gzip
import http.client
import importlib.metadata
import io
import logging
import pickle
import socket
import sys
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from convolt.errors import UserError
from convolt.system.os_errors import FULL_DISK

log = logging.getLogger(__name__)

TIMEOUT = 30.0
"""Seconds without an answer after which a download is given up."""

_UNREADABLE = (
    EOFError, ValueError, LookupError, AssertionError, RuntimeError,
    gzip.BadGzipFile, pickle.UnpicklingError, tarfile.TarError, zlib.error,
)  # fmt: skip
"""What torchvision and the standard library raise where an archive does not hold what it should."""


def fetch(archives: Sequence[tuple[str, str, list[str]]], downloads: Path, name: str, dataset: str) -> list[Path]:
    """Find every archive, or download it.

    Args:
        archives: Of each its file's name, its MD5 and its addresses.
        downloads: The folder of the dataset's downloads, below the root of all data.
        name: What we call the dataset.
        dataset: What torchvision calls it.

    Returns:
        Their paths.

    Raises:
        UserError: When one can neither be found nor downloaded.
    """
    from torchvision.datasets.utils import check_integrity

    root = downloads.parent.parent
    # where we put archives, and where torchvision itself would have put them, had data.root been its root
    folders = (downloads, root / dataset / "raw", root)
    found = {
        file: next((folder / file for folder in folders if check_integrity(folder / file, md5)), None)
        for file, md5, _ in archives
    }
    missing = [archive for archive in archives if found[archive[0]] is None]
    if missing:
        log.info("Downloading %s to %s", ", ".join(file for file, _, _ in missing), downloads)
        downloads.mkdir(parents=True, exist_ok=True)
    for number, (file, md5, urls) in enumerate(missing):
        reason = _download(file, md5, urls, downloads)
        if reason:
            files = ", ".join(name for name, _, _ in missing[number:])
            raise UserError(
                f"{name}: {file} cannot be downloaded ({reason}); check the internet connection and try again,"
                f" or put {files} into {downloads} by hand, or set data.root to where {name} is prepared"
            )
    return [path or downloads / file for file, path in found.items()]


@contextlib.contextmanager
def explain_damaged_archives(paths: Sequence[Path], dataset: str) -> Iterator[None]:
    """Name the archives where one of them, though its checksum is right, does not hold what it should."""
    try:
        yield
    except _UNREADABLE as error:
        files, reason = ", ".join(map(str, paths)), str(error) or type(error).__name__
        raise UserError(f"{files} cannot be read as {dataset} ({reason}): delete and try again") from error


def import_torchvision() -> Any:
    """Import torchvision.

    Raises:
        UserError: Where it is missing or was built for another torch.
    """
    try:
        import torchvision
        import torchvision.datasets
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        found = {package.name: package.version for package in importlib.metadata.distributions()}
        versions = [f"{name} {found[name]}" if name in found else f"no {name}" for name in ("torch", "torchvision")]
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"torchvision cannot be imported beside this torch: there are {' and '.join(versions)} ({first_line});"
            " install two that fit together: pip install --upgrade --force-reinstall torch torchvision"
        ) from error
    return torchvision


@contextlib.contextmanager
def _timeout_and_progress() -> Iterator[None]:
    """Give up on silent servers, and show torchvision's progress bar on a terminal only."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    shown = sys.stderr is not None and sys.stderr.isatty()
    try:
        with contextlib.nullcontext() if shown else contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _download(file: str, md5: str, urls: list[str], downloads: Path) -> str:
    """Download a file from the first address that has it whole; return why not, or an empty string."""
    from torchvision.datasets.utils import download_url

    reason = "no address is known"
    for url in urls:
        try:
            with _timeout_and_progress():
                download_url(url, downloads, file, md5)
        except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in FULL_DISK:
                raise
            if "corrupted" in str(error):
                # the file that was received is wrong: a later run must not take it for one that the user put there
                (downloads / file).unlink(missing_ok=True)
                reason = f"what {url} sent is truncated or changed: its MD5 is not {md5}"
            else:
                reason = f"{url}: {getattr(error, 'reason', None) or error or type(error).__name__}"
            continue
        return ""
    if (downloads / file).exists():
        reason += f"; the {file} that is there is truncated or changed: its MD5 is not {md5}"
    return " ".join(reason.split())
