"""An image file of any kind as a square of bytes."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 100_000_000
"""Larger images are refused: a file of a few bytes can ask for all memory."""


def read_image(path: Path, size: int, channels: int, resize: str = "crop") -> NDArray[np.uint8]:
    """Read an image of any format that Pillow knows as a square of bytes; of an animation, the first picture.

    Args:
        path: The file.
        size: Height and width of the result in pixels.
        channels: 3 for colour, 1 for grayscale.
        resize: "crop" resizes the shorter side and keeps the centre, "stretch" resizes both sides.

    Returns:
        The image (size, size, channels).

    Raises:
        Exception: Whatever Pillow raises on a file that it cannot read; ValueError for more than `MAX_PIXELS` pixels.
    """
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"{opened.width} x {opened.height} pixels are more than {MAX_PIXELS:,}")
        opened.draft(None, (2 * size, 2 * size))  # a large JPEG is decoded at a half, a quarter or an eighth
        image = _to_8_bits(ImageOps.exif_transpose(opened))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, "white")
        background.alpha_composite(image)
        image = background
    image = image.convert("RGB" if channels == 3 else "L")
    bilinear = Image.Resampling.BILINEAR
    image = image.resize((size, size), bilinear) if resize == "stretch" else ImageOps.fit(image, (size, size), bilinear)
    return np.asarray(image, dtype=np.uint8).reshape(size, size, channels)


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
