"""Image files and masks brought to squares of one size, and back."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from convolt.data.sources.base import IGNORED
from convolt.data.sources.decoding import UnreadableError, open_upright
from convolt.data.sources.image_notes import ImageNotes

if TYPE_CHECKING:
    from PIL import Image

Bytes = NDArray[np.uint8]
RESIZE = ("stretch", "crop", "pad")


def read_image(
    path: Path,
    size: int,
    channels: int,
    resize: str = "crop",
    *,
    white: int | None = None,
    notes: ImageNotes | None = None,
) -> Bytes:
    """Read an image of any format that Pillow knows as a square of bytes; of an animation, the first picture.

    Args:
        path: The file.
        size: Height and width of the result in pixels.
        channels: 3 for color, 1 for grayscale.
        resize: One of `RESIZE`, see `fit_to_square`.
        white: See `open_upright`.
        notes: See `open_upright`.

    Returns:
        The image (size, size, channels).

    Raises:
        UnreadableError: For a file that Pillow cannot read, and for what is refused here.
    """
    with open_upright(path, channels, None if resize == "pad" else 2 * size, white=white, notes=notes) as image:
        return np.asarray(fit_to_square(image, size, resize), dtype=np.uint8).reshape(size, size, channels)


def fit_to_square(image: "Image.Image", size: int, resize: str, *, mask: bool = False) -> "Image.Image":
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


def restore_from_square(mask: Bytes, width: int, height: int, resize: str) -> Bytes:
    """Bring a mask back to the size of its image: the inverse of `fit_to_square`.

    Args:
        mask: (size, size), labels.
        width: Of the image in pixels.
        height: Likewise.
        resize: As in `fit_to_square`.

    Returns:
        (height, width); what the square did not show is ignored.
    """
    from PIL import Image

    square = Image.fromarray(mask)
    shown = {"stretch": (width, height), "crop": (min(width, height),) * 2, "pad": square.size}[resize]
    square = square.resize(shown, Image.Resampling.NEAREST)
    canvas = Image.new("L", (width, height), IGNORED)
    canvas.paste(square, ((width - square.width) // 2, (height - square.height) // 2))
    return np.asarray(canvas)


def fit_pair_to_square(image: "Image.Image", mask: Bytes, size: int, resize: str) -> tuple[Bytes, Bytes]:
    """Bring an image and its mask to a square alike.

    Args:
        image: Color or gray.
        mask: (H, W), labels.
        size: Height and width of the result in pixels.
        resize: See `fit_to_square`.

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

    pixels = np.asarray(fit_to_square(image, size, resize), np.uint8).reshape(size, size, -1)
    return pixels, np.asarray(fit_to_square(Image.fromarray(mask), size, resize, mask=True), np.uint8)
