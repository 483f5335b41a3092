"""The words and columns of a settled study: the repeated interval, and what its verdicts promise."""

from collections.abc import Sequence

from convolt.reports.decisions import Settling
from convolt.reports.formats import NONE, Metric
from convolt.reports.records import StudyRecord
from convolt.reports.statistics import RowStatistics
from convolt.reports.table import Column, Note, Record

PROMISES = {
    "told": "the interval leaves out 0, so the rows differ, in this direction",
    "negligible": "it lies within ± {margin}, so they differ by less than what matters",
    "hopeless": "neither, and unlikely to change at a later look, no claim",
    "open": "neither, and the looks are used up, no claim",
    "undecided": "more seeds to come, no claim",
    "excluded": "left out of the comparison for the reason in the note, no claim",
}


def is_judged(study: StudyRecord, metric: Metric) -> bool:
    """Tell whether verdicts of a study are about a metric."""
    return study.settling is not None and study.settling.metric == metric


def make_settled_columns(study: StudyRecord, metric: Metric) -> list[Column]:
    """Return what the results table shows of the differences in place of t intervals and p-values."""
    settling = study.settling
    assert settling is not None
    baselines = {row.name for row in study.rows if study.baseline in (row.name, row.base)}

    def difference(mean: float | None, half: float | None, row: str) -> str:
        if row in baselines:
            return "baseline"
        return metric.signed(mean) + ("" if half is None else f" ± {metric.text(half)}")

    if not is_judged(study, metric):
        return [Column("difference", "difference", difference, ("_half", "row"))]
    return [
        Column(f"difference ± repeated {settling.level}", "difference", difference, ("_half", "row")),
        Column("at look", "look", lambda n: f"{n} seeds"),
        Column("verdict", "verdict", is_text=True),
    ]


def make_settled_record(study: StudyRecord, metric: Metric, one: RowStatistics) -> Record:
    """Return the unrounded numbers of one row's difference: at its look for the metric that is judged."""
    if not is_judged(study, metric):
        found = one.difference if one.difference and one.difference.n else None
        return {"difference": found.mean if found else None, "pairs": found.n if found else None}
    v = one.verdict
    return {
        "difference": v.mean if v else None,
        "repeated_interval_low": v.low if v else None,
        "repeated_interval_high": v.high if v else None,
        "look": v.n if v else None,
        "verdict": v.word if v else None,
        "reason": (v.reason or None) if v else None,
        "_half": v.half_width if v else None,
    }


def make_settled_notes(one: RowStatistics) -> list[Note]:
    """Return the remarks on a row's difference."""
    if one.verdict is None:
        return []
    notes = []
    if one.verdict.word == "excluded":
        notes.append(Note(one.row.name, "verdict", f"excluded: {one.verdict.reason or 'no reason recorded'}"))
    elif one.verdict.mean is not None and one.verdict.half_width is None:
        text = "all differences are the same, which is no evidence: no interval, no claim"
        notes.append(Note(one.row.name, "difference", text))
    return notes


def describe_settled(study: StudyRecord, metric: Metric, rows: Sequence[RowStatistics]) -> str:
    """Say in the caption of the results what the differences and verdicts mean."""
    settling = study.settling
    assert settling is not None
    swept = " with the same swept values" if any(row.swept for row in study.rows) else ""
    if not is_judged(study, metric):
        return (
            f" Seeds were added until {settling.metric.words} was settled, and only it is judged: differences from "
            f"'{study.baseline}'{swept} of {metric.words}, the mean over common seeds, carry no interval and no claim."
        )
    found = {one.verdict.word for one in rows if one.verdict}
    wanted = [
        word for word in PROMISES if word in found or word == "told" or (word == "negligible" and settling.margin)
    ]
    margin = NONE if settling.margin is None else metric.text(settling.margin)
    promises = "; ".join(f"'{word}': {PROMISES[word].format(margin=margin)}" for word in wanted)
    return (
        f" Differences from '{study.baseline}'{swept}, paired by seed, over the seeds of the look named, ± half of "
        f"their repeated confidence interval. {describe_guarantee(settling)} {promises}."
    )


def describe_guarantee(settling: Settling) -> str:
    """Say what holds for all intervals of a study together."""
    count = settling.comparisons
    each = "the comparison" if count == 1 else f"all {count} comparisons"
    looks = ", ".join(map(str, settling.looks))
    return (
        f"The intervals of {each} at all looks ({looks} seeds) hold the true differences together in "
        f"{settling.level} of studies, so any wrong claim has a chance of at most {100 * settling.error:g}%."
    )


def describe_settled_methods(study: StudyRecord) -> tuple[str, ...]:
    """Return the paragraphs on methods of a settled study."""
    settling = study.settling
    assert settling is not None
    pairs = zip(settling.looks, settling.critical_values, strict=False)
    values = ", ".join(f"{value:.4g} at {n}" for n, value in pairs)
    return (
        "A row is one configuration, run with several seeds. Mean and sample standard deviation s (n - 1) are taken "
        "over its finished runs. They have no interval: results decided how many seeds ran.",
        f"Differences from the baseline in {settling.metric.words} are paired by seed and judged at looks that were "
        "fixed before the first. A difference has the repeated confidence interval (Jennison and Turnbull 1989, "
        f"Journal of the Royal Statistical Society B 51, 305-361), mean ± c · s / √n, with c = {values} seeds. "
        f"{describe_guarantee(settling)} Rows share this chance by Bonferroni's rule, looks by linear spending (Lan "
        "and DeMets 1983, Biometrika 70, 659-663). A row stops at its first verdict. No other metric is judged.",
        "The intervals assume that differences are roughly normal over seeds. They say how much the mean difference "
        "may differ over other seeds, not over other splits of the data.",
    )
