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

if TYPE_CHECKING:
    from PIL import Image

BATCH = 256
MAX_PIXELS = 100_000_000
"""Larger images are refused: a file of a few bytes can ask for all memory."""


def read_image(path: Path, size: int, channels: int, resize: str = "crop") -> NDArray[np.uint8]:
    """Read an image of any format that Pillow knows as a square of bytes; of an animation, the first picture.

    Args:
        path: The file.
        size: Height and width of the result in pixels.
        channels: 3 for colour, 1 for grayscale.
        resize: How it is brought to that size, see `fitted`.

    Returns:
        The image (size, size, channels).

    Raises:
        Exception: Whatever Pillow raises on a file that it cannot read; ValueError for more than `MAX_PIXELS` pixels.
    """
    image = upright(path, channels, draft=None if resize == "pad" else 2 * size)
    return np.asarray(fitted(image, size, resize), dtype=np.uint8).reshape(size, size, channels)


def upright(path: Path | BinaryIO, channels: int, draft: int | None = None) -> "Image.Image":
    """Read an image as its EXIF data says, laid on white where it is transparent, of 8 bits, colour or grey.

    Args:
        path: The file.
        channels: 3 for colour, 1 for grayscale.
        draft: A large JPEG may be decoded at a half, a quarter or an eighth, of this side or more; None: as it is.

    Raises:
        Exception: Whatever Pillow raises on a file that it cannot read; ValueError for more than `MAX_PIXELS` pixels.
    """
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        _see_to_size(opened)
        if draft is not None:
            opened.draft(None, (draft, draft))
        image = _to_8_bits(ImageOps.exif_transpose(opened))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, "white")
        background.alpha_composite(image)
        image = background
    return image.convert("RGB" if channels == 3 else "L")


def _see_to_size(image: "Image.Image") -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")


def fitted(image: "Image.Image", size: int, resize: str, *, mask: bool = False) -> "Image.Image":
    """Bring an image to a square.

    Args:
        image: The image.
        size: Height and width of the result in pixels.
        resize: "crop" resizes the shorter side and keeps the centre, "stretch" resizes both sides, "pad" keeps the
            scale: it cuts what is larger about the centre, and sets a border around what is smaller.
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

    Palettes and grey images hold labels as they are; of colours, those of VOC are labels.

    Raises:
        Exception: Whatever Pillow raises on a file that it cannot read; ValueError for what is no mask.
    """
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        _see_to_size(opened)
        image = ImageOps.exif_transpose(opened)
        if image.mode not in ("P", "L", "1") and image.mode[0] != "I":
            return _labels_of_colors(np.asarray(image.convert("RGB")))
        values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > IGNORED:
        raise ValueError(f"labels go from {values.min()} to {values.max()}, but must be 0 to 254, or 255 to be ignored")
    return values.astype(np.uint8)


def voc_palette() -> NDArray[np.uint8]:
    """Return (256, 3), the colours of VOC's masks: the bits of a label, dealt to red, green and blue in turn.

    Everingham and others 2010, http://host.robots.ox.ac.uk/pascal/VOC; 255, which is ignored, is the pale (224, 224,
    192).
    """
    colors = np.zeros((256, 3), np.uint8)
    for label in range(256):
        for place in range(8):
            for channel in range(3):
                colors[label, channel] |= (label >> (3 * place + channel) & 1) << (7 - place)
    return colors


def _labels_of_colors(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn (H, W, 3) of VOC's colours into labels."""
    weights = np.array([1 << 16, 1 << 8, 1])
    known, codes = voc_palette() @ weights, pixels @ weights
    order = np.argsort(known)
    found = order[np.searchsorted(known[order], codes).clip(max=255)]
    if not np.array_equal(known[found], codes):
        foreign = pixels[known[found] != codes][0].tolist()
        raise ValueError(f"the colour {foreign} is none of VOC's: save masks as grey or palette images of labels")
    return np.asarray(found, np.uint8)


T = TypeVar("T")
R = TypeVar("R")


def read_each(items: Sequence[T], read: Callable[[T], R]) -> Iterator[tuple[T, R | str]]:
    """Read files with several threads (Pillow works outside the interpreter's lock), a batch at a time, in order.

    Args:
        items: What stands for each.
        read: Reads one.

    Yields:
        Each with what was read, or with the reason why it could not be.
    """

    def attempt(item: T) -> tuple[T, R | str]:
        try:
            return item, read(item)
        except MemoryError:
            raise
        except Exception as error:  # decoders raise whatever they like on damaged files
            reason = "no image that Pillow knows" if "cannot identify" in str(error) else str(error)
            return item, " ".join(reason.split()) or type(error).__name__

    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # of damaged metadata and large images: what matters is an error here
        for start in range(0, len(items), BATCH):
            yield from pool.map(attempt, items[start : start + BATCH])


def _to_8_bits(image: "Image.Image") -> "Image.Image":
    """Scale images of 16-bit integers or of fractions, which Pillow would clip, to 0 to 255."""
    from PIL import Image

    if image.mode[0] not in "IF":
        return image
    values = np.asarray(image)
    if image.mode[0] == "I":
        low, high, white = 0, 65535, 65535
    else:
        low, high, white = 0, 1, 1
    if not (values.min() >= low and values.max() <= high):
        kind = "integers" if image.mode[0] == "I" else "fractions"
        raise ValueError(f"pixels are {kind} from {values.min()} to {values.max()}, not {low} to {high}")
    return Image.fromarray(np.rint(values.astype(np.float64) * (255 / white)).astype(np.uint8))
