"""How two rows differ on the same test images: for other seeds and other images alike, and for two trained networks.

The S common seeds and the N images are crossed: d[s, i] is 1 where the row's run of seed s is right about image i and
the baseline's is wrong, -1 the other way round, else 0. Its mean, the difference of the accuracies, varies with the
seeds, with the images, and with what is left:

    d[s, i] = mean + seed[s] + image[i] + rest[s, i]

With the usual mean squares of this two-way layout without replication (Searle, Casella and McCulloch 1992, Variance
Components), (MS_seeds + MS_images - MS_rest) / (S N) estimates the variance of the mean. Its interval adds up squares
of half widths (Banerjee 1960, Sankhya 22, 357-358), which covers at least as often as it says:

    half² = t(S - 1)² · MS_seeds / (S N) + t(N - 1)² · max(0, MS_images - MS_rest) / (S N)

The first part alone is the t interval over seeds, for these images. One t with Satterthwaite's degrees of freedom in
place of two covers 93% at three seeds (docs/log.md): it takes a spread of seeds that is small by chance at its word.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LIMIT = 0.75
"""A source is the limit where it makes this share of the squared interval: without all others it shrinks by 13%."""


@dataclass(frozen=True)
class PairedImages:
    """The difference of two rows on N images over S common seeds.

    Attributes:
        images: N.
        only_row: By seed, how many images the row gets right and the baseline wrong.
        only_baseline: The other way round.
        difference: Mean of d, the row's accuracy less the baseline's.
        seed_variance: MS_seeds / (S N), the variance of the difference over seeds for these images; 0 for one seed.
        image_variance: What images add to it.
        rest_variance: Of the first, what neither seeds nor images explain alone: it shrinks with more of either.
    """

    images: int
    only_row: tuple[int, ...]
    only_baseline: tuple[int, ...]
    difference: float
    seed_variance: float
    image_variance: float
    rest_variance: float

    @property
    def seeds(self) -> int:
        """S."""
        return len(self.only_row)

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of seeds, images and the rest in the variance of the difference; of one seed, all are the images'."""
        total = self.seed_variance + self.image_variance
        return (
            (self.seed_variance - self.rest_variance) / total,
            self.image_variance / total,
            self.rest_variance / total,
        )

    @property
    def p_values(self) -> tuple[float, ...]:
        """By seed, the exact McNemar test (1947, doi:10.1007/BF02295996): are these two networks equally accurate?"""
        pairs = zip(self.only_row, self.only_baseline, strict=True)
        return tuple(float(stats.binomtest(a, a + b).pvalue) if a + b else 1.0 for a, b in pairs)

    def find_half_width(self, critical_values: tuple[float, float] | None = None) -> float:
        """Return half of the interval of the difference.

        Args:
            critical_values: What the two standard errors are multiplied by, of seeds and of images; by default those
                of a 95% interval. Of one seed, only the images' part.
        """
        seeds, images = critical_values or self._student()
        return math.sqrt(seeds**2 * self.seed_variance + images**2 * self.image_variance)

    def find_limit(self, critical_values: tuple[float, float] | None = None) -> str:
        """Return what alone makes the interval as wide as it is: "seeds", "images", or "" for neither."""
        if self.seeds < 2:
            return ""
        seeds, images = critical_values or self._student()
        whole = self.find_half_width((seeds, images)) ** 2
        if images**2 * self.image_variance >= LIMIT * whole:
            return "images"
        return "seeds" if seeds**2 * (self.seed_variance - self.rest_variance) >= LIMIT * whole else ""

    def _student(self) -> tuple[float, float]:
        """Return the critical values of a 95% interval."""
        seeds = float(stats.t.ppf(0.975, self.seeds - 1)) if self.seeds > 1 else 0.0
        return seeds, float(stats.t.ppf(0.975, self.images - 1))


def pair_images(row: NDArray[np.bool_], baseline: NDArray[np.bool_]) -> PairedImages:
    """Compare two rows image by image.

    Args:
        row: (S, N), whether each run is right about each image; S at least 1, N at least 2.
        baseline: The same of the baseline, runs of the same seed in the same place.

    Returns:
        The difference. Half an image right in the row alone and half a one right in the baseline alone are added to
        the images' variance (Agresti and Min 2005, doi:10.1002/sim.1781), so that rows which differ on few images, or
        on none of these, are not taken for equal on all others.
    """
    count, images = row.shape
    only_row, only_baseline = (row & ~baseline).sum(1), (baseline & ~row).sum(1)
    by_seed = only_row - only_baseline
    by_image = row.sum(0, dtype=np.int64) - baseline.sum(0, dtype=np.int64)
    total, cells = int(by_seed.sum()), count * images
    # Exact sums of whole numbers, so that equal seeds spread by nothing: cells times each sum of squares.
    of_seeds = int((by_seed**2).sum()) * count - total**2
    of_images = int((by_image**2).sum()) * images - total**2
    of_all = int((only_row + only_baseline).sum()) * cells - total**2
    seeds_square = of_seeds / cells / (count - 1) if count > 1 else 0.0
    images_square = of_images / cells / (images - 1)
    rest_square = (of_all - of_seeds - of_images) / cells / ((count - 1) * (images - 1)) if count > 1 else 0.0
    return PairedImages(
        images,
        tuple(map(int, only_row)),
        tuple(map(int, only_baseline)),
        total / cells,
        seeds_square / cells,
        max(0.0, images_square - rest_square) / cells + 1 / images**2,
        min(seeds_square, rest_square) / cells,
    )


@dataclass(frozen=True, eq=False)
class Agreement:
    """How often R runs say the same of the same images.

    Attributes:
        predicted: (R, R), share of the images of which two runs predict the same class.
        mistakes: (R, R), of the images that both get wrong, the share that both take for the same class; NaN where
            there is no such image.
    """

    predicted: NDArray[np.float64]
    mistakes: NDArray[np.float64]


def measure_agreement(predicted: Sequence[NDArray[np.int32]], targets: NDArray[np.int32]) -> Agreement:
    """Compare every run with every other.

    Args:
        predicted: By run, (N,), classes.
        targets: (N,), true classes.

    Returns:
        The shares.
    """
    largest = max(int(targets.max()), *(int(one.max()) for one in predicted))
    classes = np.stack([one.astype(np.min_scalar_type(largest)) for one in predicted])  # bytes: a tenth of the time
    equal = np.stack([np.count_nonzero(classes == one, axis=1) for one in classes]).astype(np.float64)
    right = (classes == targets.astype(classes.dtype)).astype(np.float32)
    both_right = (right @ right.T).astype(np.float64)
    own = both_right.diagonal()
    both_wrong = len(targets) - own[:, None] - own[None, :] + both_right
    with np.errstate(invalid="ignore"):
        return Agreement(equal / len(targets), (equal - both_right) / both_wrong)
