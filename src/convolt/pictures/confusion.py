"""Confusion matrices as heat maps."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from convolt.pictures.style import annotate, class_ticks, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ANNOTATED = 20
"""Classes up to which every cell has its number."""


def rates(matrix: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (K, K) shares of each true class in percent; a class without images has zeros."""
    counts = np.asarray(matrix, dtype=np.float64)
    return np.asarray(100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def draw_rates(matrix: NDArray[np.float64] | NDArray[np.int64], classes: list[str], title: str) -> "Figure":
    """Draw the share of each true class that was taken for each class.

    Args:
        matrix: (K, K) counts; rows are true classes, columns predicted ones.
        classes: Names of the K classes.
        title: Above it; lines are separated by newlines.
    """
    few = len(classes) <= 10
    return _draw(
        rates(matrix),
        classes,
        title,
        label="share of the true class, %",
        top=100.0,
        text=lambda value: f"{value:.1f}" if few else f"{value:.0f}",
    )


def draw_counts(matrix: NDArray[np.int64], classes: list[str], title: str) -> "Figure":
    """Draw the number of images of each true class that were taken for each class; colours go by the square root.

    Args:
        matrix: (K, K) counts; rows are true classes, columns predicted ones.
        classes: Names of the K classes.
        title: Above it.
    """
    counts = np.asarray(matrix, dtype=np.float64)
    top = max(1.0, float(counts.max(initial=0)))
    return _draw(
        counts,
        classes,
        title,
        label="images (colours by the square root)",
        top=top,
        root=True,
        text=lambda value: f"{value:.0f}",
    )


def _draw(
    values: NDArray[np.float64],
    classes: list[str],
    title: str,
    *,
    label: str,
    top: float,
    text: Callable[[float], str],
    root: bool = False,
) -> "Figure":
    from matplotlib.colors import PowerNorm

    size = 5.2 if len(classes) <= _ANNOTATED else 8.5
    with new_figure(size + 0.6, size) as figure:
        axes = figure.subplots()
        # Square roots show the few mistakes beside the many hits.
        norm = PowerNorm(0.5 if root else 1.0, vmin=0, vmax=top)
        image = axes.imshow(values, cmap="cividis", norm=norm, interpolation="nearest")
        figure.colorbar(image, ax=axes, label=label, shrink=0.8, pad=0.02)
        if len(classes) <= _ANNOTATED:
            annotate(axes, values, image, text)
        class_ticks(axes.set_xticks, classes, rotation=45 if len(classes) <= _ANNOTATED else 90)
        class_ticks(axes.set_yticks, classes)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        axes.grid(visible=False)
        axes.set_title(title, loc="left")
        return figure
