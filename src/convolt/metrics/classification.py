"""The classification report."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from convolt.metrics.class_report import report_of
from convolt.metrics.rates import rows_of

RATES = ("accuracy", "precision", "recall", "f1")


def per_class(matrix: NDArray[np.int64], classes: list[str]) -> list[dict[str, Any]]:
    """Compute each class's figures from a confusion matrix (K, K), as `rates` says; its accuracy is its recall."""
    return rows_of(matrix, classes, RATES)


def classification_report(matrix: NDArray[np.int64], classes: list[str]) -> dict[str, Any]:
    """Compute the report from a confusion matrix (K, K); see `report_of`."""
    return report_of(matrix, classes, RATES)
