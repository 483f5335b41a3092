"""An image file of any kind as a square of bytes, and masks of labels."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from convolt.data.sources.base import IGNORED
from convolt.data.sources.decoding import (
    UnreadableError,
    check_size,
    decoder_errors,
    formats,
    orientation_of,
    strips,
    upright,
)
from convolt.data.sources.image_notes import ImageNotes
from convolt.system.allocation import release_freed_memory

if TYPE_CHECKING:
    from PIL import Image

BATCH = 256


def read_image(
    path: Path,
    size: int,
    channels: int,
    resize: str = "crop",
    *,
    white: int | None = None,
    notes: ImageNotes | None = None,
) -> NDArray[np.uint8]:
    """Read an image of any format that Pillow knows as a square of bytes; of an animation, the first picture.

    Args:
        path: The file.
        size: Height and width of the result in pixels.
        channels: 3 for color, 1 for grayscale.
        resize: How it is brought to that size, see `fitted`.
        white: See `upright`.
        notes: See `upright`.

    Returns:
        The image (size, size, channels).

    Raises:
        UnreadableError: For a file that Pillow cannot read, and for what is refused here.
    """
    with upright(path, channels, None if resize == "pad" else 2 * size, white=white, notes=notes) as image:
        return np.asarray(fitted(image, size, resize), dtype=np.uint8).reshape(size, size, channels)


def fitted(image: "Image.Image", size: int, resize: str, *, mask: bool = False) -> "Image.Image":
    """Bring an image to a square.

    Args:
        image: The image.
        size: Height and width of the result in pixels.
        resize: "crop" resizes the shorter side and keeps the center, "stretch" resizes both sides, "pad" keeps the
            scale: it cuts what is larger about the center, and sets a border around what is smaller.
        mask: Whether it holds labels: then each is the nearest one, and the border is ignored.
    """
    from PIL import Image, ImageOps

    if resize == "pad":
        canvas = Image.new(image.mode, (size, size), IGNORED if mask else 0)
        canvas.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
        return canvas
    sampling = Image.Resampling.NEAREST if mask else Image.Resampling.BILINEAR
    return image.resize((size, size), sampling) if resize == "stretch" else ImageOps.fit(image, (size, size), sampling)


def unfitted(mask: NDArray[np.uint8], width: int, height: int, resize: str) -> NDArray[np.uint8]:
    """Bring a mask back to the size of its image, as `fitted` took it from there.

    Args:
        mask: (size, size), labels.
        width: Of the image in pixels.
        height: Likewise.
        resize: How the image was brought to the square.

    Returns:
        (height, width); what the square did not show is ignored.
    """
    from PIL import Image

    square = Image.fromarray(mask)
    side = min(width, height)
    if resize == "stretch":
        square = square.resize((width, height), Image.Resampling.NEAREST)
    elif resize == "crop":
        square = square.resize((side, side), Image.Resampling.NEAREST)
    canvas = Image.new("L", (width, height), IGNORED)
    canvas.paste(square, ((width - square.width) // 2, (height - square.height) // 2))
    return np.asarray(canvas)


def read_mask(path: Path | BinaryIO) -> NDArray[np.uint8]:
    """Read a mask: the labels of pixels (H, W), of which 255 is ignored.

    Palettes and gray images hold labels as they are; of colors, those of VOC are labels.

    Raises:
        UnreadableError: For a file that Pillow cannot read, and for what is no mask.
    """
    from PIL import Image

    with decoder_errors():
        opened = Image.open(path, formats=formats())
    with opened as image:
        check_size(image)
        with decoder_errors():
            image.load()
        orientation = orientation_of(image, [])
        upright = image.transpose(orientation) if orientation is not None else image
        if image.mode not in ("P", "L", "1") and image.mode[0] != "I":
            return np.concatenate([_labels_of_colors(upright.crop(box)) for box in strips(upright)])
        values = np.asarray(upright)
    if values.min() < 0 or values.max() > IGNORED:
        raise UnreadableError(
            f"labels go from {values.min()} to {values.max()}, but must be 0 to 254, or 255 to be ignored"
        )
    return values.astype(np.uint8)


def voc_palette() -> NDArray[np.uint8]:
    """Return (256, 3), the colors of VOC's masks: the bits of a label, dealt to red, green and blue in turn.

    Everingham and others 2010, http://host.robots.ox.ac.uk/pascal/VOC; 255, which is ignored, is the pale (224, 224,
    192).
    """
    labels, channels = np.arange(256)[:, None], np.arange(3)
    bits = [(labels >> (3 * place + channels) & 1) << (7 - place) for place in range(8)]
    return np.asarray(np.bitwise_or.reduce(bits), np.uint8)


def _labels_of_colors(image: "Image.Image") -> NDArray[np.uint8]:
    """Turn VOC's colors into labels (H, W)."""
    with decoder_errors():  # not every mode of every format can be converted
        pixels = np.asarray(image.convert("RGB"))
    weights = np.array([1 << 16, 1 << 8, 1])
    known, codes = voc_palette() @ weights, pixels @ weights
    order = np.argsort(known)
    labels = order[np.searchsorted(known[order], codes).clip(max=255)]
    if not np.array_equal(known[labels], codes):
        foreign = pixels[known[labels] != codes][0].tolist()
        raise UnreadableError(f"the color {foreign} is none of VOC's: save masks as gray or palette images of labels")
    return np.asarray(labels, np.uint8)


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
