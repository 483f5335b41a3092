"""Precision, recall and F1 of every class, as bars with their numbers."""

from typing import TYPE_CHECKING, Any

import numpy as np

from convolt.pictures.style import COLORS, longest, new_figure, set_margins, set_title, short
from convolt.results.classification import averages

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BARS = {"precision": COLORS[5], "recall": COLORS[0], "f1": COLORS[4]}


def draw_classes(report: dict[str, Any], title: str) -> "Figure":
    """Draw bars of each class and of the averages, the table of the same numbers beside them.

    Args:
        report: From `results.classification.classification_report`.
        title: Above it.
    """
    rows = [*report["per_class"], *averages(report)]
    names = [short(str(row["class"]), 24) for row in rows]
    many = len(rows) > 30
    size = 5.5 if many else 7.5
    place = np.arange(len(rows), dtype=np.float64)
    place[-2:] += 0.6  # the averages stand apart
    left = 0.5 + longest(names, size, 24)
    with new_figure(6.9 + left, 1.5 + len(rows) * (0.155 if many else 0.33), layout=None) as figure:
        bars, table = figure.subplots(1, 2, sharey=True, width_ratios=[1.25, 1], gridspec_kw={"wspace": 0.02})
        set_margins(figure, left=left, bottom=0.72, top=0.78)
        for number, (name, color) in enumerate(_BARS.items()):
            values = [100 * row[name] for row in rows]
            bars.barh(place + (number - 1) * 0.27, values, 0.25, color=color, label="F1" if name == "f1" else name)
        bars.set_yticks(place, names, fontsize=size)
        bars.set_ylim(place[-1] + 0.6, -0.6)
        bars.set_xlim(0, 100)
        bars.set_xlabel("%")
        bars.set_ylabel("class")
        bars.grid(axis="y", visible=False)
        table.set_axis_off()
        table.set_xlim(0, 1)
        heads = {"accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "F1", "support": "support"}
        for column, (key, head) in enumerate(heads.items()):
            x = 0.18 + column * 0.2
            table.text(x, -0.62, head, fontsize=7.5, ha="right", va="bottom", fontweight="bold")
            for y, row in zip(place, rows, strict=True):
                text = f"{row[key]:,}" if key == "support" else f"{100 * row[key]:.1f}"
                table.text(x, y, text, fontsize=size, ha="right", va="center")
        set_title(figure, title)
        figure.legend(*bars.get_legend_handles_labels(), loc="lower left", ncols=3, fontsize=8)
        return figure
