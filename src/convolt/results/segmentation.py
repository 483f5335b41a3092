"""Figures of the classes of pixels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from convolt.results.classes import report_of

RATES = ("iou", "dice", "precision", "recall")


def per_class(matrix: NDArray[np.int64], classes: list[str]) -> list[dict[str, Any]]:
    """Compute each class's figures from a confusion matrix of pixels.

    Args:
        matrix: (K, K), counts; rows are true classes, columns predicted ones.
        classes: Names.

    Returns:
        For each class its name, IoU, Dice, precision, recall and support in pixels. A class that occurs neither in the
        truth nor in the predictions has None for IoU and Dice; one without true (predicted) pixels has None for recall
        (precision).
    """
    hits, support, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)

    def share(part: Any, whole: Any) -> float | None:
        return float(part / whole) if whole else None

    return [
        {
            "class": name,
            "iou": share(hits[k], support[k] + predicted[k] - hits[k]),
            "dice": share(2 * hits[k], support[k] + predicted[k]),
            "precision": share(hits[k], predicted[k]),
            "recall": share(hits[k], support[k]),
            "support": int(support[k]),
        }
        for k, name in enumerate(classes)
    ]


def segmentation_report(matrix: NDArray[np.int64], classes: list[str]) -> dict[str, Any]:
    """Compute the report from a confusion matrix (K, K) of pixels; see `per_class` and `report_of`."""
    return report_of(per_class(matrix, classes), matrix, RATES)
