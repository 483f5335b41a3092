"""A map of images by their features in the last hidden layer."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convolt.figures.style import COLORS, MARKERS, new_figure, set_margins, set_title, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Points = NDArray[np.float32]

_NAME_WIDTH, _NAME_HEIGHT = 95, 12
"""Pixels that a small class name takes on a map."""


def pca(features: Points, dimensions: int) -> tuple[Points, NDArray[np.float64]]:
    """Project (N, D) on the directions of greatest variance; NumPy's, since importing scikit-learn takes a second.

    Returns:
        (N, dimensions), fewer where N or D are smaller, and each direction's share of the variance. The largest weight
        of a direction is positive.
    """
    centered = features - features.mean(axis=0)
    u, s, v = np.linalg.svd(centered.astype(np.float64), full_matrices=False)
    signs = np.sign(v[np.arange(len(s)), np.abs(v).argmax(axis=1)])
    share = s**2 / max(float((s**2).sum()), 1e-300)
    return (u * s * signs)[:, :dimensions].astype(np.float32), share[:dimensions]


def tsne(features: Points) -> Points:
    """Lay (N, D) out in (N, 2) so that neighbors stay neighbors (van der Maaten and Hinton 2008), the same every time.

    https://www.jmlr.org/papers/v9/vandermaaten08a.html, of the 50 leading principal components, from the first two of
    them. N is at least 4; 500 of scikit-learn's usual 1,000 iterations keep neighbors as well.
    """
    from sklearn.manifold import TSNE

    reduced, _ = pca(features, 50)
    start = np.zeros((len(features), 2), np.float32)
    start[:, : reduced.shape[1]] = reduced[:, :2] / max(float(reduced[:, 0].std()), 1e-12) * 1e-4
    perplexity = min(30.0, (len(features) - 1) / 3)
    return np.asarray(TSNE(2, perplexity=perplexity, max_iter=500, init=start, random_state=0).fit_transform(reduced))


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
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8 if few else 5, "fontweight": "bold"}
    style["path_effects"] = [withStroke(linewidth=2, foreground="white")]
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
                # Of very many names those that would cover another are omitted; map.csv has all.
                if not few and any((np.abs(place - other) < (_NAME_WIDTH, _NAME_HEIGHT)).all() for other in written):
                    continue
                written.append(place)
                axes.text(*center, shorten(classes[label], 16), **style)
            axes.set_title(name, loc="left", fontsize=9)
            axes.set(xlabel=f"{name.split(',')[0]} 1", ylabel=f"{name.split(',')[0]} 2")
            axes.tick_params(labelsize=7)
        set_title(figure, title)
        return figure
