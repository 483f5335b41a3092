"""Confusion matrices as heat maps.

Not by scikit-learn's ConfusionMatrixDisplay, whose import takes a second, nor by torchmetrics, which needs pyplot.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from convolt.figures.style import annotate, longest_width_inches, new_figure, set_class_ticks, set_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Matrix = NDArray[np.float64]
Format = Callable[[float], str]

_ANNOTATED = 20
"""Classes up to which every cell has its number."""


def rates_in_percent(matrix: Matrix | NDArray[np.int64]) -> Matrix:
    """Return (K, K) shares of each true class in percent; a class without images has none, not zeros."""
    counts = np.asarray(matrix, dtype=np.float64)
    total = counts.sum(axis=1, keepdims=True)
    return np.asarray(100 * counts / np.where(total > 0, total, np.nan))


def draw_rates(matrix: Matrix | NDArray[np.int64], classes: list[str], title: str) -> "Figure":
    """Draw the share of each true class that was taken for each class.

    Args:
        matrix: (K, K) counts; rows are true classes, columns predicted ones.
        classes: Names of the K classes.
        title: Above it; lines are separated by newlines.
    """
    rates, format_cell = rates_in_percent(matrix), ("{:.1f}" if len(classes) <= 10 else "{:.0f}").format
    return _draw_heat_map(rates, classes, title, "share of the true class, %", 100, 1, format_cell)


def draw_counts(matrix: NDArray[np.int64], classes: list[str], title: str, unit: str = "images") -> "Figure":
    """Draw the number of images of each true class that were taken for each class; colors go by the square root.

    Args:
        matrix: (K, K) counts; rows are true classes, columns predicted ones.
        classes: Names of the K classes.
        title: Above it.
        unit: What is counted.
    """
    counts = np.asarray(matrix, np.float64)
    label = f"{unit} (colors by the square root)"  # which shows the few mistakes beside the many hits
    return _draw_heat_map(counts, classes, title, label, max(1, counts.max(initial=0)), 0.5, _format_count)


def _format_count(count: float) -> str:
    return f"{count:.0f}" if count < 1e5 else f"{count / 1e3:.0f}k"


def _draw_heat_map(
    values: Matrix, classes: list[str], title: str, label: str, top: float, exponent: float, format_cell: Format
) -> "Figure":
    from matplotlib.colors import PowerNorm

    few = len(classes) <= _ANNOTATED
    side, names = (4.1, longest_width_inches(classes, 8)) if few else (7.4, longest_width_inches(classes, 5))
    left, below, above = 0.6 + names, 0.55 + names * (0.75 if few else 1), 0.2 + 0.17 * (title.count("\n") + 1)
    width, height = left + side + 1.15, below + side + above
    with new_figure(width, height, layout=None) as figure:
        axes = figure.add_axes((left / width, below / height, side / width, side / height))
        place = ((left + side + 0.15) / width, (below + 0.1 * side) / height, 0.17 / width, 0.8 * side / height)
        norm = PowerNorm(exponent, vmin=0, vmax=top)
        image = axes.imshow(values, cmap="cividis", norm=norm, interpolation="nearest")
        figure.colorbar(image, cax=figure.add_axes(place), label=label)
        if few:
            annotate(axes, values, image, format_cell)
        set_class_ticks(axes.set_xticks, classes, rotation=45 if few else 90)
        set_class_ticks(axes.set_yticks, classes)
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.grid(visible=False)
        set_title(figure, title)
        return figure
