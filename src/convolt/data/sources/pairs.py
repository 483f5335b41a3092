"""Images with their masks, written as arrays."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from convolt.data.sources.base import IGNORED, ArrayFile
from convolt.data.sources.images import fitted, read_each
from convolt.errors import UserError, did_you_mean
from convolt.system.progress import Progress

if TYPE_CHECKING:
    from PIL import Image

RESIZE = ("stretch", "crop", "pad")

T = TypeVar("T")
Bytes = NDArray[np.uint8]


def check_options(image_size: int | None, channels: int | None, resize: str) -> int:
    """Check the options that sources of images and masks share.

    Returns:
        The image size.

    Raises:
        UserError: When one is none of those that are possible.
    """
    if resize not in RESIZE:
        raise UserError(f"data.resize={resize} is not one of {', '.join(RESIZE)}{did_you_mean(resize, RESIZE)}")
    if channels not in (1, 3):
        raise UserError(f"data.channels={channels} is neither 1 (grayscale) nor 3 (color)")
    if image_size is None:
        raise UserError("data.image_size is the side to which images are brought: give a number of pixels")
    return image_size


def square(image: "Image.Image", mask: Bytes, size: int, resize: str) -> tuple[Bytes, Bytes]:
    """Bring an image and its mask to a square alike.

    Args:
        image: Color or gray.
        mask: (H, W), labels.
        size: Height and width of the result in pixels.
        resize: See `fitted`.

    Returns:
        (size, size, C) and (size, size).

    Raises:
        ValueError: When they are not of one size.
    """
    if mask.shape != (image.height, image.width):
        raise ValueError(
            f"the mask has {mask.shape[1]} x {mask.shape[0]} pixels, its image {image.width} x {image.height}"
        )
    from PIL import Image

    pixels = np.asarray(fitted(image, size, resize), np.uint8).reshape(size, size, -1)
    return pixels, np.asarray(fitted(Image.fromarray(mask), size, resize, mask=True), np.uint8)


def write_pairs(
    folder: Path, split: str, items: Sequence[T], read: Callable[[T], tuple[Bytes, Bytes]], shape: tuple[int, int, int]
) -> tuple[NDArray[np.int64], list[tuple[T, str]]]:
    """Write the arrays of a split.

    Args:
        folder: Where to.
        split: train, val or test.
        items: What stands for each image.
        read: Reads an image and its mask, of the shapes (S, S, C) and (S, S).
        shape: (S, S, C).

    Returns:
        How many images have how many labels: (256,) images by label; and what could not be read, with the reasons.
    """
    counts = np.zeros(256, np.int64)
    unreadable: list[tuple[T, str]] = []
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(f"Reading {split} images and masks", len(items)))
        images = stack.enter_context(ArrayFile(folder / f"{split}_images.npy", shape))
        masks = stack.enter_context(ArrayFile(folder / f"{split}_labels.npy", shape[:2]))
        for item, pair in read_each(items, read):
            if isinstance(pair, str):
                unreadable.append((item, pair))
            else:
                images.append(pair[0][None])
                masks.append(pair[1][None])
                counts[np.unique(pair[1])] += 1
            progress.advance()
    return counts, unreadable


def highest_label(counts: NDArray[np.int64]) -> int:
    """Return the highest label that any image has, -1 where all pixels are ignored."""
    there = np.flatnonzero(counts[:IGNORED])
    return int(there[-1]) if len(there) else -1
