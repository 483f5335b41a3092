"""Archives through torchvision's downloads and checksums; found where they lie already."""

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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from convolt.errors import UserError
from convolt.system.os_errors import FULL_DISK

log = logging.getLogger(__name__)

TIMEOUT = 30.0
"""Seconds without an answer after which a download is given up."""


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

    paths, missing = [], []
    root = downloads.parent.parent
    for file, md5, urls in archives:
        # where we put it, and where torchvision itself would have, had data.root been its root
        places = [downloads / file, root / dataset / "raw" / file, root / file]
        path = next((place for place in places if check_integrity(place, md5)), None)
        paths.append(path or downloads / file)
        if path is None:
            missing.append((file, md5, urls))
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
    return paths


@contextlib.contextmanager
def readable(paths: Sequence[Path], dataset: str) -> Iterator[None]:
    """Name the archives where one of them, though its checksum is right, does not hold what it should."""
    try:
        yield
    except (EOFError, ValueError, KeyError, tarfile.TarError, gzip.BadGzipFile, pickle.UnpicklingError) as error:
        files = ", ".join(str(path) for path in paths)
        raise UserError(f"{files} cannot be read as {dataset} ({error}): delete and try again") from error


def import_torchvision() -> Any:
    """Import torchvision.

    Raises:
        UserError: Where it is missing or was built for another torch.
    """
    try:
        import torchvision
        import torchvision.datasets
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        versions = []
        for package in ("torch", "torchvision"):
            try:
                versions.append(f"{package} {importlib.metadata.version(package)}")
            except importlib.metadata.PackageNotFoundError:
                versions.append(f"no {package}")
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"torchvision cannot be imported beside this torch: there are {' and '.join(versions)} ({first_line});"
            " install two that fit together: pip install --upgrade --force-reinstall torch torchvision"
        ) from error
    return torchvision


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Give up on silent servers, and show torchvision's progress bar on a terminal only."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        if sys.stderr is not None and sys.stderr.isatty():
            yield
        else:
            with contextlib.redirect_stderr(io.StringIO()):
                yield
    finally:
        socket.setdefaulttimeout(before)


def _download(file: str, md5: str, urls: list[str], downloads: Path) -> str:
    """Download a file from the first address that has it whole; return why not, or an empty string."""
    from torchvision.datasets.utils import download_url

    reason = "no address is known"
    for url in urls:
        try:
            with _patience():
                download_url(url, downloads, file, md5)
        except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in FULL_DISK:
                raise
            if "corrupted" in str(error):
                # a wrong file was received: it must not be taken for one that the user brought
                (downloads / file).unlink(missing_ok=True)
                reason = f"what {url} sent is truncated or changed: its MD5 is not {md5}"
            else:
                reason = f"{url}: {getattr(error, 'reason', None) or error or type(error).__name__}"
            continue
        return ""
    if (downloads / file).exists():
        reason += f"; the {file} that is there is truncated or changed: its MD5 is not {md5}"
    return " ".join(reason.split())
