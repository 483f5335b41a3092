"""How well confidence agrees with accuracy (Guo and others 2017, https://arxiv.org/abs/1706.04599)."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from convolt.figures.style import COLORS, new_figure, set_margins, set_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 15


def bin_by_confidence(
    probabilities: NDArray[np.float32], targets: NDArray[np.int64], error: float, bins: int = BINS
) -> dict[str, Any]:
    """Sort predictions by confidence into bins of equal width.

    Args:
        probabilities: (N, K).
        targets: (N,).
        error: The expected calibration error, as the metrics computed it.
        bins: Number of bins of [0, 1], those of torchmetrics: a confidence on an edge belongs to the bin above.

    Returns:
        "edges" (bins + 1), and for each bin "count", "confidence" and "accuracy" (means; None where it is empty), and
        "calibration_error", the mean of |accuracy - confidence| weighted by count; in it, confidences of 1 are a bin of
        their own, and here in the last one.
    """
    confidence = probabilities.max(1)
    right = (probabilities.argmax(1) == targets).astype(np.float64)
    edges = torch.linspace(0, 1, bins + 1).numpy()
    place = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights=values, minlength=bins) for values in (confidence, right)]
    mean_confidence, accuracy = (total / np.maximum(count, 1) for total in sums)

    def without_empty_bins(values: NDArray[np.float64]) -> list[float | None]:
        return [float(value) if number else None for value, number in zip(values, count, strict=True)]

    return {
        "edges": edges.tolist(),
        "count": count.tolist(),
        "confidence": without_empty_bins(mean_confidence),
        "accuracy": without_empty_bins(accuracy),
        "calibration_error": error,
    }


def draw_reliability(data: dict[str, Any], title: str) -> "Figure":
    """Draw accuracy by confidence beside the diagonal, and how often each confidence occurs.

    Args:
        data: From `bin_by_confidence`.
        title: Above it.
    """
    edges = np.asarray(data["edges"])
    centers, width = (edges[:-1] + edges[1:]) / 2, edges[1] - edges[0]
    filled = [k for k, number in enumerate(data["count"]) if number]
    confidence, accuracy = ([data[name][k] for k in filled] for name in ("confidence", "accuracy"))
    with new_figure(5.2, 5.6, layout=None) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1], gridspec_kw={"hspace": 0.08})
        set_margins(figure, left=0.62, bottom=0.48, top=0.78)
        upper.plot([0, 1], [0, 1], "--", color="#555555", label="perfectly calibrated")
        upper.bar(centers[filled], accuracy, width * 0.94, color=COLORS[0], alpha=0.85, label="accuracy of the bin")
        upper.plot(confidence, accuracy, "o", color=COLORS[1], markersize=4, label="at its mean confidence")
        upper.set_ylabel("accuracy")
        upper.set_ylim(0, 1.02)
        upper.set_xlim(0, 1)
        upper.legend(loc="upper left", fontsize=8)
        set_title(figure, title)
        lower.bar(centers, np.asarray(data["count"]) / max(1, sum(data["count"])) * 100, width * 0.94, color=COLORS[5])
        lower.set_ylabel("images, %")
        lower.set_xlabel("confidence (probability of the predicted class)")
        return figure
