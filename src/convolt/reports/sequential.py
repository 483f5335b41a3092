"""When enough seeds have run: paired differences judged at planned looks, with one error rate over all rows and looks.

At each look a row's interval is the repeated confidence interval (Jennison and Turnbull 1989, Journal of the Royal
Statistical Society B 51, 305-361): mean ± c · s / √n, whose critical values c are larger than Student's t, so that all
intervals of all looks and rows hold their true differences together with probability 1 - error. Rows share the error
by Bonferroni's rule, looks by linear spending (Lan and DeMets 1983, Biometrika 70, 659-663).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["told", "negligible", "hopeless", "open", "undecided"]

HOPELESS = 0.1
"""A row stops where the chance of a verdict of "told" or "negligible" by the last look is smaller."""

_NULL_STUDIES = 4_000_000
_NULL_CHUNK = 500_000
_FUTURES = 4_000

USUAL_LOOKS = (3, 5, 8, 12, 20)
USUAL_ERROR = 0.05
USUAL_CRITICAL_VALUES = {
    1: (11.4820, 5.3821, 3.5739, 2.9387, 2.4083),
    2: (16.2840, 6.5650, 4.1500, 3.3563, 2.7625),
    3: (19.9625, 7.3520, 4.4999, 3.6018, 2.9604),
    4: (23.0615, 7.9502, 4.7592, 3.7759, 3.0979),
    5: (25.7908, 8.4683, 4.9586, 3.9106, 3.2043),
    6: (28.2577, 8.8857, 5.1298, 4.0206, 3.2866),
    7: (30.5259, 9.2750, 5.2790, 4.1160, 3.3594),
    8: (32.6369, 9.6009, 5.4072, 4.1941, 3.4204),
    9: (34.6194, 9.9543, 5.5291, 4.2684, 3.4748),
    10: (36.4943, 10.2714, 5.6314, 4.3326, 3.5253),
    11: (38.2775, 10.5237, 5.7301, 4.3935, 3.5676),
    12: (39.9812, 10.7587, 5.8149, 4.4475, 3.6078),
}
"""Of the usual looks and error, by the number of comparisons: what `simulate_critical_values` finds, rounded."""


@dataclass(frozen=True)
class Design:
    """What is fixed before the first look.

    Attributes:
        looks: Numbers of seeds at which the differences are judged, increasing, each at least 2.
        error: The chance of any wrong verdict in the whole study.
        comparisons: Rows beside the baseline, times swept values.
        margin: Differences smaller than this do not matter; None: no row is called negligible.
        critical_values: By look, what the standard error is multiplied by.
    """

    looks: tuple[int, ...]
    error: float
    comparisons: int
    margin: float | None
    critical_values: tuple[float, ...]

    @classmethod
    def plan(cls, looks: Sequence[int], error: float, comparisons: int, margin: float | None) -> "Design":
        """Work out the critical values; takes a second for looks that are not the usual ones."""
        values = critical_values(tuple(looks), error, comparisons)
        return cls(tuple(looks), error, comparisons, margin, values)


@dataclass(frozen=True)
class Judgment:
    """What the differences of one row say at a look.

    Attributes:
        verdict: "told" where the interval excludes 0, "negligible" where it lies inside ± margin, "hopeless" where
            neither is likely to come, "open" where the looks are used up, else "undecided": more seeds.
        n: Seeds, those of the look at which the row stopped.
        mean: Of the paired differences.
        low: Lower end of the repeated confidence interval.
        high: Its upper end.
        chance: Of "told" or "negligible" by the last look, as it was predicted; None where it was not asked for.
    """

    verdict: Verdict
    n: int
    mean: float
    low: float
    high: float
    chance: float | None = None


def judge(design: Design, differences: Sequence[float]) -> Judgment | None:
    """Judge a row at each look that its seeds allow, and stop at the first verdict.

    Args:
        design: The plan.
        differences: Row less baseline, paired by seed, in the order of the seeds; more than the looks need are ignored.

    Returns:
        The judgment of the look at which the row stopped, or of the last look reached; None before the first.
    """
    judgment = None
    for index, n in enumerate(design.looks):
        if len(differences) < n:
            break
        judgment = _judge_at(design, index, np.asarray(differences[:n], dtype=np.float64))
        if judgment.verdict != "undecided":
            break
    return judgment


def _judge_at(design: Design, index: int, x: NDArray[np.float64]) -> Judgment:
    """Judge a row at one look."""
    n, mean, deviation = len(x), float(x.mean()), float(x.std(ddof=1))
    if np.ptp(x) <= 1e-12 * float(np.abs(x).max()):
        deviation = 0.0
    half = design.critical_values[index] * deviation / math.sqrt(n)
    low, high = mean - half, mean + half
    last = index == len(design.looks) - 1
    if deviation == 0:  # equal numbers by rounding are no evidence: no interval has no width
        return Judgment("open" if last else "undecided", n, mean, low, high)
    if low > 0 or high < 0:
        return Judgment("told", n, mean, low, high)
    if design.margin is not None and -design.margin < low and high < design.margin:
        return Judgment("negligible", n, mean, low, high)
    if last:
        return Judgment("open", n, mean, low, high)
    chance = chance_of_verdict(design, index, mean, deviation)
    return Judgment("hopeless" if chance < HOPELESS else "undecided", n, mean, low, high, chance)


def chance_of_verdict(design: Design, index: int, mean: float, deviation: float) -> float:
    """Predict how likely "told" or "negligible" is at a later look.

    Means and deviations that the seeds so far make plausible (the posterior under the usual flat prior) are drawn, and
    further seeds from each; the random numbers are the same each time.

    Args:
        design: The plan.
        index: The look that has been reached.
        mean: Of the differences so far.
        deviation: Their sample standard deviation, not 0.
    """
    generator = np.random.default_rng(0)
    n = design.looks[index]
    sigma = deviation * np.sqrt((n - 1) / generator.chisquare(n - 1, _FUTURES))
    true_mean = mean + sigma / math.sqrt(n) * generator.standard_normal(_FUTURES)
    total = np.full(_FUTURES, n * mean)
    squares = np.full(_FUTURES, (n - 1) * deviation**2 + n * mean**2)
    settled = np.zeros(_FUTURES, dtype=bool)
    for later, before in zip(range(index + 1, len(design.looks)), design.looks[index:], strict=False):
        size = design.looks[later]
        step, step_squares = _further(generator, size - before, _FUTURES)
        squares += sigma**2 * step_squares + 2 * sigma * true_mean * step + (size - before) * true_mean**2
        total += sigma * step + (size - before) * true_mean
        half = design.critical_values[later] * np.sqrt(_variance(total, squares, size) / size)
        settled |= np.abs(total / size) > half
        if design.margin is not None:
            settled |= np.abs(total / size) + half < design.margin
    return float(settled.mean())


def critical_values(looks: tuple[int, ...], error: float, comparisons: int) -> tuple[float, ...]:
    """Return by look what the standard error is multiplied by.

    Args:
        looks: Numbers of seeds, increasing.
        error: Of the whole study.
        comparisons: That share the error.
    """
    if looks == USUAL_LOOKS and error == USUAL_ERROR and comparisons in USUAL_CRITICAL_VALUES:
        return USUAL_CRITICAL_VALUES[comparisons]
    return simulate_critical_values(looks, error / comparisons)


@cache
def simulate_critical_values(looks: tuple[int, ...], level: float) -> tuple[float, ...]:
    """Find the critical values of one comparison by simulating studies without any difference.

    At each look, of the studies that no earlier look has stopped, so many are to be stopped that those stopped so far
    are `level` · n / (last n) of all. The first value is Student's t, exactly; the simulated t statistics of the others
    are those of normal differences of unknown variance. The random numbers are the same each time.

    Args:
        looks: Numbers of seeds, increasing.
        level: The chance that any look tells a difference where there is none.
    """
    from scipy import stats  # takes half a second, and the usual looks need none of it

    statistics = np.concatenate(
        [_null_statistics(looks, np.random.default_rng([0, i])) for i in range(_NULL_STUDIES // _NULL_CHUNK)], axis=1
    )
    first = float(stats.t.isf(level * looks[0] / looks[-1] / 2, looks[0] - 1))
    values = [first]
    alive = statistics[:, statistics[0] <= first]
    for index, n in enumerate(looks[1:], 1):
        spend = level * (n - looks[index - 1]) / looks[-1] * statistics.shape[1]
        at_look = alive[index]
        value = float(np.partition(at_look, -round(spend))[-round(spend)])
        values.append(value)
        alive = alive[:, at_look <= value]
    return tuple(values)


def _null_statistics(looks: Sequence[int], generator: np.random.Generator) -> NDArray[np.float32]:
    """Return |t| of simulated studies without any difference, (looks, studies)."""
    total, squares = np.zeros(_NULL_CHUNK), np.zeros(_NULL_CHUNK)
    found = np.empty((len(looks), _NULL_CHUNK), dtype=np.float32)
    for index, (n, before) in enumerate(zip(looks, (0, *looks), strict=False)):
        step, step_squares = _further(generator, n - before, _NULL_CHUNK)
        total += step
        squares += step_squares
        found[index] = np.abs(total) / np.sqrt(n * _variance(total, squares, n))
    return found


def _further(
    generator: np.random.Generator, count: int, studies: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw the sum and the sum of squares of `count` standard normal numbers, for each study."""
    total = math.sqrt(count) * generator.standard_normal(studies)
    squares = total**2 / count
    if count > 1:
        squares += generator.chisquare(count - 1, studies)
    return total, squares


def _variance(total: NDArray[np.float64], squares: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return sample variances from sums and sums of squares of n numbers."""
    return np.maximum(squares - total**2 / n, 0) / (n - 1)
