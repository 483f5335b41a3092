"""A map of images by what the last hidden layer makes of them."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from convolt.figures.style import COLORS, MARKERS, new_figure, set_margins, set_title, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Points = NDArray[np.float32]

_PERPLEXITY = 30.0

_NAME_WIDTH, _NAME_HEIGHT = 95, 12
"""Pixels that a small class name takes on a map."""


def pca(features: Points, dimensions: int) -> tuple[Points, NDArray[np.float64]]:
    """Project on the directions of greatest variance.

    Args:
        features: (N, D).
        dimensions: At most so many; fewer where N or D are smaller.

    Returns:
        (N, dimensions), and the share of the variance of each. Signs are such that the largest weight is positive.
    """
    centerd = features - features.mean(axis=0)
    u, s, v = np.linalg.svd(centerd.astype(np.float64), full_matrices=False)
    kept = min(dimensions, len(s))
    signs = np.sign(v[np.arange(kept), np.abs(v[:kept]).argmax(axis=1)])
    share = s**2 / max(float((s**2).sum()), 1e-300)
    return (u[:, :kept] * s[:kept] * signs).astype(np.float32), share[:kept]


def tsne(features: Points, iterations: int = 300) -> Points:
    """Lay images out so that neighbors stay neighbors: t-SNE (van der Maaten and Hinton 2008), always the same way.

    https://www.jmlr.org/papers/v9/vandermaaten08a.html. The exact form, which for some hundred images takes a third of
    the time of scikit-learn's approximation and its import. It starts from the principal components.

    Args:
        features: (N, D), N of 4 or more; their 50 leading principal components are used.
        iterations: Steps, the first third of them with the similarities exaggerated 12 times.

    Returns:
        (N, 2).
    """
    count = len(features)
    reduced, _ = pca(features, 50)
    similar = _similarities(reduced, min(_PERPLEXITY, (count - 1) / 3))
    layout = np.zeros((count, 2), np.float32)
    layout[:, : reduced.shape[1]] = reduced[:, :2] / max(float(reduced[:, 0].std()), 1e-12) * 1e-4
    step, gains = np.zeros_like(layout), np.ones_like(layout)
    rate = max(count / 12 / 4, 50)
    for iteration in range(iterations):
        early = iteration < iterations // 3
        near = 1 / (1 + _squared_distances(layout))
        np.fill_diagonal(near, 0)
        pull = ((12 if early else 1) * similar - near / max(float(near.sum()), 1e-12)) * near
        gradient = 4 * (pull.sum(1, keepdims=True) * layout - pull @ layout)
        gains = np.where(np.sign(gradient) != np.sign(step), gains + 0.2, gains * 0.8).clip(0.01)
        step = (0.5 if early else 0.8) * step - rate * gains * gradient
        layout = layout + step
    return np.asarray(layout - layout.mean(axis=0), np.float32)


def _squared_distances(points: Points) -> Points:
    """Return (N, N)."""
    squares = np.square(points).sum(axis=1)
    return np.asarray(np.maximum(squares[:, None] + squares[None] - 2 * points @ points.T, 0))


def _similarities(points: Points, perplexity: float) -> Points:
    """Return (N, N) that add up to 1: for each point a Gaussian whose entropy is the logarithm of the perplexity."""
    distances = _squared_distances(points).astype(np.float64)
    distances /= max(float(distances.mean()), 1e-300)
    np.fill_diagonal(distances, np.inf)
    distances -= distances.min(axis=1, keepdims=True)
    low, high = np.full((len(points), 1), 1e-6), np.full((len(points), 1), 1e6)
    finite = np.where(np.isfinite(distances), distances, 0)
    for _ in range(40):  # bisection of all bandwidths at once, on a logarithmic scale
        beta = np.sqrt(low * high)
        weights = np.exp(-beta * distances)
        total = weights.sum(axis=1, keepdims=True)
        entropy = np.log(total) + beta * (finite * weights).sum(axis=1, keepdims=True) / total
        wide = entropy > np.log(perplexity)
        low, high = np.where(wide, beta, low), np.where(wide, high, beta)
    conditional = weights / total
    return np.asarray((conditional + conditional.T) / (2 * len(points)), np.float32)


def draw_projection(maps: dict[str, Points], labels: NDArray[np.int64], classes: list[str], title: str) -> "Figure":
    """Draw maps side by side, colored by class, classes named where most of each lies.

    Args:
        maps: Name with what its axes are ("t-SNE", "PCA, 61% of the variance") to (N, 2).
        labels: (N,) true classes.
        classes: Names.
        title: Above them.
    """
    from matplotlib.patheffects import withStroke

    few = len(classes) <= 20
    with new_figure(0.4 + 4.7 * len(maps), 5.2, layout=None) as figure:
        grid = figure.subplots(1, len(maps), squeeze=False, gridspec_kw={"wspace": 0.17})[0]
        set_margins(figure, left=0.65, bottom=0.48, top=0.78)
        for axes, (name, points) in zip(grid, maps.items(), strict=True):
            for label in np.unique(labels):
                own = points[labels == label]
                color, marker = COLORS[label % len(COLORS)], MARKERS[label // len(COLORS) % len(MARKERS)]
                axes.scatter(own[:, 0], own[:, 1], s=9, c=color, marker=marker, alpha=0.75, linewidths=0)
            written: list[NDArray[np.float64]] = []
            for label in np.unique(labels):
                own = points[labels == label]
                # Where most of the class is: the mean of two clusters would lie in neither.
                near = own[np.square(own[:, None] - own[None]).sum(2).argsort(1)[:, : len(own) // 2 + 1]]
                center = own[np.square(near - own[:, None]).sum((1, 2)).argmin()]
                place = axes.transData.transform(center)
                # Of very many names those that would cover another are left out; map.csv has all.
                if not few and any((np.abs(place - other) < (_NAME_WIDTH, _NAME_HEIGHT)).all() for other in written):
                    continue
                written.append(place)
                axes.text(
                    center[0],
                    center[1],
                    short(classes[label], 16),
                    ha="center",
                    va="center",
                    fontsize=8 if few else 5,
                    fontweight="bold",
                    path_effects=[withStroke(linewidth=2, foreground="white")],
                )
            axes.set_title(name, loc="left", fontsize=9)
            axes.set_xlabel(f"{name.split(',')[0]} 1")
            axes.set_ylabel(f"{name.split(',')[0]} 2")
            axes.tick_params(labelsize=7)
        set_title(figure, title)
        return figure
