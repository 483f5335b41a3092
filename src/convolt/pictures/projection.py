"""A map of images by what the last hidden layer makes of them."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from convolt.pictures.style import COLORS, MARKERS, new_figure, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Points = NDArray[np.float32]

_PERPLEXITY = 30.0


def pca(features: Points, dimensions: int) -> tuple[Points, NDArray[np.float64]]:
    """Project on the directions of greatest variance.

    Args:
        features: (N, D).
        dimensions: At most so many; fewer where N or D are smaller.

    Returns:
        (N, dimensions), and the share of the variance of each. Signs are such that the largest weight is positive.
    """
    centred = features - features.mean(axis=0)
    u, s, v = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    kept = min(dimensions, len(s))
    signs = np.sign(v[np.arange(kept), np.abs(v[:kept]).argmax(axis=1)])
    share = s**2 / max(float((s**2).sum()), 1e-300)
    return (u[:, :kept] * s[:kept] * signs).astype(np.float32), share[:kept]


def tsne(features: Points) -> Points:
    """Lay images out so that neighbours stay neighbours (van der Maaten and Hinton 2008), always the same way.

    Args:
        features: (N, D), N of 4 or more; the 50 leading principal components are enough for it.

    Returns:
        (N, 2).
    """
    from sklearn.manifold import TSNE

    reduced, _ = pca(features, 50)
    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    start = reduced[:, :2] / max(float(reduced[:, 0].std()), 1e-12) * 1e-4
    if start.shape[1] < 2:
        start = np.pad(start, ((0, 0), (0, 1)))
    layout = TSNE(2, perplexity=perplexity, init=start, max_iter=300, random_state=0)
    return np.asarray(layout.fit_transform(reduced), np.float32)


def draw_projection(maps: dict[str, Points], labels: NDArray[np.int64], classes: list[str], title: str) -> "Figure":
    """Draw maps side by side, coloured by class, each class named where most of it lies.

    Args:
        maps: Name with what its axes are ("t-SNE", "PCA, 61% of the variance") to (N, 2).
        labels: (N,) true classes.
        classes: Names.
        title: Above them.
    """
    from matplotlib.patheffects import withStroke

    few = len(classes) <= 20
    with new_figure(4.9 * len(maps), 5.2) as figure:
        for axes, (name, points) in zip(np.atleast_1d(figure.subplots(1, len(maps))), maps.items(), strict=True):
            for label in np.unique(labels):
                own = points[labels == label]
                color, marker = COLORS[label % len(COLORS)], MARKERS[label // len(COLORS) % len(MARKERS)]
                axes.scatter(own[:, 0], own[:, 1], s=9, c=color, marker=marker, alpha=0.75, linewidths=0)
            for label in np.unique(labels):
                own = points[labels == label]
                # Where most of the class is: the mean of two clusters would lie in neither.
                near = own[np.square(own[:, None] - own[None]).sum(2).argsort(1)[:, : len(own) // 2 + 1]]
                centre = own[np.square(near - own[:, None]).sum((1, 2)).argmin()]
                axes.text(
                    centre[0],
                    centre[1],
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
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
        return figure
