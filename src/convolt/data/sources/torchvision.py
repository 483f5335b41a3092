"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100 through torchvision's downloads and checksums.

Torchvision knows the addresses and the MD5 of every archive, and downloads them. The archives are then read as they
are, without unpacking them to the disk, and their pickles by a reader that can make nothing but NumPy arrays.
"""

import gzip
import pickle
import tarfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from convolt.data.sources.base import CHUNK, ArrayFile, Contents, write_labels
from convolt.data.sources.cifar100 import SUPERCLASSES
from convolt.data.sources.downloads import fetch, import_torchvision, readable
from convolt.errors import UserError, did_you_mean

NAMES = {"MNIST": "mnist", "FashionMNIST": "fashion_mnist", "CIFAR10": "cifar10", "CIFAR100": "cifar100"}
"""What torchvision calls a dataset, and what we do."""


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
                f"the Torchvision source does not know {self.dataset!r}{did_you_mean(self.dataset, NAMES)}"
                f"; it knows {', '.join(NAMES)}"
            )
        return NAMES[self.dataset]

    def write(self, folder: Path, downloads: Path) -> Contents:
        """Download what is not there yet, and write it as arrays (see `Source`)."""
        source = f"torchvision.datasets.{self.dataset}"
        cls = getattr(import_torchvision().datasets, self.dataset)
        if self.name in ("mnist", "fashion_mnist"):
            paths = fetch(
                [(file, md5, [m + file for m in cls.mirrors]) for file, md5 in cls.resources],
                downloads,
                self.name,
                self.dataset,
            )
            with readable(paths, self.dataset):
                for split, images, labels in (("train", paths[0], paths[1]), ("test", paths[2], paths[3])):
                    _write(folder, split, read_idx(images)[..., None], read_idx(labels))
            classes = tuple("0123456789") if self.name == "mnist" else tuple(cls.classes)
            return Contents(classes, source)
        paths = fetch([(cls.filename, cls.tgz_md5, [cls.url])], downloads, self.name, self.dataset)
        with readable(paths, self.dataset):
            classes = _write_cifar(cls, paths[0], folder)
        return Contents(classes, source, SUPERCLASSES if self.name == "cifar100" else {})


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
