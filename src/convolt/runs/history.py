"""The numbers of a run's epochs: metrics.csv."""

import csv
import io
import math
from pathlib import Path

Row = dict[str, float]
"""An epoch's numbers by name."""


def read_rows(file: Path) -> list[Row]:
    """Read the rows of a metrics.csv; none where there is no such file."""
    if not file.exists():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(lines)]


def rows_to_csv(rows: list[Row]) -> str:
    """Write rows as CSV: a column for each name, and nothing where a row has no such number."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    for row in rows:
        writer.writerow({k: int(v) if k == "epoch" else v for k, v in row.items() if not math.isnan(v)})
    return text.getvalue()
