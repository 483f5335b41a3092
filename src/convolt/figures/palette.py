"""Colors of the labels of pixels, and masks over images."""

import numpy as np
from numpy.typing import NDArray

from convolt.data.sources.base import IGNORED
from convolt.data.sources.decoding import voc_palette
from convolt.figures.grid import Pixels, draw_grid, to_color
from convolt.figures.style import Sheet, one_line

Mask = NDArray[np.uint8]


PALETTE = voc_palette()


def color_mask(mask: Mask) -> Pixels:
    """Return (h, w, 3) in [0, 1]: a mask (h, w) in VOC's colors."""
    return np.asarray(PALETTE[mask] / np.float32(255), np.float32)


def overlay(image: Pixels, mask: Mask, strength: float = 0.6) -> Pixels:
    """Lay a mask over an image; the background (0) is unchanged.

    Args:
        image: (h, w, 1 or 3), in [0, 1].
        mask: (h, w).
        strength: Share of the mask's color.

    Returns:
        (h, w, 3).
    """
    share = np.where(mask == 0, 0, strength).astype(np.float32)[..., None]
    return np.asarray(to_color(image) * (1 - share) + color_mask(mask) * share, np.float32)


def draw_errors(mask: Mask, target: Mask) -> Pixels:
    """Return (h, w, 3): pale where a mask is right, black where it is wrong, gray where the truth is ignored."""
    shown = np.where(target == IGNORED, 0.6, 0.9 * (mask == target)).astype(np.float32)
    return to_color(shown[..., None])


def add_legend(sheet: Sheet, labels: list[tuple[int, str]]) -> Sheet:
    """Add a legend of the classes' colors below a sheet.

    Args:
        sheet: (height, width, 3).
        labels: Classes by number and name.
    """
    tiles = [np.broadcast_to(color_mask(np.array([[label]], np.uint8)), (22, 96, 3)) for label, _ in labels]
    columns = max(1, (sheet.shape[1] - 16) // 104)
    names = [one_line(name) for _, name in labels]
    legend = draw_grid(tiles, "", columns=min(columns, len(tiles)), captions=names, side=22, gap=8)[24:]  # no title
    joined = np.full((len(sheet) + len(legend), max(sheet.shape[1], legend.shape[1]), 3), 255, np.uint8)
    joined[: len(sheet), : sheet.shape[1]] = sheet
    joined[len(sheet) :, : legend.shape[1]] = legend
    return joined
