"""What a number of seeds can see, before they are spent: paired t tests of several rows against one baseline."""

import math

from scipy import optimize, stats

LEVEL = 0.05
POWER = 0.8
_ROUNDING = 1e-9

MOST_SEEDS = 10_000
"""Where `seeds_needed` gives up."""


def power(difference: float, seeds: int, comparisons: int = 1, level: float = LEVEL) -> float:
    """Return the chance that a paired t test finds a true difference.

    The level is that of Holm's first step, level / comparisons, two-sided (noncentral t; Cohen 1988, Statistical Power
    Analysis for the Behavioral Sciences, chapter 2).

    Args:
        difference: In standard deviations of the paired difference.
        seeds: Of each row, at least 2.
        comparisons: Rows beside the baseline, times swept values.
        level: Of all comparisons together.
    """
    critical, shift = stats.t.isf(level / comparisons / 2, seeds - 1), abs(difference) * math.sqrt(seeds)
    right, wrong = (stats.nct.sf(critical, seeds - 1, sign * shift) for sign in (1, -1))
    return float(right + (0.0 if math.isnan(wrong) else wrong))  # too small for scipy to tell


def smallest_difference(seeds: int, comparisons: int = 1) -> float:
    """Return the smallest difference that is found with a power of 80%, in deviations of the paired difference.

    Args:
        seeds: Of each row; infinite with one, which allows no test.
        comparisons: See `power`.
    """
    if seeds < 2:
        return math.inf
    critical = stats.t.isf(LEVEL / comparisons / 2, seeds - 1)
    upper = 4 * (critical + 2) / math.sqrt(seeds)
    return float(optimize.brentq(lambda difference: power(difference, seeds, comparisons) - POWER, 1e-9, upper))


def seeds_needed(difference: float, comparisons: int = 1, level: float = LEVEL) -> int | None:
    """Return the fewest seeds that find a difference with a power of 80%; None above 10,000.

    Args:
        difference: In standard deviations of the paired difference, above 0.
        comparisons: See `power`.
        level: Likewise.
    """
    low, high = 2, MOST_SEEDS
    if power(difference, high, comparisons, level) < POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if power(difference, middle, comparisons, level) > POWER - _ROUNDING else (middle + 1, high)
        )
    return low
