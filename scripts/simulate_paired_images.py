"""Measure how often the interval for new seeds and new images holds the true difference, without training.

    python scripts/simulate_paired_images.py                 two tables in Markdown; some ten minutes on one core
    python scripts/simulate_paired_images.py --studies 500   a rough one in a minute

A run is right about an image where a normal score is positive: the sum of the row's mean, the image's ease for all rows
and for this row, the seed's luck with all images, and noise. So the true accuracy over all seeds and images is known:
Φ(mean / √(1 + variances)). Beside the interval of reports stand those of Satterthwaite's degrees of freedom and of the
seeds alone.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from convolt.reports.paired_images import PairedImages, pair_images
from convolt.reports.sequential import USUAL_LOOKS, critical_values


@dataclass(frozen=True)
class Scenario:
    """Pairs of rows of one kind; variances are in that of the noise, 1.

    Attributes:
        name: What a reader calls it.
        accuracy: Of the baseline and the row, over all seeds and images.
        common: Variance of images, the same for both rows.
        images: Variance of images, of each row by itself.
        seeds: Variance of seeds, of each row by itself.
    """

    name: str
    accuracy: tuple[float, float]
    common: float = 4.0
    images: float = 0.0
    seeds: float = 0.0

    def draw(self, generator: np.random.Generator, seeds: int, images: int) -> list[NDArray[np.bool_]]:
        """Draw which images runs are right about: of the baseline and of the row, (S, N)."""
        ease = math.sqrt(self.common) * generator.standard_normal(images, dtype=np.float32)
        right = []
        for accuracy in self.accuracy:
            mean = stats.norm.ppf(accuracy) * math.sqrt(1 + self.common + self.images + self.seeds)
            own = math.sqrt(self.images) * generator.standard_normal(images, dtype=np.float32)
            luck = math.sqrt(self.seeds) * generator.standard_normal((seeds, 1), dtype=np.float32)
            noise = generator.standard_normal((seeds, images), dtype=np.float32)
            right.append(mean + ease + own + luck + noise > 0)
        return right


SCENARIOS = (
    Scenario("neither seeds nor images vary", (0.9, 0.9), common=0.0),
    Scenario("images are hard for both rows alike", (0.9, 0.9)),
    Scenario("images dominate", (0.8, 0.82), images=4.0),
    Scenario("seeds dominate", (0.8, 0.82), common=1.0, seeds=0.05),
    Scenario("both vary alike", (0.8, 0.82), common=1.0, images=2.0, seeds=0.005),
    Scenario("both vary, and images more", (0.9, 0.93), common=2.0, images=3.0, seeds=0.002),
    Scenario("rows differ on few images", (0.98, 0.99), common=30.0, images=1.0),
)
IMAGES_TO_SEEDS = (0.0, 0.05, 0.3, 1.0, 3.0)
"""Variance that images add to a difference, in that of one seed."""


def satterthwaite(found: PairedImages) -> float:
    """Return half of the interval by one t with Satterthwaite's degrees of freedom, at least those of the seeds."""
    seeds, images, rest = found.seed_variance, found.image_variance, found.rest_variance
    s, n = found.seeds - 1, found.images - 1
    squares = seeds**2 / s + (images + rest) ** 2 / n + rest**2 / (s * n)
    freedom = max(s, (seeds + images) ** 2 / squares)
    return float(stats.t.ppf(0.975, freedom)) * math.sqrt(seeds + images)


def simulate(scenario: Scenario, seeds: int, images: int, studies: int) -> tuple[list[float], float]:
    """Run a scenario.

    Returns:
        How often the intervals of reports, of Satterthwaite and of the seeds alone hold the true difference; and the
        images' mean share of the variance.
    """
    generator = np.random.default_rng([seeds, images])
    true = scenario.accuracy[1] - scenario.accuracy[0]
    t = float(stats.t.ppf(0.975, seeds - 1))
    held, share = np.zeros(3), 0.0
    for _ in range(studies):
        baseline, row = scenario.draw(generator, seeds, images)
        found = pair_images(row, baseline)
        halves = (found.find_half_width(), satterthwaite(found), t * math.sqrt(found.seed_variance))
        held += [abs(found.difference - true) <= half for half in halves]
        share += found.shares[1]
    return [float(one) for one in held / studies], share / studies


def simulate_looks(comparisons: int, ratio: float, studies: int) -> tuple[float, ...]:
    """Return how often one row of a settled study misses its true difference at any look.

    Scores are normal, and images the same at every look. The images' standard error is multiplied by Student's t at the
    row's share of the error, by the last look's critical value as in reports, or by that of each look.

    Args:
        comparisons: That share an error of 5%.
        ratio: What images add to the variance, in that of one seed.
        studies: Drawn.
    """
    generator = np.random.default_rng([comparisons, 2])
    values = critical_values(USUAL_LOOKS, 0.05, comparisons)
    seeds = generator.standard_normal((studies, USUAL_LOOKS[-1]), dtype=np.float32)
    shift = math.sqrt(ratio) * generator.standard_normal(studies)
    missed = np.zeros((3, studies), dtype=bool)
    for n, value in zip(USUAL_LOOKS, values, strict=True):
        mean, variance = seeds[:, :n].mean(1) + shift, seeds[:, :n].var(1, ddof=1) / n
        for rule, of_images in enumerate((stats.norm.isf(0.025 / comparisons), values[-1], value)):
            missed[rule] |= mean**2 > value**2 * variance + of_images**2 * ratio
    return tuple(float(one) for one in missed.mean(1))


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=10_000, help="of each line of the table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5, 10])
    parser.add_argument("--images", type=int, nargs="+", default=[200, 2000])
    arguments = parser.parse_args(argv)
    print("| pairs of rows of which | seeds | images | share of images | covered | Satterthwaite | seeds alone |")
    print("|---|---|---|---|---|---|---|")
    for scenario in SCENARIOS:
        for seeds in arguments.seeds:
            for images in arguments.images:
                held, share = simulate(scenario, seeds, images, arguments.studies)
                numbers = " | ".join(f"{one:.1%}" for one in held)
                print(f"| {scenario.name} | {seeds} | {images:,} | {share:.0%} | {numbers} |", flush=True)
    print("\n| comparisons | images to seeds | allowed | missed, t | missed, the last look's | missed, each look's |")
    print("|---|---|---|---|---|---|")
    for comparisons in (1, 3, 10):
        for ratio in IMAGES_TO_SEEDS:
            missed = " | ".join(f"{one:.2%}" for one in simulate_looks(comparisons, ratio, 40 * arguments.studies))
            print(f"| {comparisons} | {ratio:g} | {0.05 / comparisons:.2%} | {missed} |", flush=True)


if __name__ == "__main__":
    main()
