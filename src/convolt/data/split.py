"""Which images belong to which part: stratified splits and subsets. NumPy only."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from convolt.errors import UserError

Ints = NDArray[np.int64]

TEST_SEED = 0
"""Decides which images of a dataset without test images become them."""


def _draw_from_each_class(labels: Ints, sizes: Mapping[int, int], seed: int) -> NDArray[np.bool_]:
    """Mark, for every class, so many randomly drawn images."""
    keys = np.random.default_rng(seed).random(len(labels))  # of NumPy's draws, the one that no version changes
    chosen = np.zeros(len(labels), dtype=np.bool_)
    for label, size in sizes.items():
        members = np.flatnonzero(labels == label)
        chosen[members[np.argsort(keys[members], kind="stable")[:size]]] = True
    return chosen


def stratified_split(labels: Ints, fraction: float, seed: int) -> tuple[Ints, Ints]:
    """Hold out the same fraction of every class.

    A class of n images loses round(n * fraction) of them, but at least one and not all where n is 2 or more; a class
    of one image stays whole.

    Args:
        labels: The class of every image (N).
        fraction: The part to hold out, 0 to below 1; 0 holds out nothing.
        seed: Decides, alone, which images are held out.

    Returns:
        The indices kept and the indices held out, each in ascending order.

    Raises:
        UserError: Where the fraction is outside [0, 1).
    """
    if not 0 <= fraction < 1:
        raise UserError(f"the fraction to hold out is {fraction}, but must be at least 0 and below 1")
    sizes: dict[int, int] = {}
    if fraction > 0:
        for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
            rounded = int(np.floor(count * fraction + 0.5))
            sizes[int(label)] = 0 if count < 2 else min(max(rounded, 1), int(count) - 1)
    held_out = _draw_from_each_class(labels, sizes, seed)
    return np.flatnonzero(~held_out).astype(np.int64), np.flatnonzero(held_out).astype(np.int64)


def stratified_subset(labels: Ints, size: int, seed: int) -> Ints:
    """Draw a subset of exactly `size` images in which the classes keep their shares.

    Shares are rounded by largest remainder; no class is left without an image.

    Args:
        labels: The class of every image (N).
        size: How many images to draw: at least one a class, at most N.
        seed: Decides, alone, which images are drawn.

    Returns:
        The indices drawn, in ascending order.

    Raises:
        UserError: Where there are fewer images or more classes than `size`.
    """
    present, counts = np.unique(labels, return_counts=True)
    total = len(labels)
    if size > total:
        raise UserError(f"data.train_size={size}: there are only {total} training images")
    if size < len(present):
        raise UserError(f"data.train_size={size}: there are {len(present)} classes, and each needs an image at least")
    shares = [int(count) * size for count in counts]  # in units of 1 / total, exactly
    sizes = [share // total for share in shares]
    by_remainder = sorted(range(len(sizes)), key=lambda index: -(shares[index] % total))
    for index in by_remainder[: size - sum(sizes)]:
        sizes[index] += 1
    while 0 in sizes:
        richest = max(range(len(sizes)), key=lambda index: (sizes[index] > 1, sizes[index] * total - shares[index]))
        sizes[richest] -= 1
        sizes[sizes.index(0)] = 1
    by_label = {int(label): size for label, size in zip(present, sizes, strict=True)}
    return np.flatnonzero(_draw_from_each_class(labels, by_label, seed)).astype(np.int64)
