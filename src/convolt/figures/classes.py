"""The figures of every class, as bars with their numbers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convolt.figures.style import COLORS, longest_width_inches, new_figure, set_margins, set_title, shorten
from convolt.metrics.class_report import average_rows, rate_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = (COLORS[5], COLORS[0], COLORS[4])
_HEADS = {"f1": "F1", "iou": "IoU", "dice": "Dice"}


def draw_classes(
    report: dict[str, Any], title: str, bars_of: Sequence[str] = ("precision", "recall", "f1")
) -> "Figure":
    """Draw bars of each class and of the averages, the table of the same numbers beside them.

    Args:
        report: From `metrics.class_report`; a class that lacks a rate has no bar.
        title: Above it.
        bars_of: Up to three rates that are drawn.
    """
    rows = [*report["per_class"], *average_rows(report)]
    names = [shorten(str(row["class"]), 24) for row in rows]
    many = len(rows) > 30
    size = 5.5 if many else 7.5
    place = np.arange(len(rows), dtype=np.float64)
    place[-2:] += 0.6  # the averages stand apart
    left = 0.5 + longest_width_inches(names, size, 24)
    with new_figure(6.9 + left, 1.5 + len(rows) * (0.155 if many else 0.33), layout=None) as figure:
        bars, table = figure.subplots(1, 2, sharey=True, width_ratios=[1.25, 1], gridspec_kw={"wspace": 0.02})
        set_margins(figure, left=left, bottom=0.72, top=0.78)
        for number, (name, color) in enumerate(zip(bars_of, _COLORS, strict=False)):
            values = [100 * (row[name] or 0) for row in rows]
            bars.barh(place + (number - 1) * 0.27, values, 0.25, color=color, label=_HEADS.get(name, name))
        bars.set_yticks(place, names, fontsize=size)
        bars.set_ylim(place[-1] + 0.6, -0.6)
        bars.set_xlim(0, 100)
        bars.set_xlabel("%")
        bars.set_ylabel("class")
        bars.grid(axis="y", visible=False)
        table.set_axis_off()
        table.set_xlim(0, 1)
        for column, key in enumerate([*rate_names(report), "support"]):
            x = 0.18 + column * 0.2
            table.text(x, -0.62, _HEADS.get(key, key), fontsize=7.5, ha="right", va="bottom", fontweight="bold")
            for y, row in zip(place, rows, strict=True):
                rate = "" if row[key] is None else f"{100 * row[key]:.1f}"
                text = f"{row[key]:,}" if key == "support" else rate
                table.text(x, y, text, fontsize=size, ha="right", va="center")
        set_title(figure, title)
        figure.legend(*bars.get_legend_handles_labels(), loc="lower left", ncols=3, fontsize=8)
        return figure
