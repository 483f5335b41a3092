"""Statistics against scipy, and against values worked out by hand."""
# ruff: noqa: RUF001 (the dash of empty cells)

import math

import numpy as np
import pytest
from scipy import stats

from convolt.reports.formats import Metric
from convolt.reports.statistics import compare, correct_p_values, holm, summarize


def test_summary_by_hand() -> None:
    # 2, 4, 6: mean 4; squares of deviations 4 + 0 + 4 = 8, / (3 - 1) = 4, s = 2;
    # t(0.975, 2) = 4.30265, half = 4.30265 * 2 / √3 = 4.96828
    s = summarize([6.0, 2.0, 4.0])
    assert (s.n, s.mean, s.deviation, s.best, s.worst) == (3, 4.0, 2.0, 6.0, 2.0)
    assert s.half_width == pytest.approx(4.96828, abs=1e-5)
    assert (s.low, s.high) == pytest.approx((4 - 4.96828, 4 + 4.96828), abs=1e-5)
    assert summarize([6.0, 2.0, 4.0], lower_is_better=True).best == 2.0


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_summary_is_scipys(n: int) -> None:
    x = np.random.default_rng(n).normal(0.8, 0.01, n)
    s = summarize(list(x))
    interval = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert (s.low, s.high) == pytest.approx(tuple(interval))
    assert s.deviation == pytest.approx(stats.tstd(x))


def test_one_run_has_no_interval() -> None:
    s = summarize([0.5])
    assert (s.n, s.mean, s.deviation, s.low, s.high, s.half_width) == (1, 0.5, None, None, None, None)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, 0.1, 0.843, 1e-9, 1e9])
def test_no_spread_has_an_interval_without_width(value: float) -> None:
    s = summarize([value] * 3)
    assert (s.deviation, s.half_width) == (0.0, 0.0)
    d = compare({0: value + 0.1, 1: value + 0.1, 2: value + 0.1}, {0: value, 1: value, 2: value})
    assert d is not None
    assert (d.low, d.p_value) == (d.mean, None)
    w = compare({0: 0.2, 1: 0.2}, {5: 0.1, 6: 0.1})
    assert w is not None
    assert (w.method, w.low, w.p_value) == ("Welch", w.mean, None)


def test_rounding_is_no_spread() -> None:
    # 0.1 + 0.2 != 0.3 in binary: the differences 0.2 differ by 1e-17 only, and no test may find that significant.
    d = compare({0: 0.1 + 0.2, 1: 0.3, 2: 0.9}, {0: 0.1, 1: 0.1, 2: 0.7})
    assert d is not None
    assert d.p_value is None


def test_paired_by_hand() -> None:
    # differences 1, 2, 3: mean 2, s = 1, standard error 1/√3; t = 2√3 = 3.46410, t² = 12;
    # with two degrees of freedom the two-sided p is 1 - t / √(t² + 2) = 1 - √(12/14) = 0.0741799
    d = compare({0: 11.0, 1: 22.0, 2: 33.0}, {2: 30.0, 1: 20.0, 0: 10.0})
    assert d is not None
    assert (d.mean, d.method, d.n) == (2.0, "paired", 3)
    assert d.p_value == pytest.approx(1 - math.sqrt(12 / 14))
    assert d.high - d.mean == pytest.approx(4.302653 / math.sqrt(3), abs=1e-6)


def test_only_common_seeds_are_paired() -> None:
    a, b = {0: 0.5, 1: 0.7, 7: 0.0}, {0: 0.4, 1: 0.5, 8: 1.0}
    d = compare(a, b)
    reference = stats.ttest_rel([0.5, 0.7], [0.4, 0.5])
    assert d is not None
    assert (d.method, d.n) == ("paired", 2)
    assert d.p_value == pytest.approx(reference.pvalue)
    assert (d.low, d.high) == pytest.approx(tuple(reference.confidence_interval(0.95)))


def test_welch_by_hand() -> None:
    # a = 1, 3: mean 2, s² = 2, s²/n = 1; b = 4, 6, 8: mean 6, s² = 4, s²/n = 4/3; t = -4 / √(7/3) = -2.61861
    # degrees of freedom (7/3)² / (1²/1 + (4/3)²/2) = (49/9) / (17/9) = 49/17 = 2.88235
    d = compare({0: 1.0, 1: 3.0}, {10: 4.0, 11: 6.0, 12: 8.0})
    assert d is not None
    assert (d.mean, d.method, d.n) == (-4.0, "Welch", 0)
    assert d.p_value == pytest.approx(2 * stats.t.cdf(-4 / math.sqrt(7 / 3), 49 / 17))
    assert d.high - d.mean == pytest.approx(stats.t.ppf(0.975, 49 / 17) * math.sqrt(7 / 3))


@pytest.mark.filterwarnings("error")
def test_welch_with_one_constant_row_is_quiet() -> None:
    d = compare({0: 0.5, 1: 0.5}, {5: 0.1, 6: 0.3})
    assert d is not None
    # Only b varies: s²/n = 0.02 / 2 = 0.01, one degree of freedom; t = 0.3 / 0.1 = 3; p = 2/π·atan(1/3)
    assert d.p_value == pytest.approx(2 / math.pi * math.atan(1 / 3))


def test_single_pairs_have_no_interval() -> None:
    one = compare({0: 0.5}, {0: 0.4, 1: 0.9})
    assert one is not None
    assert (one.mean, one.low, one.p_value, one.method, one.n) == (pytest.approx(0.1), None, None, "single", 1)
    apart = compare({0: 0.5}, {1: 0.4, 2: 0.6})
    assert apart is not None
    assert (apart.mean, apart.method, apart.n) == (pytest.approx(0.0), "single", 0)
    assert compare({}, {0: 0.5}) is None


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.5: times 4, 3, 2, 1 = 0.04, 0.06, 0.06, 0.5
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    # sorted 0.01, 0.011: times 2, 1 = 0.02, 0.011, and the second may not fall below the first
    assert holm([0.011, 0.01]) == pytest.approx([0.02, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_correction_skips_what_has_no_p_value() -> None:
    tested = compare({0: 1.0, 1: 3.0}, {0: 0.0, 1: 1.0})
    corrected = correct_p_values([None, tested, compare({0: 0.5}, {0: 0.4}), tested])
    assert corrected[0] is None
    assert tested is not None
    assert tested.p_value is not None
    assert [one.p_holm for one in corrected if one] == [
        pytest.approx(2 * tested.p_value),
        None,
        pytest.approx(2 * tested.p_value),
    ]


@pytest.mark.parametrize(
    ("name", "lower", "percent", "text"),
    [
        ("test/accuracy", False, True, "84.30"),
        ("test/loss", True, False, "0.8430"),
        ("test/calibration_error", True, True, "84.30"),
    ],
)
def test_metrics_know_their_kind(name: str, lower: bool, percent: bool, text: str) -> None:
    metric = Metric(name)
    assert (metric.lower_is_better, metric.percent, metric.text(0.843)) == (lower, percent, text)


def test_signs() -> None:
    accuracy = Metric("test/accuracy")
    assert [accuracy.text(x, signed=True) for x in (0.1, -0.1, -1e-9, None)] == ["+10.00", "-10.00", "+0.00", "–"]
    assert accuracy.text(-1e-9) == "0.00"
