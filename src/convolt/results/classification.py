"""The classification report."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from convolt.results.classes import report_of
from convolt.results.record import per_class

RATES = ("accuracy", "precision", "recall", "f1")


def classification_report(matrix: NDArray[np.int64], classes: list[str]) -> dict[str, Any]:
    """Compute the report from a confusion matrix.

    Args:
        matrix: (K, K), counts; rows are true classes, columns predicted ones.
        classes: Names.

    Returns:
        As `report_of` says; "per_class" as in `result.json` (a class's accuracy is the share of its images that is
        found, its recall).
    """
    return report_of(per_class(matrix, classes), matrix, RATES)
