"""Many small images on one sheet, pixel by pixel, with captions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from convolt.pictures.style import DPI, new_figure, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Pixels = NDArray[np.float32]
"""(h, w, 1 or 3), in [0, 1]."""

_LINE = 13
"""Height of a caption's line in pixels."""


def draw_grid(
    images: Sequence[Pixels],
    title: str,
    *,
    columns: int,
    captions: Sequence[str] = (),
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    side: int = 108,
    gap: int = 6,
    note: str = "",
) -> "Figure":
    """Draw images in rows, from the left; one canvas for all of them keeps it cheap.

    Args:
        images: All of one shape, (h, w, 1 or 3) in [0, 1]; grey ones are drawn in grey.
        title: Above the sheet.
        columns: Images of a row.
        captions: One below each image, lines separated by newlines; cut to the image's width.
        row_labels: One to the left of each row.
        column_labels: One above each column, cut to its width.
        side: Height of an image on the sheet in pixels, at 150 a inch; whole multiples of small images' own.
        gap: Pixels between images.
        note: Below the sheet.
    """
    rows = -(-len(images) // columns)
    tiles = [_scaled(image, side) for image in images]
    height, width = tiles[0].shape[:2]
    lines = max((caption.count("\n") + 1 for caption in captions), default=0)
    step_y, step_x = height + gap + lines * _LINE + (3 if lines else 0), width + gap
    left = 8 + (max(len(short(label, 22)) for label in row_labels) * 7 + 10 if row_labels else 0)
    top = 14 + 22 * (title.count("\n") + 1) + (18 if column_labels else 0)
    # A title that is wider than the images must fit all the same.
    total_width = max(left + columns * step_x + 8, 24 + max(len(line) for line in title.split("\n")) * 11)
    total_height = top + rows * step_y + 6 + (18 * (note.count("\n") + 1) if note else 0)
    canvas = np.ones((total_height, total_width, 3), np.float32)
    for place, tile in enumerate(tiles):
        y, x = top + place // columns * step_y, left + place % columns * step_x
        canvas[y : y + height, x : x + width] = tile
    with new_figure(total_width / DPI, total_height / DPI, layout=None) as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.imshow(canvas, interpolation="nearest", aspect="auto")
        axes.text(8, 8, title, fontsize=10, va="top", linespacing=1.15)
        for place, caption in enumerate(captions):
            y, x = top + place // columns * step_y + height + 2, left + place % columns * step_x
            text = "\n".join(short(line, max(3, int(step_x / 6.4))) for line in caption.split("\n"))
            axes.text(x, y, text, fontsize=5.5, va="top", linespacing=1.1)
        for row, label in enumerate(row_labels):
            axes.text(
                left - 8, top + row * step_y + height / 2, short(label, 22), fontsize=6.5, va="center", ha="right"
            )
        for column, label in enumerate(column_labels):
            x = left + column * step_x
            axes.text(x, top - 3, short(label, max(3, int(step_x / 6.4))), fontsize=5.5, va="bottom")
        if note:
            axes.text(8, total_height - 8, note, fontsize=6.5, va="bottom", color="#444444")
        return figure


def _scaled(image: Pixels, side: int) -> Pixels:
    """Bring an image to about `side` pixels of height: whole multiples of small ones, means of large ones' pixels."""
    image = np.clip(image, 0, 1)
    image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    height, width = image.shape[:2]
    if height <= side:
        times = max(1, round(side / height))
        return np.repeat(np.repeat(image, times, axis=0), times, axis=1)
    from PIL import Image

    size = (max(1, round(width * side / height)), side)
    small = Image.fromarray((image * 255).astype(np.uint8)).resize(size, Image.Resampling.BOX)
    return np.asarray(np.asarray(small) / np.float32(255), np.float32)
