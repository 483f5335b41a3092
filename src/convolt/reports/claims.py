"""What may be claimed of each row beside its baseline: one word, and the numbers that it rests on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from convolt.reports.formats import Metric, plural
from convolt.reports.records import Row, StudyRecord
from convolt.reports.settled_tables import is_judged
from convolt.reports.statistics import Difference, RowStatistics

ERROR = 0.05
"""A row of fixed seeds is told apart from the baseline where its corrected p-value is smaller."""

Word = Literal["beats", "loses", "negligible", "not told", "none"]


@dataclass(frozen=True)
class Claim:
    """What may be said of a row beside its baseline.

    Attributes:
        row: The row's name.
        base: The study's row without the swept values.
        swept: The swept values; empty where nothing is swept.
        word: "beats" and "loses" are told differences; "not told" was tested without one; "none" was not, or not yet.
        mean: The difference, row minus baseline; None where there is no number.
        low: Lower end of its interval, a repeated one in a settled study; None where there is none.
        high: Its upper end.
        seeds: How many pairs it is over; 0 for an unpaired one.
        p_value: Corrected for the number of rows; None in a settled study.
        why_none: Why nothing is claimed.
    """

    row: str
    base: str
    swept: str
    word: Word
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int = 0
    p_value: float | None = None
    why_none: str = ""


def make_claims(
    study: StudyRecord, metric: Metric, rows: Sequence[RowStatistics], seeds_added: bool = False
) -> list[Claim]:
    """Say of every row that has a difference what it amounts to.

    Args:
        study: The table.
        metric: Says which way is better.
        rows: Its rows.
        seeds_added: Whether seeds were added after a report, so that p-values do not hold.

    Returns:
        One entry for each compared row; none for baselines, and for rows of which nothing can be compared.
    """
    if study.settling:
        judged = is_judged(study, metric)
        compared = [one for one in rows if study.baseline not in (one.row.name, one.row.base)]
        return [_claim_settled(one, metric) for one in compared] if judged else []
    return [make_claim(one.row, one.difference, metric, seeds_added) for one in rows if one.difference]


def make_claim(row: Row, difference: Difference, metric: Metric, seeds_added: bool = False) -> Claim:
    """Say what a difference over fixed seeds amounts to."""
    word: Word = "none"
    why = ""
    if seeds_added:
        why = "seeds were added after a report"
    elif difference.method == "single":
        why = "one common seed" if difference.n else "no common seed"
    elif difference.p_holm is None:
        why = "the same difference in every seed"
    else:
        word = _tell(difference.mean, metric) if difference.p_holm < ERROR else "not told"
    d = difference
    return Claim(row.name, row.base, row.swept, word, d.mean, d.low, d.high, d.n, d.p_holm, why)


def _tell(mean: float, metric: Metric) -> Word:
    return "beats" if (mean < 0) == metric.lower_is_better else "loses"


def _claim_settled(one: RowStatistics, metric: Metric) -> Claim:
    """Word a verdict; a row that `study.json` does not know yet waits for its first look."""
    row, v = one.row, one.verdict
    if v is None or (v.n is None and v.word == "undecided"):
        return Claim(row.name, row.base, row.swept, "none", why_none="before its first look")
    if v.word == "excluded":
        return Claim(row.name, row.base, row.swept, "none", why_none=f"left out: {v.reason or 'no reason recorded'}")
    word: Word = "none"
    if v.word == "told" and v.mean is not None:
        word = _tell(v.mean, metric)
    elif v.word == "negligible":
        word = "negligible"
    seeds = v.n or 0
    why = {
        "undecided": f"more seeds to come after {seeds}",
        "hopeless": f"stopped at {plural(seeds, 'seed')}, as more were unlikely to settle it",
        "open": f"not settled by all {plural(seeds, 'seed')} planned",
    }.get(v.word, "")
    spreads = v.half_width is not None
    return Claim(
        row.name,
        row.base,
        row.swept,
        word,
        v.mean,
        v.low if spreads else None,
        v.high if spreads else None,
        seeds,
        None,
        why,
    )
