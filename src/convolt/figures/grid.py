"""Many small images on one sheet, pixel by pixel, with captions."""

from collections.abc import Sequence
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convolt.figures import fonts
from convolt.figures.style import Sheet, short

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
    column_groups: Sequence[tuple[int, int, str]] = (),
    side: int = 108,
    gap: int = 6,
    note: str = "",
) -> Sheet:
    """Draw images in rows, from the left; without Matplotlib, which takes several times as long.

    Args:
        images: All of one shape, (h, w, 1 or 3) in [0, 1]; gray ones are drawn in gray.
        title: Above the sheet.
        columns: Images of a row.
        captions: One below each image, lines separated by newlines; cut to the image's width.
        row_labels: One to the left of each row.
        column_labels: One above each column, cut to its width.
        column_groups: What stands above several columns: the first one, how many, and a label.
        side: Height of an image on the sheet in pixels, at 150 a inch; whole multiples of small images' own.
        gap: Pixels between images.
        note: Below the sheet.

    Returns:
        (height, width, 3), bytes.
    """
    rows = -(-len(images) // columns)
    tiles = [_scaled(image, side) for image in images]
    height, width = tiles[0].shape[:2]
    lines = max((caption.count("\n") + 1 for caption in captions), default=0)
    step_y, step_x = height + gap + lines * _LINE + (3 if lines else 0), width + gap
    left = 8 + (ceil(max(_length(short(label, 22), 13) for label in row_labels)) + 10 if row_labels else 0)
    top = 14 + 22 * (title.count("\n") + 1) + (18 if column_labels else 0) + (16 if column_groups else 0)
    # A title that is wider than the images must fit all the same.
    total_width = max(
        left + columns * step_x + 8, 24 + ceil(max(_length(line, 20) for line in fonts.writable(title).split("\n")))
    )
    total_height = top + rows * step_y + 6 + (18 * (note.count("\n") + 1) if note else 0)
    canvas = np.full((total_height, total_width, 3), 255, np.uint8)
    for place, tile in enumerate(tiles):
        y, x = top + place // columns * step_y, left + place % columns * step_x
        canvas[y : y + height, x : x + width] = tile
    sheet = _Canvas(canvas)
    sheet.text((8, 8), title, 20, spacing=3)
    for place, caption in enumerate(captions):
        y, x = top + place // columns * step_y + height + 2, left + place % columns * step_x
        sheet.text((x, y), caption, 11, width=step_x - 2)
    for row, label in enumerate(row_labels):
        sheet.text((left - 8, top + row * step_y + height // 2), short(label, 22), 13, anchor="rm")
    for column, label in enumerate(column_labels):
        sheet.text((left + column * step_x, top - 15), label, 11, width=step_x - 2)
    for first, span, label in column_groups:
        x = left + first * step_x
        sheet.text((x, top - 32), label, 11, width=span * step_x - 4)
        sheet.line(x, x + span * step_x - gap - 1, top - 17)
    if note:
        sheet.text((8, total_height - 6 - 18 * (note.count("\n") + 1)), note, 13, color="#444444")
    return sheet.pixels()


class _Canvas:
    """A canvas to be written on by Pillow, which takes a tenth of Matplotlib's time for hundreds of captions.

    Args:
        canvas: (height, width, 3) bytes.
    """

    def __init__(self, canvas: NDArray[np.uint8]) -> None:
        from PIL import Image, ImageDraw

        self._image = Image.fromarray(canvas)
        self._draw = ImageDraw.Draw(self._image)

    def text(
        self,
        at: tuple[int, int],
        text: str,
        size: int,
        *,
        width: int | None = None,
        anchor: str = "la",
        color: str = "black",
        spacing: int = 1,
    ) -> None:
        """Write lines of a size in pixels, each cut to a width in pixels; the anchor is Pillow's."""
        x, y = at
        step = size + 1 + spacing
        for number, line in enumerate(fonts.writable(text).split("\n")):
            shown = line
            while width is not None and len(shown) > 2 and _length(shown, size) > width:
                shown = f"{shown.rstrip('…')[:-1]}…"
            if not fonts.needed(shown):
                self._draw.text((x, y + number * step), shown, fill=color, font=_font(size), anchor=anchor)
                continue
            start: float = x - _length(shown, size) if anchor[0] == "r" else x
            baseline = y + number * step + (_font(size).getmetrics()[0] if anchor[1] == "a" else round(0.35 * size))
            for part, entry in fonts.parts(shown):
                font = _font(size, entry)
                self._draw.text((start, baseline), part, fill=color, font=font, anchor="ls")
                start += font.getlength(part)

    def line(self, start: int, end: int, y: int) -> None:
        """Draw a thin horizontal line."""
        self._draw.line((start, y, end, y), fill="#777777")

    def pixels(self) -> NDArray[np.uint8]:
        """Return (height, width, 3) bytes."""
        return np.asarray(self._image)


@cache
def _font(size: int, entry: Any = None) -> Any:
    """Return a font in a size in pixels: that of an entry of `fonts`, or that of all figures, Matplotlib's own."""
    import matplotlib as mpl
    from PIL import ImageFont

    if entry is not None:
        return ImageFont.truetype(entry.fname, size, index=fonts.face(entry))
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _length(text: str, size: int) -> float:
    """Return how many pixels a line takes."""
    if not fonts.needed(text):
        return float(_font(size).getlength(text))
    return float(sum(_font(size, entry).getlength(part) for part, entry in fonts.parts(text)))


def _scaled(image: Pixels, side: int) -> NDArray[np.uint8]:
    """Bring an image to about `side` pixels of height: whole multiples of small ones, means of large ones' pixels."""
    pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
    height, width = image.shape[:2]
    if height <= side:
        times = max(1, round(side / height))
        return np.repeat(np.repeat(pixels, times, axis=0), times, axis=1)
    from PIL import Image

    size = (max(1, round(width * side / height)), side)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
