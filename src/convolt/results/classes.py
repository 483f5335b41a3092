"""The report on classes: each one's figures, and their averages; whatever the figures are."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Report = dict[str, Any]


def report_of(rows: list[dict[str, Any]], matrix: NDArray[np.int64], rates: Sequence[str]) -> Report:
    """Put a report together.

    Args:
        rows: For each class "class", the rates (None where a class has none) and "support".
        matrix: (K, K), counts; rows are true classes, columns predicted ones.
        rates: Names.

    Returns:
        "per_class", the rows; "macro_average", the plain means over classes that have a rate; "weighted_average", the
        means weighted by support; "accuracy" over all that is counted; "support".
    """
    support = np.array([row["support"] for row in rows], dtype=np.float64)
    total = int(matrix.sum())
    macro, weighted = {}, {}
    for name in rates:
        values = np.array([np.nan if row[name] is None else row[name] for row in rows])
        there = np.isfinite(values)
        macro[name] = float(values[there].mean()) if there.any() else 0.0
        weighted[name] = float(support[there] @ values[there] / max(1.0, support[there].sum()))
    return {
        "accuracy": float(matrix.trace() / max(1, total)),
        "support": total,
        "per_class": rows,
        "macro_average": macro | {"support": total},
        "weighted_average": weighted | {"support": total},
    }


def rates_of(report: Report) -> list[str]:
    """Return the names of a report's rates."""
    return [name for name in report["macro_average"] if name != "support"]


def averages(report: Report) -> list[dict[str, Any]]:
    """Return the two last lines of the report in the form of the classes' entries."""
    return [
        {"class": "macro average", **report["macro_average"]},
        {"class": "weighted average", **report["weighted_average"]},
    ]


def report_csv(report: Report) -> str:
    """Write the report as CSV: a line a class, then the macro and the weighted average."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["class", *rates_of(report), "support"])
    writer.writeheader()
    writer.writerows([*report["per_class"], *averages(report)])
    return text.getvalue()


def report_markdown(report: Report) -> str:
    """Write the report as a Markdown table, in percent."""
    rates = rates_of(report)
    lines = [f"| class | {' | '.join(rates)} | support |", "|---|" + "---:|" * (len(rates) + 1)]
    for row in [*report["per_class"], *averages(report)]:
        name = str(row["class"]).replace("|", "\\|")
        shown = " | ".join("" if row[rate] is None else f"{100 * row[rate]:.2f}" for rate in rates)
        lines.append(f"| {name} | {shown} | {row['support']:,} |")
    return "\n".join(lines)
