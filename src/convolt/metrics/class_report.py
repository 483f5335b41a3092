"""The report on classes: each one's figures, and their averages; whatever the figures are."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convolt.metrics.rates import accuracy, macro_average, number, rates, rows_of

Report = dict[str, Any]


def report_of(
    matrix: NDArray[np.int64], classes: Sequence[str], names: Sequence[str], arithmetic: torch.dtype = torch.float32
) -> Report:
    """Put a report together.

    Args:
        matrix: (K, K), counts; rows are true classes, columns predicted ones.
        classes: Names.
        names: Of the rates.
        arithmetic: In what means over classes are summed up, as the run's metrics are.

    Returns:
        "per_class", a row a class as in `result.json`; "macro_average", the plain means over classes that have a rate,
        and "accuracy" over all that is counted, both equal to the run's metrics bit for bit; "weighted_average", the
        means weighted by support; "support". What has no value is None.
    """
    counts = torch.from_numpy(np.asarray(matrix, np.int64))
    support, total = counts.sum(1).double(), int(counts.sum())
    macro, weighted = {}, {}
    found = rates(counts)
    for name in names:
        values = found[name]
        there = values.isfinite()
        macro[name] = number(macro_average(values, arithmetic))
        weighted[name] = number(support[there] @ values[there] / support[there].sum())
    return {
        "accuracy": number(accuracy(counts)),
        "support": total,
        "per_class": rows_of(matrix, classes, names),
        "macro_average": macro | {"support": total},
        "weighted_average": weighted | {"support": total},
    }


def percent(value: float | None) -> str:
    """Return a rate in percent, or a dash where there is none."""
    return "-" if value is None else f"{100 * value:.2f}%"


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
    names = rates_of(report)
    lines = [f"| class | {' | '.join(names)} | support |", "|---|" + "---:|" * (len(names) + 1)]
    for row in [*report["per_class"], *averages(report)]:
        name = str(row["class"]).replace("|", "\\|")
        shown = " | ".join("" if row[rate] is None else f"{100 * row[rate]:.2f}" for rate in names)
        lines.append(f"| {name} | {shown} | {row['support']:,} |")
    return "\n".join(lines)
