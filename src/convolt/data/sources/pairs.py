"""Images with their masks or labels, read from files and written as arrays."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from convolt.data.sources.base import ArrayFile
from convolt.data.sources.decoding import UnreadableError
from convolt.data.sources.images import fitted, read_each
from convolt.data.sources.user_images import check_channels, check_choice
from convolt.errors import UserError
from convolt.system.progress import Progress

if TYPE_CHECKING:
    from PIL import Image

RESIZE = ("stretch", "crop", "pad")

T = TypeVar("T")
Bytes = NDArray[np.uint8]


def check_options(image_size: int | None, channels: int, resize: str) -> int:
    """Check the options that sources of images and masks share, and return the image size.

    Raises:
        UserError: When one has no valid value.
    """
    check_choice("resize", resize, RESIZE)
    check_channels(channels)
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
        UnreadableError: When they are not of one size.
    """
    if mask.shape != (image.height, image.width):
        raise UnreadableError(
            f"the mask has {mask.shape[1]} x {mask.shape[0]} pixels, its image {image.width} x {image.height}"
        )
    from PIL import Image

    pixels = np.asarray(fitted(image, size, resize), np.uint8).reshape(size, size, -1)
    return pixels, np.asarray(fitted(Image.fromarray(mask), size, resize, mask=True), np.uint8)


def write_pairs(
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
    of_targets = (shape[:2], np.uint8) if masks else ((), np.int64)
    with (
        Progress(f"Reading {split} images", len(items)) as progress,
        ArrayFile(folder / f"{split}_images.npy", shape) as images,
        ArrayFile(folder / f"{split}_labels.npy", *of_targets) as targets,
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
