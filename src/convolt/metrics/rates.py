"""The rates of each class from a confusion matrix, and their means; the one place where they are computed.

A rate over nothing is not a number, null in files, and counts in no mean: the recall of a class that is never true, the
precision of one that is never predicted, and F1, Dice and IoU of one that is neither. A class that is predicted and
never true has a precision, F1, Dice and IoU of 0.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def rates(matrix: Tensor) -> dict[str, Tensor]:
    """Compute the rates of each class.

    Args:
        matrix: (..., K, K) counts; rows are true classes, columns predicted ones.

    Returns:
        "accuracy" (the share of a class that is found, which is its recall), "recall", "precision", "f1", "iou" and
        "dice" (which is F1), each (..., K) in float64, on the CPU.
    """
    counts = matrix.cpu().double()  # not every device has doubles
    hits, true, predicted = counts.diagonal(dim1=-2, dim2=-1), counts.sum(-1), counts.sum(-2)
    recall, f1 = hits / true, 2 * hits / (true + predicted)
    iou = hits / (true + predicted - hits)
    return {"accuracy": recall, "recall": recall, "precision": hits / predicted, "f1": f1, "iou": iou, "dice": f1}


def accuracy(matrix: Tensor) -> Tensor:
    """Return the share of the counts (K, K) that are right, in float32 on the CPU."""
    counts = matrix.cpu().double()
    return (counts.trace() / counts.sum()).float()


def macro_average(values: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the mean over the classes that have a rate, in float32; not a number where no class has one.

    Args:
        values: (K,), of each class.
        dtype: Of the sum; float32 gives torchmetrics' bits.
    """
    count = values.isfinite().sum().to(dtype)
    return (values.nan_to_num().to(dtype) / count).sum().float()


def per_class_rates(matrix: NDArray[np.int64], classes: Sequence[str], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return for each class "class", the rates of these names (None where a class has none) and "support"."""
    counts = torch.from_numpy(np.asarray(matrix, np.int64))
    by_class, support = rates(counts), counts.sum(1).tolist()
    return [
        {"class": name, **{rate: finite_or_none(by_class[rate][k]) for rate in names}, "support": support[k]}
        for k, name in enumerate(classes)
    ]


def finite_or_none(value: Tensor | float) -> float | None:
    """Return a number as files hold it: None for an infinity and for what is not a number."""
    return float(value) if float("-inf") < value < float("inf") else None
