"""Which right and wrong predictions are shown, and what is written below each."""

import numpy as np
from numpy.typing import NDArray

from convolt.figures.style import one_line

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


def find_mistakes(probabilities: Floats, targets: Ints, count: int) -> Ints:
    """Return the places of at most `count` wrong predictions, the most confident first.

    Args:
        probabilities: (N, K).
        targets: (N,) true classes.
        count: How many.
    """
    wrong = np.flatnonzero(probabilities.argmax(1) != targets)
    return wrong[np.argsort(-probabilities[wrong].max(1), kind="stable")][:count]


def find_hits(probabilities: Floats, targets: Ints, count: int) -> Ints:
    """Return the places of at most `count` right predictions: class by class in turn, the most confident of each first.

    Args:
        probabilities: (N, K).
        targets: (N,) true classes.
        count: How many.
    """
    right = np.flatnonzero(probabilities.argmax(1) == targets)
    right = right[np.argsort(-probabilities[right].max(1), kind="stable")]
    rank = np.zeros(len(right), np.int64)
    for label in np.unique(targets[right]):
        own = targets[right] == label
        rank[own] = np.arange(own.sum())
    return right[np.lexsort((targets[right], rank))][:count]


def make_caption(truth: str, predicted: str, confidence: float) -> str:
    """Return two lines: the true class, and the predicted class with its confidence."""
    return f"true {one_line(truth)}\npred. {one_line(predicted)} {100 * confidence:.0f}%"
