"""The report on the classes: the rates of each, and their averages."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convolt.metrics.rates import accuracy, finite_or_none, macro_average, per_class_rates, rates

Report = dict[str, Any]

CLASSIFICATION_RATES = ("accuracy", "precision", "recall", "f1")
"""The rates of a class of images; its accuracy is its recall."""

SEGMENTATION_RATES = ("iou", "dice", "precision", "recall")
"""The rates of a class of pixels."""


def classification_report(matrix: NDArray[np.int64], classes: Sequence[str]) -> Report:
    """Compute the report from a confusion matrix (K, K) of images; rows are true classes.

    Returns:
        "per_class", a row a class as in `result.json`; "macro_average", the plain means over classes that have a rate,
        and "accuracy" over all that is counted, both equal to the run's metrics bit for bit; "weighted_average", the
        means weighted by support; "support". What has no value is None.
    """
    return _make_report(matrix, classes, CLASSIFICATION_RATES, torch.float32)


def segmentation_report(matrix: NDArray[np.int64], classes: Sequence[str]) -> Report:
    """Compute the report from a confusion matrix (K, K) of pixels; see `classification_report`."""
    return _make_report(matrix, classes, SEGMENTATION_RATES, torch.float64)


def _make_report(matrix: NDArray[np.int64], classes: Sequence[str], names: Sequence[str], dtype: torch.dtype) -> Report:
    """Compute a report of these rates; means over classes are summed in `dtype`, as the run's metrics are."""
    counts = torch.from_numpy(np.asarray(matrix, np.int64))
    support, total = counts.sum(1).double(), int(counts.sum())
    macro, weighted, by_class = {}, {}, rates(counts)
    for name in names:
        valid, values = by_class[name].isfinite(), by_class[name]
        macro[name] = finite_or_none(macro_average(values, dtype))
        weighted[name] = finite_or_none(support[valid] @ values[valid] / support[valid].sum())
    return {
        "accuracy": finite_or_none(accuracy(counts)),
        "support": total,
        "per_class": per_class_rates(matrix, classes, names),
        "macro_average": {**macro, "support": total},
        "weighted_average": {**weighted, "support": total},
    }


def format_percent(value: float | None) -> str:
    """Return a rate in percent, or a dash where there is none."""
    return "-" if value is None else f"{100 * value:.2f}%"


def rate_names(report: Report) -> list[str]:
    """Return the names of a report's rates."""
    return [name for name in report["macro_average"] if name != "support"]


def average_rows(report: Report) -> list[dict[str, Any]]:
    """Return the two last lines of the report in the form of the classes' entries."""
    return [
        {"class": "macro average", **report["macro_average"]},
        {"class": "weighted average", **report["weighted_average"]},
    ]


def report_csv(report: Report) -> str:
    """Write the report as CSV: a line a class, then the macro and the weighted average."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["class", *rate_names(report), "support"])
    writer.writeheader()
    writer.writerows([*report["per_class"], *average_rows(report)])
    return text.getvalue()


def report_markdown(report: Report) -> str:
    """Write the report as a Markdown table, in percent."""
    names = rate_names(report)
    lines = [f"| class | {' | '.join(names)} | support |", "|---|" + "---:|" * (len(names) + 1)]
    for row in [*report["per_class"], *average_rows(report)]:
        name = str(row["class"]).replace("|", "\\|")
        shown = " | ".join("" if row[rate] is None else f"{100 * row[rate]:.2f}" for rate in names)
        lines.append(f"| {name} | {shown} | {row['support']:,} |")
    return "\n".join(lines)
