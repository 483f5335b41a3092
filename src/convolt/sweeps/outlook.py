"""What a study of so many rows and seeds will be able to see, said before it starts."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from convolt.reports.formats import plural
from convolt.reports.power import LEVEL, MOST_SEEDS, POWER, seeds_needed, smallest_difference
from convolt.reports.records import finite
from convolt.reports.sequential import Design
from convolt.sweeps.jobs import Job
from convolt.sweeps.schedule import Cell, Settle

HALF_A_POINT = 0.005
_STUDIES = 20_000
_FEWEST_SEEDS = 3
"""Common seeds of a row and the baseline, below which their differences say nothing of the deviation."""

_EXAMPLES = (0.002, 0.005, 0.01)
"""Standard deviations, for which seeds are said where none is known."""


def describe_power(comparisons: int, seeds: int, deviation: float | None, settle: Settle | None) -> list[str]:
    """Say in lines what can be seen.

    Args:
        comparisons: Rows beside the baseline, times swept values; 0: there is nothing to compare.
        seeds: Of each row; a settling study runs those of its looks.
        deviation: The standard deviation of the paired differences, of earlier runs; None: not known.
        settle: The looks; None: fixed seeds.
    """
    if comparisons < 1:
        return []
    design = Design.plan(settle.looks, settle.error, comparisons, settle.margin) if settle else None
    n = settle.looks[-1] if settle else seeds
    if n < 2:
        return ["one seed sees no difference: two are needed to know how much seeds differ"]
    known = "" if deviation is None else f"; here SD = {deviation:.2g}, as runs so far differ"
    smallest = smallest_told(design) if design else smallest_difference(n, comparisons)
    what = f"{'up to ' if settle else ''}{n} seeds, {plural(comparisons, 'comparison')}"
    lines = [
        f"{what}: a difference of {_in_units(smallest, deviation)} is seen with a power of {POWER:.0%} "
        f"(SD: standard deviation of the difference from the baseline, seed by seed{known})",
        _describe_half_a_point(comparisons, deviation, settle),
    ]
    if design and design.margin is not None:
        lines.append(_describe_margin(design, design.margin, deviation))
    return lines


def _describe_half_a_point(comparisons: int, deviation: float | None, settle: Settle | None) -> str:
    """Say how many seeds half a point takes, each row having as many."""
    start = f"half a point ({HALF_A_POINT}) takes "
    fixed = " where their number is fixed" if settle else ""
    level = settle.error if settle else LEVEL
    if deviation is not None:
        return f"{start}{_count_seeds(deviation, comparisons, level)}{fixed}"
    counts = [f"{_count_seeds(each, comparisons, level)} if SD is {each}" for each in _EXAMPLES]
    return f"{start}{', '.join(counts)}{fixed}; SD is not known before three seeds of two rows have finished"


def _count_seeds(deviation: float, comparisons: int, level: float) -> str:
    count = seeds_needed(HALF_A_POINT / deviation, comparisons, level) if deviation > 0 else 2
    return f"more than {MOST_SEEDS} seeds" if count is None else f"{count} seeds"


def _describe_margin(design: Design, margin: float, deviation: float | None) -> str:
    """Say whether the last look's interval can be narrow enough."""
    half, n = half_width(design), design.looks[-1]
    width = f"at {n} seeds the interval reaches {_in_units(half, deviation)} to each side"
    if deviation is None:
        return f"margin {margin:g}: {width}, so it can be met where SD is below {margin / half:.2g}"
    if half * deviation < margin:
        return f"margin {margin:g}: {width}, so it can be met"
    return f"margin {margin:g}: {width}, so it cannot be met, unless seeds come to differ less"


def _in_units(difference: float, deviation: float | None) -> str:
    """Return a difference in standard deviations, and in the metric's unit where they are known."""
    return f"{difference:.2f} SD" + ("" if deviation is None else f" = {difference * deviation:.2g}")


def half_width(design: Design) -> float:
    """Return how far the last look's interval reaches to each side, in standard deviations."""
    return design.critical_values[-1] / math.sqrt(design.looks[-1])


def smallest_told(design: Design) -> float:
    """Return the smallest difference that some look tells with a power of 80%, in standard deviations; simulated.

    The random numbers are the same each time, and whoever stops as hopeless does not count as such.

    Args:
        design: The looks.
    """
    noise = np.random.default_rng(0).standard_normal((_STUDIES, design.looks[-1]))
    halves = []
    means = []
    for n, critical in zip(design.looks, design.critical_values, strict=True):
        means.append(noise[:, :n].mean(axis=1))
        halves.append(critical * noise[:, :n].std(axis=1, ddof=1) / math.sqrt(n))
    # a study tells a difference from the first look at which the difference leads its mean beyond the half-width
    needed = np.min([half - mean for half, mean in zip(halves, means, strict=True)], axis=0)
    return float(np.quantile(needed, POWER))


def pool_deviation(differences: Iterable[Sequence[float]]) -> float | None:
    """Return the standard deviation within several rows' paired differences; None where each has fewer than three."""
    enough = [np.asarray(each, dtype=np.float64) for each in differences if len(each) >= _FEWEST_SEEDS]
    freedom = sum(len(each) - 1 for each in enough)
    squares = math.fsum(float(((each - each.mean()) ** 2).sum()) for each in enough)
    return math.sqrt(squares / freedom) if freedom else None


def find_deviation(jobs: Sequence[Job], cells: Sequence[Cell], baseline: str, metric: str) -> float | None:
    """Return the standard deviation of the paired differences, of the runs that have finished.

    Args:
        jobs: Runs, at their rows' settings; neither trials nor untuned ones.
        cells: Of each job.
        baseline: The row that the others are compared with.
        metric: What is compared.
    """
    values: dict[Cell, dict[int, float]] = defaultdict(dict)
    for job, cell in zip(jobs, cells, strict=True):
        result = job.result or job.find_result() or {}
        if (value := finite(result.get("metrics", {}).get(metric))) is not None:
            values[cell][int(job.cfg.seed)] = value
    found = []
    for (row, swept), own in values.items():
        base = values.get((baseline, swept), {})
        if row != baseline:
            found.append([own[seed] - base[seed] for seed in own if seed in base])
    return pool_deviation(found)
