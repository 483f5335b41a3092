"""Figures of the classes of pixels."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convolt.metrics.class_report import report_of
from convolt.metrics.rates import rows_of

RATES = ("iou", "dice", "precision", "recall")


def per_class(matrix: NDArray[np.int64], classes: list[str]) -> list[dict[str, Any]]:
    """Compute each class's figures from a confusion matrix (K, K) of pixels, as `rates` says."""
    return rows_of(matrix, classes, RATES)


def segmentation_report(matrix: NDArray[np.int64], classes: list[str]) -> dict[str, Any]:
    """Compute the report from a confusion matrix (K, K) of pixels; see `report_of`."""
    return report_of(matrix, classes, RATES, torch.float64)
