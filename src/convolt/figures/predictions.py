"""Right and wrong predictions, image by image."""

import numpy as np
from numpy.typing import NDArray

from convolt.figures.grid import Pixels, draw_grid
from convolt.figures.style import Sheet, one_line

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


def mistakes(probabilities: Floats, targets: Ints, count: int) -> Ints:
    """Return the places of at most `count` wrong predictions, the most confident first.

    Args:
        probabilities: (N, K).
        targets: (N,) true classes.
        count: How many.
    """
    wrong = np.flatnonzero(probabilities.argmax(1) != targets)
    return wrong[np.argsort(-probabilities[wrong].max(1), kind="stable")][:count]


def hits(probabilities: Floats, targets: Ints, count: int) -> Ints:
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


def caption(truth: str, predicted: str, confidence: float) -> str:
    """Say in two lines what an image is, and what it was taken for."""
    return f"true {one_line(truth)}\npred. {one_line(predicted)} {100 * confidence:.0f}%"


def draw_predictions(
    images: list[Pixels], places: Ints, probabilities: Floats, targets: Ints, classes: list[str], title: str
) -> Sheet:
    """Draw images with their true class, predicted class and confidence.

    Args:
        images: Those of the places, in order.
        places: (M,) of the M images among the N.
        probabilities: (N, K).
        targets: (N,).
        classes: K names.
        title: Above the sheet.
    """
    predicted = probabilities.argmax(1)
    captions = [
        caption(classes[targets[p]], classes[predicted[p]], float(probabilities[p, predicted[p]])) for p in places
    ]
    return draw_grid(images, title, columns=min(8, max(4, len(images))), captions=captions, side=120, gap=12)
