"""Images of every class."""

from collections.abc import Sequence

import numpy as np

from convolt.figures.grid import Pixels, draw_grid, draw_rows
from convolt.figures.style import Sheet, one_line

MAX_CLASS_ROWS = 20
"""Classes beyond which a class has a tile instead of a row."""


def draw_samples(by_class: Sequence[Sequence[Pixels]], classes: list[str], title: str) -> Sheet:
    """Draw images of every class: a row each, or, with many classes, a tile each with the name below it.

    Args:
        by_class: Images (H, W, C) in [0, 1] of each class; classes without images are left out.
        classes: Names.
        title: Above them.
    """
    samples = {name: images for name, images in zip(classes, by_class, strict=True) if images}
    if len(classes) <= MAX_CLASS_ROWS:
        return draw_rows(samples, title)
    columns = max(map(len, samples.values()))
    white = np.ones_like(next(iter(samples.values()))[0])
    tiles = [np.concatenate([*images, *[white] * (columns - len(images))], axis=1) for images in samples.values()]
    return draw_grid(tiles, title, columns=7, captions=[one_line(name) for name in samples], side=64, gap=10)
