"""Power of a paired t test, against simulation and known tables."""

import math

import numpy as np
import pytest
from scipy import stats

from convolt.reports.power import power, seeds_needed, smallest_difference


def test_power_is_what_simulation_gives() -> None:
    x = np.random.default_rng(1).normal(1.5, 1, (40_000, 5))
    found = (stats.ttest_1samp(x, 0, axis=1).pvalue < 0.05 / 3).mean()
    assert power(1.5, 5, comparisons=3) == pytest.approx(found, abs=0.008)
    assert power(0.0, 5) == pytest.approx(0.05)


def test_known_sample_sizes() -> None:
    """Cohen's tables: 34 pairs see half a deviation, 15 see 0.8, with a power of 80% at 5%, two-sided."""
    assert seeds_needed(0.5) == 34
    assert seeds_needed(0.8) == 15
    assert seeds_needed(1e-3) is None


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
def test_smallest_difference_has_the_power(seeds: int) -> None:
    difference = smallest_difference(seeds, comparisons=4)
    assert power(difference, seeds, comparisons=4) == pytest.approx(0.8)
    assert seeds_needed(difference + 1e-6, comparisons=4) == seeds


def test_one_seed_sees_nothing() -> None:
    assert smallest_difference(1) == math.inf
