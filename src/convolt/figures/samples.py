"""Images of every class, and what augmentation makes of them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from convolt.figures.grid import Pixels, draw_grid
from convolt.figures.style import Sheet, one_line

MANY = 20
"""Classes beyond which a class has a tile instead of a row."""


def first_of_each_class(labels: NDArray[np.int64], num_classes: int, count: int) -> list[NDArray[np.int64]]:
    """Return for each class the places of its first `count` images; fewer where it has fewer."""
    return [np.flatnonzero(labels == label)[:count] for label in range(num_classes)]


def draw_samples(by_class: Sequence[Sequence[Pixels]], classes: list[str], title: str) -> Sheet:
    """Draw images of every class: a row each, or, with many classes, a tile each with the name below it.

    Args:
        by_class: Images (H, W, C) in [0, 1] of each class; classes without images are left out.
        classes: Names.
        title: Above them.
    """
    there = [(name, images) for name, images in zip(classes, by_class, strict=True) if images]
    columns = max(len(images) for _, images in there)
    if len(classes) > MANY:
        tiles = [_beside(images, columns) for _, images in there]
        return draw_grid(tiles, title, columns=7, captions=[one_line(name) for name, _ in there], side=64, gap=10)
    white = np.ones_like(there[0][1][0])
    flat = [image for _, images in there for image in [*images, *[white] * (columns - len(images))]]
    return draw_grid(flat, title, columns=columns, row_labels=[name for name, _ in there], side=96)


def _beside(images: Sequence[Pixels], count: int) -> Pixels:
    """Set images beside each other, with white where there are fewer."""
    white = np.ones_like(images[0])
    return np.concatenate([*images, *[white] * (count - len(images))], axis=1)


def draw_augmented(raw: Sequence[Pixels], rounds: Sequence[Sequence[Pixels]], title: str) -> Sheet:
    """Draw images as they are stored above what the network saw of them, an epoch a row.

    Args:
        raw: (H, W, C) in [0, 1].
        rounds: For each epoch the same images, augmented.
        title: Above them.
    """
    flat = [image for row in (raw, *rounds) for image in row]
    labels = ["raw", *(f"epoch {number + 1}" for number in range(len(rounds)))]
    return draw_grid(flat, title, columns=len(raw), row_labels=labels, side=96)
