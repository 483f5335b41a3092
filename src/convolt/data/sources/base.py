"""What a source is, and the array files that sources write row by row."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

CHUNK = 1024
"""Images handled at once wherever arrays are streamed."""

IGNORED = 255
"""The label of a pixel that counts nowhere: not in the loss, not in any metric."""


@dataclass(frozen=True)
class Contents:
    """Facts about the arrays that a source wrote.

    Attributes:
        classes: The class names; a label is an index into them.
        source: Where the images came from, in words.
        superclasses: Names of groups of classes with their classes; empty where there are none.
        skipped: The files that could not be read, with the reason, where the user chose to skip them.
        notes: What was done to the images and belongs to every result, a line each.
    """

    classes: tuple[str, ...]
    source: str
    superclasses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """A dataset that can be written as arrays.

    Constructors check nothing and read nothing, so that Hydra can build a source without wrapping a user's mistake
    in an exception of its own; `name` and `write` raise `UserError`.
    """

    @property
    def name(self) -> str:
        """A slug, the prepared folder's name: whatever changes the arrays is part of it."""

    def write(self, folder: Path, downloads: Path) -> Contents:
        """Write `{train,test}_images.npy`, `{train,test}_labels.npy` and, where there are any, `val_*.npy`.

        Args:
            folder: An empty folder for the arrays: images (N, H, W, C; uint8), and labels (N; int64) or masks
                (N, H, W; uint8; `IGNORED` where a pixel has no label).
            downloads: Where downloaded files are kept; it need not exist.

        Returns:
            The names of the classes, and where the images came from.

        Raises:
            UserError: Where the images cannot be had, or are not what they must be.
        """


def slug(text: str) -> str:
    """Write a text with lower-case letters, digits and single underscores only."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:60] or "data"


def fingerprint(*facts: object) -> str:
    """Shorten facts (anything that JSON can hold) to 10 hexadecimal digits."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]


class ArrayFile:
    """A .npy file that grows by rows, so that no array needs to be in memory as a whole.

    Plain writes, not a memory map: a full disk is then an `OSError` instead of the end of the process. The bytes are
    those that `numpy.save` writes for the same array.

    Args:
        path: The file to write.
        row_shape: The shape of one row: (H, W, C) for images, () for labels.
        dtype: The type of the elements.
    """

    def __init__(self, path: Path, row_shape: tuple[int, ...], dtype: DTypeLike = np.uint8) -> None:
        self.rows = 0
        self._empty = np.empty((0, *row_shape), dtype)
        self._file = path.open("wb")
        self._write_header()

    def _write_header(self) -> None:
        """Write the header for the rows so far; NumPy pads it so that its length does not depend on their number."""
        header = npy.header_data_from_array_1_0(self._empty)
        npy.write_array_header_1_0(self._file, header | {"shape": (self.rows, *self._empty.shape[1:])})

    def append(self, rows: NDArray[np.generic]) -> None:
        """Write further rows (n, *row_shape), of the file's dtype."""
        row_shape, dtype = self._empty.shape[1:], self._empty.dtype
        if rows.shape[1:] != row_shape or rows.dtype != dtype:
            expected = f"{dtype} of shape (n, {', '.join(map(str, row_shape))})"
            raise ValueError(f"rows are {rows.dtype} of shape {rows.shape}, expected {expected}")
        self._file.write(np.ascontiguousarray(rows).data)
        self.rows += len(rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Complete the header and sync the file to disk, unless something was raised."""
        with self._file:
            if kind is None:
                self._file.seek(0)
                self._write_header()
                self._file.flush()
                os.fsync(self._file.fileno())


@contextmanager
def open_split(
    folder: Path, split: str, image_shape: tuple[int, ...], *, masks: bool = False
) -> Iterator[tuple[ArrayFile, ArrayFile]]:
    """Open the array files of a split: of images of shape (H, W, C), and of their labels or masks."""
    label_shape, dtype = (image_shape[:2], np.uint8) if masks else ((), np.int64)
    with (
        ArrayFile(folder / f"{split}_images.npy", image_shape) as images,
        ArrayFile(folder / f"{split}_labels.npy", label_shape, dtype) as labels,
    ):
        yield images, labels
