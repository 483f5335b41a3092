"""The sentences on claims: which rows beat the baseline, which lose to it, and of which nothing is said."""

from collections.abc import Sequence

from convolt.reports.claims import ERROR, Claim
from convolt.reports.decisions import Settling
from convolt.reports.formats import Metric, format_p_value, plural
from convolt.reports.words import agree, capitalize, count_range, format_amount, format_interval, join_names

NAMED = 3
"""So many rows are named with their numbers; of more, the first one, and how many there are."""
VERBS = {"beats": ("beats", "beat"), "loses": ("loses to", "lose to")}


def describe_claims(
    metric: Metric, claims: Sequence[Claim], baseline: str, settling: Settling | None = None
) -> list[str]:
    """Say which rows beat a baseline, which lose to it, and of which nothing is claimed.

    Args:
        metric: The metric.
        claims: Of the rows.
        baseline: What all of them are compared with.
        settling: Of a settled study.
    """
    sentences, count = [], len(claims)
    for word, (verb, verbs) in VERBS.items():
        found = sorted((claim for claim in claims if claim.word == word), key=lambda claim: -abs(claim.mean or 0))
        parts = [f"{claim.row} {verb} {baseline} by {_tell_size(metric, claim)}" for claim in found]
        if len(found) > NAMED:
            others = join_names([claim.row for claim in found[1:]], 4)
            first = f"{found[0].row} by most, {_tell_size(metric, found[0])}"
            parts = [f"{len(found)} of {count} rows {verbs} {baseline}: {first}; then {others}"]
        sentences += [f"{'; '.join(parts)}."] if parts else []
    if same := [claim for claim in claims if claim.word == "negligible"]:
        names = [claim.row for claim in same]
        margin = format_amount(metric, settling.margin if settling else None)
        numbers = f": {_tell_difference(metric, same[0])}" if len(same) == 1 else ""
        verb = agree(len(names), "differs")
        sentences.append(f"{join_names(names, 5)} {verb} from {baseline} by less than {margin}{numbers}.")
    if unclear := [claim for claim in claims if claim.word == "not told"]:
        sentences.append(_describe_not_told(metric, unclear, baseline, count))
    if nothing := [claim for claim in claims if claim.word == "none"]:
        sentences.append(_describe_no_claims(metric, nothing))
    return _begin(metric, sentences)


def _begin(metric: Metric, sentences: list[str]) -> list[str]:
    """Name the metric in the first sentence."""
    return [f"{capitalize(metric.words)}: {text}" if i == 0 else text for i, text in enumerate(sentences)]


def _describe_not_told(metric: Metric, claims: Sequence[Claim], baseline: str, count: int) -> str:
    names = [claim.row for claim in claims]
    seeds = count_range([claim.seeds for claim in claims], "seed")
    by = f" by {seeds}" if seeds else ""
    if len(claims) == 1:
        return f"{names[0]} and {baseline} are not told apart{by}: {_tell_difference(metric, claims[0], not by)}."
    if len(claims) == count > NAMED:
        return f"None of the {count} rows is told apart from {baseline}{by}."
    return f"{join_names(names, 5)} are not told apart from {baseline}{by}."


def _describe_no_claims(metric: Metric, claims: Sequence[Claim]) -> str:
    """Name the rows of which nothing is claimed, each with its reason."""
    if len(claims) > NAMED:
        return f"No claim about {len(claims)} rows: {join_names([claim.row for claim in claims])}."
    parts = []
    for claim in claims:
        interval = format_interval(metric, claim.low, claim.high)
        numbers = "" if claim.mean is None else format_amount(metric, claim.mean, signed=True) + interval
        parts.append(f"{claim.row} ({'; '.join(filter(None, (numbers, claim.why_none)))})")
    return f"No claim about {join_names(parts)}."


