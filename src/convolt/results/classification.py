"""The classification report: each class's figures, and their averages."""

import csv
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convolt.results.record import per_class

RATES = ("accuracy", "precision", "recall", "f1")


def classification_report(matrix: NDArray[np.int64], classes: list[str]) -> dict[str, Any]:
    """Compute the report from a confusion matrix.

    Args:
        matrix: (K, K), counts; rows are true classes, columns predicted ones.
        classes: Names.

    Returns:
        "per_class", as in `result.json` (a class's accuracy is the share of its images that is found, its recall);
        "macro_average", the plain means over classes; "weighted_average", the means weighted by support; "accuracy"
        over images; "support".
    """
    rows = per_class(matrix, classes)
    support = np.array([row["support"] for row in rows], dtype=np.float64)
    values = np.array([[row[name] for name in RATES] for row in rows])
    weighted = support @ values / max(1.0, support.sum())
    total = int(matrix.sum())
    return {
        "accuracy": float(matrix.trace() / max(1, total)),
        "support": total,
        "per_class": rows,
        "macro_average": dict(zip(RATES, values.mean(0).tolist(), strict=True)) | {"support": total},
        "weighted_average": dict(zip(RATES, weighted.tolist(), strict=True)) | {"support": total},
    }


def averages(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the two last lines of the report in the form of the classes' entries."""
    return [
        {"class": "macro average", **report["macro_average"]},
        {"class": "weighted average", **report["weighted_average"]},
    ]


def report_csv(report: dict[str, Any]) -> str:
    """Write the report as CSV: a line a class, then the macro and the weighted average."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["class", *RATES, "support"])
    writer.writeheader()
    writer.writerows([*report["per_class"], *averages(report)])
    return text.getvalue()


def report_markdown(report: dict[str, Any]) -> str:
    """Write the report as a Markdown table, in percent."""
    lines = [f"| class | {' | '.join(RATES)} | support |", "|---|" + "---:|" * (len(RATES) + 1)]
    for row in [*report["per_class"], *averages(report)]:
        name = str(row["class"]).replace("|", "\\|")
        lines.append(f"| {name} | {' | '.join(f'{100 * row[rate]:.2f}' for rate in RATES)} | {row['support']:,} |")
    return "\n".join(lines)
