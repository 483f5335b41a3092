"""Many files read by several threads, and those of a split written as arrays."""

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from convolt.data.sources.base import open_split
from convolt.data.sources.decoding import UnreadableError
from convolt.data.sources.squares import Bytes
from convolt.system.allocation import release_freed_memory
from convolt.system.progress import Progress

BATCH = 256

T = TypeVar("T")
R = TypeVar("R")


def read_each(items: Sequence[T], read: Callable[[T], R]) -> Iterator[tuple[T, R | str]]:
    """Read files with several threads (Pillow works outside the interpreter's lock), a batch at a time, in order.

    Args:
        items: One for each file.
        read: Reads the file of an item.

    Yields:
        Each with what was read, or with the reason why it could not be.

    Raises:
        Exception: Whatever `read` raises that is no fault of a file: neither `UnreadableError` nor `OSError`.
    """

    def attempt(item: T) -> tuple[T, R | str]:
        try:
            return item, read(item)
        except (UnreadableError, OSError) as error:
            return item, " ".join(str(error).split())

    with release_freed_memory(), warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # of damaged metadata and large images: what matters is an error here
        for start in range(0, len(items), BATCH):
            yield from pool.map(attempt, items[start : start + BATCH])


def write_split(
    folder: Path,
    split: str,
    items: Sequence[T],
    read: Callable[[T], tuple[Bytes, Bytes | np.int64]],
    shape: tuple[int, int, int],
    *,
    masks: bool = True,
) -> tuple[Counter[int], list[tuple[T, str]]]:
    """Write the images of a split, and their masks or labels, as arrays.

    Args:
        folder: Where to write.
        split: train, val or test.
        items: One for each image.
        read: Reads the image (S, S, C) of an item, and its mask (S, S) or label.
        shape: (S, S, C).
        masks: Whether each image has a mask, and not one label.

    Returns:
        How many images have each label; and the items that could not be read, with the reasons.
    """
    counts: Counter[int] = Counter()
    unreadable: list[tuple[T, str]] = []
    with (
        Progress(f"Reading {split} images", len(items)) as progress,
        open_split(folder, split, shape, masks=masks) as (images, targets),
    ):
        for item, pair in read_each(items, read):
            if isinstance(pair, str):
                unreadable.append((item, pair))
            else:
                image, target = pair
                images.append(image[None])
                targets.append(np.asarray(target)[None])
                counts.update(np.unique(target).tolist())
            progress.advance()
    return counts, unreadable