def describe_swept_claims(
    metric: Metric, claims: Sequence[Claim], baseline: str, settling: Settling | None = None
) -> list[str]:
    """Say of each row at which of the swept values it beats the baseline, and at which not.

    Args:
        metric: The metric.
        claims: Of the rows.
        baseline: The study's row that all of them are compared with, at the same swept values.
        settling: Of a settled study.
    """
    groups: dict[str, list[Claim]] = {}
    for claim in claims:
        groups.setdefault(claim.base, []).append(claim)
    margin = format_amount(metric, settling.margin if settling else None)
    words = {
        "beats": f"beats {baseline}",
        "loses": f"loses to {baseline}",
        "negligible": f"differs from {baseline} by less than {margin}",
        "not told": f"is not told apart from {baseline}",
        "none": "carries no claim",
    }
    sentences = []
    ordered = sorted(groups.items(), key=lambda each: all(claim.word not in VERBS for claim in each[1]))
    for base, cells in ordered[:NAMED]:
        parts = []
        for word, text in words.items():
            if not (found := [claim for claim in cells if claim.word == word]):
                continue
            sizes = sorted(abs(claim.mean or 0) for claim in found)
            low, high = metric.text(sizes[0]), metric.text(sizes[-1])
            smallest = "" if low == high else f"{low} to "
            size = _tell_size(metric, found[0]) if len(found) == 1 else smallest + format_amount(metric, sizes[-1])
            by = f" by {size}" if word in VERBS else ""
            few = len(found) <= NAMED
            where = join_names([claim.swept for claim in found]) if few else f"{len(found)} of {len(cells)} values"
            parts.append(f"{text}{by} at {where}")
        sentences.append(f"{base} {'; '.join(parts)}.")
    if left := [claim for _, cells in ordered[NAMED:] for claim in cells]:
        told = sum(claim.word in VERBS for claim in left)
        sentences.append(f"Of {plural(len(groups) - NAMED, 'more row')}, {told} of {len(left)} differences are told.")
    return _begin(metric, sentences)


def explain_claims(claims: Sequence[Claim], baseline: str, settling: Settling | None = None) -> list[str]:
    """Say what brackets and p-values of the sentences before are, and what was not compared.

    Args:
        claims: Of the rows.
        baseline: What they are compared with; empty where that needs no word.
        settling: Of a settled study.
    """
    sentences = []
    tested = sum(claim.p_value is not None for claim in claims)
    if settling and any(claim.low is not None for claim in claims):
        sentences.append(
            f"Brackets: repeated intervals; the chance of any wrong claim is at most {100 * settling.error:g}%."
        )
    elif tested:
        corrected = f" after Holm's correction for {tested} rows" if tested > 1 else ""
        sentences.append(f"Told: p < {ERROR:g}{corrected}; brackets: 95% intervals over seeds.")
    if baseline and len(claims) > 1:
        sentences.append(f"Rows are compared with {baseline} only, not with each other.")
    return [" ".join(sentences)] if sentences else []


def _tell_size(metric: Metric, claim: Claim) -> str:
    """Return how far a row is ahead or behind: "2.10 points [1.40, 2.80] (5 seeds, p = 0.001)"."""
    low, high = claim.low, claim.high
    if claim.mean is not None and claim.mean < 0 and low is not None and high is not None:
        low, high = -high, -low
    size = None if claim.mean is None else abs(claim.mean)
    return format_amount(metric, size) + format_interval(metric, low, high) + _tell_seeds(claim)


def _tell_difference(metric: Metric, claim: Claim, with_seeds: bool = True) -> str:
    """Return a difference with its sign: "+0.30 points [-0.50, 1.10] (5 seeds, p = 0.410)"."""
    amount = format_amount(metric, claim.mean, signed=True)
    return amount + format_interval(metric, claim.low, claim.high) + _tell_seeds(claim, with_seeds)


def _tell_seeds(claim: Claim, with_seeds: bool = True) -> str:
    facts = [plural(claim.seeds, "seed") if claim.seeds else "unpaired"] if with_seeds else []
    if claim.p_value is not None:
        shown = format_p_value(claim.p_value)
        facts.append(f"p < {shown[1:]}" if shown.startswith("<") else f"p = {shown}")
    return f" ({', '.join(facts)})" if facts else ""
