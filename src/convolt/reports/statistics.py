"""What may be concluded from a few seeds: means, t intervals, paired differences, corrected p-values.

Student's t is used throughout, as seeds are few: an interval of n runs has n - 1 degrees of freedom. Where numbers do
not spread at all the interval has no width and there is no p-value, since a t statistic would divide by zero.
"""

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from convolt.errors import UserError, did_you_mean
from convolt.reports.decisions import VerdictRecord
from convolt.reports.formats import Metric
from convolt.reports.records import Row, StudyRecord, finite

CONFIDENCE = 0.95
Method = Literal["paired", "Welch", "single"]


@dataclass(frozen=True)
class Summary:
    """What n runs of one row say.

    Attributes:
        n: The number of runs.
        mean: Their mean.
        deviation: The sample standard deviation (n - 1); None for one run.
        low: Lower end of the 95% t interval of the mean; None for one run, the mean where nothing spreads.
        high: Its upper end.
        best: The best run's value.
        worst: The worst run's value.
    """

    n: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    best: float
    worst: float

    @property
    def half_width(self) -> float | None:
        """Half of the interval: mean ± this."""
        return None if self.high is None else self.high - self.mean

    def contains(self, value: float) -> bool | None:
        """Return whether a value lies within the interval; None where there is none."""
        return None if self.low is None or self.high is None else self.low <= value <= self.high


@dataclass(frozen=True)
class Difference:
    """How far a row is from another one.

    Attributes:
        mean: The difference; above zero where the row's numbers are larger.
        low: Lower end of its 95% interval; None where no interval exists.
        high: Its upper end.
        p_value: Two-sided; None where no test is possible (a single pair, or no spread).
        method: "paired" over common seeds, "Welch" where fewer than two are common, "single" without interval.
        n: The number of pairs; for "Welch" and an unpaired "single" 0.
        left_out: Runs of the two rows that found no partner and do not count.
        p_holm: The p-value corrected for all rows of the table.
    """

    mean: float
    low: float | None
    high: float | None
    p_value: float | None
    method: Method
    n: int
    left_out: int = 0
    p_holm: float | None = None


@dataclass(frozen=True)
class RowStatistics:
    """All that a table says about one row and one metric.

    Attributes:
        row: The row.
        values: The metric of each finished run, by seed.
        summary: None where no run finished.
        difference: From the baseline row; None for the baseline itself, or where one of the two has no run.
        published: The published value of the metric.
        verdict: Of a settling study and the metric that it judges; None for the baseline.
    """

    row: Row
    values: Mapping[int | str, float]
    summary: Summary | None
    difference: Difference | None
    published: float | None
    verdict: VerdictRecord | None = None


def _differ(values: NDArray[np.float64], scale: float) -> bool:
    """Tell whether values differ by more than the rounding of numbers as large as `scale`."""
    return bool(np.ptp(values) > 1e-12 * scale)


def summarize(values: Collection[float], lower_is_better: bool = False) -> Summary | None:
    """Summarize the runs of one row; None for no runs.

    The interval is mean ± t(0.975, n - 1) · s / √n.

    Args:
        values: Finite numbers.
        lower_is_better: Whether the best is the smallest.
    """
    if not values:
        return None
    x = np.asarray([*values], dtype=np.float64)
    best, worst = (x.min(), x.max()) if lower_is_better else (x.max(), x.min())
    mean, n = float(x.mean()), len(x)
    if n == 1:
        return Summary(1, mean, None, None, None, mean, mean)
    if not _differ(x, float(np.abs(x).max())):
        return Summary(n, mean, 0.0, mean, mean, float(best), float(worst))
    deviation = float(x.std(ddof=1))
    low, high = stats.t.interval(CONFIDENCE, n - 1, loc=mean, scale=deviation / math.sqrt(n))
    return Summary(n, mean, deviation, float(low), float(high), float(best), float(worst))


def without_interval(summary: Summary | None) -> Summary | None:
    """Return a summary without the t interval, which does not hold where results decided how many seeds ran."""
    return summary and replace(summary, low=None, high=None)


