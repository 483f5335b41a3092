"""What may be concluded from a few seeds: means, t intervals, paired differences, corrected p-values.

Student's t is used throughout, as seeds are few: an interval of n runs has n - 1 degrees of freedom. Where numbers do
not spread at all the interval has no width and there is no p-value, since a t statistic would divide by zero.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from convolt.errors import UserError, did_you_mean
from convolt.reports.records import Row, StudyRecord, finite

CONFIDENCE = 0.95
NONE = "\N{EN DASH}"
Method = Literal["paired", "Welch", "single"]


@dataclass(frozen=True)
class Metric:
    """A metric by its name in `result.json`: how it is shown, and which way is better.

    Attributes:
        name: E.g. "test/accuracy".
    """

    name: str

    @property
    def kind(self) -> str:
        """The name without the split, e.g. "accuracy"."""
        return self.name.rsplit("/", 1)[-1]

    @property
    def lower_is_better(self) -> bool:
        """Whether a small value is a good one: losses and errors."""
        return self.kind.endswith(("loss", "error"))

    @property
    def percent(self) -> bool:
        """Whether it is a fraction, shown in percent."""
        return not self.kind.endswith("loss")

    @property
    def label(self) -> str:
        """For headers and axes, e.g. "test accuracy, %"."""
        return self.name.replace("/", " ").replace("_", " ") + (", %" if self.percent else "")

    def text(self, value: float | None, signed: bool = False) -> str:
        """Return a value as shown: percent with two decimals, or four decimals; a dash for None."""
        if value is None:
            return NONE
        shown = f"{value * 100:+.2f}" if self.percent else f"{value:+.4f}"
        if float(shown) == 0:
            shown = shown.replace("-", "+")
        return shown if signed else shown.removeprefix("+")

    def scaled(self, value: float) -> float:
        """Return a value in the unit of `label`."""
        return value * 100 if self.percent else value


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

    @property
    def half_width(self) -> float | None:
        """Half of the interval: mean ± this."""
        return None if self.high is None else self.high - self.mean


@dataclass(frozen=True)
class RowStatistics:
    """All that a table says about one row and one metric.

    Attributes:
        row: The row.
        values: The metric of each finished run, by seed.
        summary: None where no run finished.
        difference: From the baseline row; None for the baseline itself, or where one of the two has no run.
        published: The published value of the metric.
    """

    row: Row
    values: Mapping[int | str, float]
    summary: Summary | None
    difference: Difference | None
    published: float | None

    @property
    def from_published(self) -> float | None:
        """Our mean less the published value."""
        return None if self.summary is None or self.published is None else self.summary.mean - self.published


def _spreads(values: NDArray[np.float64], scale: float) -> bool:
    """Tell whether values differ by more than the rounding of numbers as large as `scale`."""
    return bool(np.ptp(values) > 1e-12 * scale)


def summarize(values: Sequence[float], lower_is_better: bool = False) -> Summary:
    """Summarise the runs of one row.

    The interval is mean ± t(0.975, n - 1) · s / √n.

    Args:
        values: At least one finite number.
        lower_is_better: Whether the best is the smallest.

    Returns:
        The summary.
    """
    x = np.asarray(values, dtype=np.float64)
    best, worst = (x.min(), x.max()) if lower_is_better else (x.max(), x.min())
    mean, n = float(x.mean()), len(x)
    if n == 1:
        return Summary(1, mean, None, None, None, mean, mean)
    if not _spreads(x, float(np.abs(x).max())):
        return Summary(n, mean, 0.0, mean, mean, float(best), float(worst))
    deviation = float(x.std(ddof=1))
    low, high = stats.t.interval(CONFIDENCE, n - 1, loc=mean, scale=deviation / math.sqrt(n))
    return Summary(n, mean, deviation, float(low), float(high), float(best), float(worst))


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
    a = np.asarray([values[seed] for seed in common] or list(values.values()), dtype=np.float64)
    b = np.asarray([baseline[seed] for seed in common] or list(baseline.values()), dtype=np.float64)
    if len(common) < 2 and min(len(values), len(baseline)) > 1:
        a, b = np.asarray(list(values.values())), np.asarray(list(baseline.values()))
        return _welch(a, b)
    mean = float((a - b).mean()) if common else float(a.mean() - b.mean())
    left_out = len(values) + len(baseline) - 2 * len(common) if common else 0
    if len(common) < 2:
        return Difference(mean, None, None, None, "single", len(common), left_out)
    if not _spreads(a - b, float(np.abs([a, b]).max())):
        return Difference(mean, mean, mean, None, "paired", len(common), left_out)
    test = stats.ttest_rel(a, b)
    low, high = test.confidence_interval(CONFIDENCE)
    return Difference(mean, float(low), float(high), float(test.pvalue), "paired", len(common), left_out)


def _welch(a: NDArray[np.float64], b: NDArray[np.float64]) -> Difference:
    mean, scale = float(a.mean() - b.mean()), float(max(np.abs(a).max(), np.abs(b).max()))
    if not _spreads(a, scale) and not _spreads(b, scale):
        return Difference(mean, mean, mean, None, "Welch", 0)
    with warnings.catch_warnings():  # one of the two may be constant, which scipy finds worth a warning
        warnings.simplefilter("ignore", RuntimeWarning)
        test = stats.ttest_ind(a, b, equal_var=False)
    low, high = test.confidence_interval(CONFIDENCE)
    return Difference(mean, float(low), float(high), float(test.pvalue), "Welch", 0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number, so that the chance of any false alarm stays below the level.

    The i-th smallest of m is multiplied by m - i + 1; none may fall below a smaller one's (Holm 1979, Scandinavian
    Journal of Statistics 6, 65-70).

    Args:
        p_values: In any order.

    Returns:
        The corrected ones, in the same order, at most 1.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, floor = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        floor = max(floor, min(1.0, p_values[index] * (len(p_values) - rank)))
        corrected[index] = floor
    return corrected


def correct(differences: Sequence[Difference | None]) -> list[Difference | None]:
    """Return the differences of one table with Holm's correction over those that have a p-value."""
    tested = [index for index, one in enumerate(differences) if one is not None and one.p_value is not None]
    corrected = list(differences)
    for index, p in zip(tested, holm([d.p_value for d in differences if d and d.p_value is not None]), strict=True):
        one = differences[index]
        assert one is not None
        corrected[index] = replace(one, p_holm=p)
    return corrected


