"""Many small images on one sheet, pixel by pixel, with captions."""

from collections.abc import Mapping, Sequence
from functools import cache
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convolt.figures import fonts
from convolt.figures.style import Sheet, shorten

if TYPE_CHECKING:
    from PIL import ImageDraw

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
    side: int,
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
        column_groups: Labels above several columns: the first column, how many, and the label.
        side: Height of an image on the sheet in pixels, at 150 per inch; a whole multiple of a small image's own.
        gap: Pixels between images.
        note: Below the sheet.

    Returns:
        (height, width, 3), bytes.
    """
    from PIL import Image, ImageDraw

    tiles = [_scale(image, side) for image in images]
    height, width = tiles[0].shape[:2]
    lines = max((caption.count("\n") + 1 for caption in captions), default=0)
    step_y, step_x = height + gap + lines * _LINE + (3 if lines else 0), width + gap
    left = 8 + (ceil(max(_text_width(shorten(label, 22), 13) for label in row_labels)) + 10 if row_labels else 0)
    top = 14 + 22 * (title.count("\n") + 1) + (18 if column_labels else 0) + (16 if column_groups else 0)
    places = [(left + place % columns * step_x, top + place // columns * step_y) for place in range(len(images))]
    # The sheet is at least as wide as its title.
    title_width = max(_text_width(line, 20) for line in fonts.escape_lacking(title).split("\n"))
    total_width = max(left + columns * step_x + 8, 24 + ceil(title_width))
    total_height = top + -(-len(images) // columns) * step_y + 6 + (18 * (note.count("\n") + 1) if note else 0)
    sheet = np.full((total_height, total_width, 3), 255, np.uint8)
    for (x, y), tile in zip(places, tiles, strict=True):
        sheet[y : y + height, x : x + width] = tile
    canvas = Image.fromarray(sheet)
    draw = ImageDraw.Draw(canvas)
    _write_text(draw, (8, 8), title, 20, spacing=3)
    for (x, y), caption in zip(places, captions, strict=False):
        _write_text(draw, (x, y + height + 2), caption, 11, width=step_x - 2)
    for row, label in enumerate(row_labels):
        _write_text(draw, (left - 8, top + row * step_y + height // 2), shorten(label, 22), 13, anchor="rm")
    for column, label in enumerate(column_labels):
        _write_text(draw, (left + column * step_x, top - 15), label, 11, width=step_x - 2)
    for first, span, label in column_groups:
        x = left + first * step_x
        _write_text(draw, (x, top - 32), label, 11, width=span * step_x - 4)
        draw.line((x, top - 17, x + span * step_x - gap - 1, top - 17), fill="#777777")
    if note:
        _write_text(draw, (8, total_height - 6 - 18 * (note.count("\n") + 1)), note, 13, color="#444444")
    return np.asarray(canvas)


def draw_rows(rows: Mapping[str, Sequence[Pixels]], title: str) -> Sheet:
    """Draw rows of images, each with its name; white where a row has fewer than another."""
    columns = max(map(len, rows.values()))
    white = np.ones_like(next(image for images in rows.values() for image in images))
    flat = [image for images in rows.values() for image in (*images, *[white] * (columns - len(images)))]
    return draw_grid(flat, title, columns=columns, row_labels=list(rows), side=96)


def to_color(image: Pixels) -> Pixels:
    """Return (h, w, 3) of a gray or color image."""
    return np.broadcast_to(image, (*image.shape[:2], 3))


def _write_text(
    draw: "ImageDraw.ImageDraw",
    at: tuple[int, int],
    text: str,
    size: int,
    *,
    width: int | None = None,
    anchor: str = "la",
    color: str = "black",
    spacing: int = 1,
) -> None:
    """Write lines of a size in pixels, each cut to a width in pixels; the anchor is Pillow's.

    Pillow takes a tenth of Matplotlib's time for hundreds of captions.
    """
    x, y = at
    for number, line in enumerate(fonts.escape_lacking(text).split("\n")):
        top, shown = y + number * (size + 1 + spacing), line
        while width is not None and len(shown) > 2 and _text_width(shown, size) > width:
            shown = f"{shown.rstrip('…')[:-1]}…"
        if not fonts.find_lacking(shown):
            draw.text((x, top), shown, fill=color, font=_load_font(size), anchor=anchor)
            continue
        start: float = x - _text_width(shown, size) if anchor[0] == "r" else x
        baseline = top + (_load_font(size).getmetrics()[0] if anchor[1] == "a" else round(0.35 * size))
        for part, entry in fonts.split_by_font(shown):
            draw.text((start, baseline), part, fill=color, font=_load_font(size, entry), anchor="ls")
            start += _load_font(size, entry).getlength(part)


@cache
def _load_font(size: int, entry: Any = None) -> Any:
    """Return a font in a size in pixels: that of an entry of `fonts`, or that of all figures, Matplotlib's own."""
    from PIL import ImageFont

    if entry is None:
        return ImageFont.truetype(fonts.default_font_path(), size)
    return ImageFont.truetype(entry.fname, size, index=fonts.face_index(entry))


def _text_width(text: str, size: int) -> float:
    """Return how many pixels a line takes."""
    return float(sum(_load_font(size, entry).getlength(part) for part, entry in fonts.split_by_font(text)))


def _scale(image: Pixels, side: int) -> NDArray[np.uint8]:
    """Bring an image to about `side` pixels of height: whole multiples of small ones, means of large ones' pixels."""
    from PIL import Image

    pixels = Image.fromarray(np.rint(np.clip(to_color(image), 0, 1) * 255).astype(np.uint8))
    if pixels.height > side:
        size, method = (max(1, round(pixels.width * side / pixels.height)), side), Image.Resampling.BOX
    else:
        times = max(1, round(side / pixels.height))
        size, method = (pixels.width * times, pixels.height * times), Image.Resampling.NEAREST
    return np.asarray(pixels.resize(size, method))