def compare(values: Mapping[int | str, float], baseline: Mapping[int | str, float]) -> Difference | None:
    """Compare two rows, paired by seed.

    With two or more common seeds only those count: a paired t test on their differences, which removes what a seed does
    to both rows. With fewer, Welch's t test of all runs (Welch 1947, doi:10.1093/biomet/34.1-2.28), if both rows have
    two; else the difference without interval, of the one common seed if there is one, or else of the means.

    Args:
        values: The row's numbers by seed.
        baseline: The other row's.

    Returns:
        The difference, not yet corrected for many rows; None where a row has no number.
    """
    if not values or not baseline:
        return None
    common = [seed for seed in values if seed in baseline]
    method: Method = "paired" if len(common) > 1 else "Welch" if min(len(values), len(baseline)) > 1 else "single"
    if method == "Welch":
        common = []
    a = np.asarray([values[seed] for seed in common or values], dtype=np.float64)
    b = np.asarray([baseline[seed] for seed in common or baseline], dtype=np.float64)
    mean = float((a - b).mean()) if common else float(a.mean() - b.mean())
    left_out = len(values) + len(baseline) - 2 * len(common) if common else 0
    found = Difference(mean, None, None, None, method, len(common), left_out)
    scale = float(max(np.abs(a).max(), np.abs(b).max()))
    if method == "single":
        return found
    if not (_differ(a - b, scale) if common else _differ(a, scale) or _differ(b, scale)):
        return replace(found, low=mean, high=mean)
    with warnings.catch_warnings():  # one of the two may be constant, which scipy finds worth a warning
        warnings.simplefilter("ignore", RuntimeWarning)
        test = stats.ttest_rel(a, b) if common else stats.ttest_ind(a, b, equal_var=False)
    low, high = test.confidence_interval(CONFIDENCE)
    return replace(found, low=float(low), high=float(high), p_value=float(test.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number, so that the chance of any false alarm stays below the level.

    The i-th smallest of m is multiplied by m - i + 1; none may fall below a smaller one's (Holm 1979, Scandinavian
    Journal of Statistics 6, 65-70).

    Args:
        p_values: In any order.

    Returns:
        The corrected ones, in the same order, at most 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(np.minimum(1.0, p[order] * np.arange(len(p), 0, -1)))
    return [float(one) for one in corrected]


def correct_p_values(differences: Sequence[Difference | None]) -> list[Difference | None]:
    """Return the differences of one table with Holm's correction over those that have a p-value."""
    corrected = iter(holm([one.p_value for one in differences if one and one.p_value is not None]))
    return [replace(one, p_holm=next(corrected)) if one and one.p_value is not None else one for one in differences]


def analyze(study: StudyRecord, metric: Metric) -> list[RowStatistics]:
    """Work out one metric of every row of a table.

    Args:
        study: The table.
        metric: The metric.

    Returns:
        One entry a row, in the table's order. Rows of a settling study have no t interval and no p-value.

    Raises:
        UserError: Runs have finished, and none has the metric.
    """
    known = {name for run in study.runs for name in run.result.get("metrics", {})}
    if known and metric.name not in known:
        raise UserError(
            f"no metric '{metric.name}' in '{study.shown_path}'{did_you_mean(metric.name, known)}; "
            f"there are {', '.join(sorted(known))}"
        )
    name, settling = metric.name, study.settling
    differences = correct_p_values(
        [
            compare(row.values(name), baseline.values(name)) if (baseline := study.baseline_of(row)) else None
            for row in study.rows
        ]
    )
    if settling:
        differences = [one and replace(one, low=None, high=None, p_value=None, p_holm=None) for one in differences]
    statistics = []
    for row, difference in zip(study.rows, differences, strict=True):
        values, published = row.values(name), finite(row.published.get(name))
        summary, verdict = summarize(values.values(), metric.lower_is_better), None
        if settling:
            summary = without_interval(summary)
            verdict = settling.verdicts.get((row.base, row.swept)) if metric == settling.metric else None
        statistics.append(RowStatistics(row, values, summary, difference, published, verdict))
    return statistics