def analyze(study: StudyRecord, metric: Metric) -> list[RowStatistics]:
    """Work out one metric of every row of a table.

    Args:
        study: The table.
        metric: The metric.

    Returns:
        One entry a row, in the table's order.

    Raises:
        UserError: Runs have finished, and none has the metric.
    """
    known = {name for run in study.runs for name in run.result.get("metrics", {})}
    if known and metric.name not in known:
        raise UserError(
            f"no metric '{metric.name}' in '{study.path}'{did_you_mean(metric.name, known)}; "
            f"there are {', '.join(sorted(known))}"
        )
    values = [row.values(metric.name) for row in study.rows]
    differences = []
    for row, own in zip(study.rows, values, strict=True):
        baseline = study.baseline_of(row)
        differences.append(compare(own, baseline.values(metric.name)) if baseline else None)
    rows = []
    for row, own, difference in zip(study.rows, values, correct(differences), strict=True):
        summary = summarize(list(own.values()), metric.lower_is_better) if own else None
        rows.append(RowStatistics(row, own, summary, difference, finite(row.published.get(metric.name))))
    return rows


def ranked(rows: Sequence[RowStatistics], metric: Metric) -> list[RowStatistics]:
    """Return the rows that have a mean, the best first."""
    having = [one for one in rows if one.summary]
    return sorted(having, key=lambda one: one.summary.mean if one.summary else 0.0, reverse=not metric.lower_is_better)
