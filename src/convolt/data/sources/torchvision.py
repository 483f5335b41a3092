"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100, downloaded and read by torchvision.

Torchvision knows the addresses and the MD5 of every archive and reads its files; `downloads` says what is ours.
"""

import tempfile
from pathlib import Path

import numpy as np

from convolt.data.sources.base import Contents, open_split
from convolt.data.sources.cifar100 import SUPERCLASSES
from convolt.data.sources.downloads import explain_damaged_archives, fetch, import_torchvision
from convolt.errors import UserError, did_you_mean

NAMES = {"MNIST": "mnist", "FashionMNIST": "fashion_mnist", "CIFAR10": "cifar10", "CIFAR100": "cifar100"}
"""Torchvision's names of the datasets, and ours."""


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
        cls = getattr(import_torchvision().datasets, self.dataset)
        idx = "mnist" in self.name
        if idx:
            archives = [(file, md5, [mirror + file for mirror in cls.mirrors]) for file, md5 in cls.resources]
        else:
            archives = [(cls.filename, cls.tgz_md5, [cls.url])]
        paths = fetch(archives, downloads, self.name, self.dataset)
        from torchvision.datasets.utils import extract_archive

        # Torchvision reads extracted files only: they are deleted at the end, the archives stay.
        with explain_damaged_archives(paths, self.dataset), tempfile.TemporaryDirectory(dir=folder) as extracted:
            raw = Path(extracted, self.dataset, "raw") if idx else Path(extracted)
            raw.mkdir(parents=True, exist_ok=True)
            for path in paths:
                extract_archive(path, raw)
            for split in ("train", "test"):
                dataset = cls(extracted, train=split == "train")
                images = np.asarray(dataset.data).reshape(*dataset.data.shape[:3], -1)  # (N, H, W) or (N, H, W, C)
                with open_split(folder, split, images.shape[1:]) as (image_file, label_file):
                    image_file.append(images)
                    label_file.append(np.asarray(dataset.targets, np.int64))
        classes = tuple("0123456789") if self.name == "mnist" else tuple(dataset.classes)
        superclasses = SUPERCLASSES if self.name == "cifar100" else {}
        return Contents(classes, f"torchvision.datasets.{self.dataset}", superclasses)
