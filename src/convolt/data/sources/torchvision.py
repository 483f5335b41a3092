"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100 through torchvision's downloads and checksums.

Torchvision knows the addresses and the MD5 of every archive, and downloads them. The archives are then read as they
are, without unpacking them to the disk, and their pickles by a reader that can make nothing but NumPy arrays.
"""

import contextlib
import errno
import gzip
import http.client
import importlib.metadata
import io
import logging
import pickle
import socket
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from convolt.data.sources.base import CHUNK, ArrayFile, Contents, write_labels
from convolt.data.sources.cifar100 import SUPERCLASSES
from convolt.errors import UserError, near

log = logging.getLogger(__name__)

TIMEOUT = 30.0
"""Seconds without an answer after which a download is given up."""

NAMES = {"MNIST": "mnist", "FashionMNIST": "fashion_mnist", "CIFAR10": "cifar10", "CIFAR100": "cifar100"}
"""What torchvision calls a dataset, and what we do."""

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Torchvision:
    """A dataset that torchvision can download.

    Args:
        dataset: "MNIST", "FashionMNIST" (28 x 28, 1 channel), "CIFAR10" or "CIFAR100" (32 x 32, 3 channels).
    """

    def __init__(self, dataset: str) -> None:
        self.dataset = dataset

    @property
    def name(self) -> str:
        """The folder's name (see `Source`)."""
        if self.dataset not in NAMES:
            raise UserError(
                f"the Torchvision source does not know {self.dataset!r}{near(self.dataset, NAMES)}"
                f"; it knows {', '.join(NAMES)}"
            )
        return NAMES[self.dataset]

    def write(self, folder: Path, downloads: Path) -> Contents:
        """Download what is not there yet, and write it as arrays (see `Source`)."""
        source = f"torchvision.datasets.{self.dataset}"
        cls = getattr(import_torchvision().datasets, self.dataset)
        if self.name in ("mnist", "fashion_mnist"):
            paths = self._fetch(
                [(file, md5, [m + file for m in cls.mirrors]) for file, md5 in cls.resources], downloads
            )
            with self._readable(paths):
                for split, images, labels in (("train", paths[0], paths[1]), ("test", paths[2], paths[3])):
                    _write(folder, split, read_idx(images)[..., None], read_idx(labels))
            classes = tuple("0123456789") if self.name == "mnist" else tuple(cls.classes)
            return Contents(classes, source)
        paths = self._fetch([(cls.filename, cls.tgz_md5, [cls.url])], downloads)
        with self._readable(paths):
            classes = _write_cifar(cls, paths[0], folder)
        return Contents(classes, source, SUPERCLASSES if self.name == "cifar100" else {})

    def _fetch(self, archives: list[tuple[str, str, list[str]]], downloads: Path) -> list[Path]:
        """Find every archive, or download it; each is its file's name, its MD5 and its addresses."""
        from torchvision.datasets.utils import check_integrity

        paths, missing = [], []
        root = downloads.parent.parent
        for file, md5, urls in archives:
            # where we put it, and where torchvision itself would have, had data.root been its root
            places = [downloads / file, root / self.dataset / "raw" / file, root / file]
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
                    f"{self.name}: {file} cannot be downloaded ({reason}); check the internet connection and try again,"
                    f" or put {files} into {downloads} by hand, or set data.root to where {self.name} is prepared"
                )
        return paths

    @contextlib.contextmanager
    def _readable(self, paths: list[Path]) -> Iterator[None]:
        """Name the archives where one of them, though its checksum is right, does not hold what it should."""
        try:
            yield
        except (EOFError, ValueError, KeyError, tarfile.TarError, gzip.BadGzipFile, pickle.UnpicklingError) as error:
            files = ", ".join(str(path) for path in paths)
            raise UserError(f"{files} cannot be read as {self.dataset} ({error}): delete and try again") from error


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
            if isinstance(error, OSError) and error.errno in _FULL_DISK:
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


def _write(folder: Path, split: str, images: NDArray[np.uint8], labels: NDArray[np.generic]) -> None:
    """Write one split."""
    with ArrayFile(folder / f"{split}_images.npy", images.shape[1:]) as file:
        for start in range(0, len(images), CHUNK):
            file.append(images[start : start + CHUNK])
    write_labels(folder / f"{split}_labels.npy", labels.astype(np.int64))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of bytes, MNIST's format (http://yann.lecun.com/exdb/mnist).

    Raises:
        ValueError: Where the file is none, or shorter than its header says.
    """
    with gzip.open(path, "rb") as file:
        content = file.read()
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise ValueError(f"{path.name} is no IDX file of bytes")
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, 4).astype(np.int64)
    return np.frombuffer(content, np.uint8, int(shape.prod()), 4 + 4 * dimensions).reshape(shape)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads pickles that hold plain containers and NumPy arrays, and refuses to make anything else."""

    _ALLOWED = frozenset({"_reconstruct", "ndarray", "dtype"})

    def find_class(self, module: str, name: str) -> Any:
        package = module.partition(".")[0]
        if (package == "numpy" and name in self._ALLOWED) or (module, name) == ("_codecs", "encode"):
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"it holds a {module}.{name}, which is not loaded")


def unpickle(file: BinaryIO) -> Any:
    """Load a pickle of containers, texts and NumPy arrays, as CIFAR's archives hold (written by Python 2).

    Raises:
        pickle.UnpicklingError: Where it would make anything else.
    """
    return _ArrayUnpickler(file, encoding="latin1").load()


def _write_cifar(cls: Any, path: Path, folder: Path) -> tuple[str, ...]:
    """Write the arrays of one of CIFAR's archives, batch after batch; return the names of the classes."""
    with tarfile.open(path, "r:gz") as archive:

        def batch(name: str) -> Any:
            member = archive.extractfile(f"{cls.base_folder}/{name}")
            if member is None:
                raise ValueError(f"{name} is no file")
            with member:
                return unpickle(member)  # type: ignore[arg-type]

        for split, files in (("train", cls.train_list), ("test", cls.test_list)):
            labels: list[int] = []
            with ArrayFile(folder / f"{split}_images.npy", (32, 32, 3)) as images:
                for name, _ in files:
                    entry = batch(name)
                    labels += entry["labels"] if "labels" in entry else entry["fine_labels"]
                    rows = entry["data"].reshape(-1, 3, 32, 32)
                    for start in range(0, len(rows), CHUNK):
                        images.append(rows[start : start + CHUNK].transpose(0, 2, 3, 1))
            write_labels(folder / f"{split}_labels.npy", np.array(labels, dtype=np.int64))
        return tuple(batch(cls.meta["filename"])[cls.meta["key"]])
