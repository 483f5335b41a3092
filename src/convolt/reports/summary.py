"""The results in a few sentences, made from the numbers of the tables, and never more than these say."""

from collections import Counter
from collections.abc import Sequence

from convolt.reports.claim_sentences import NAMED, describe_claims, describe_swept_claims, explain_claims
from convolt.reports.claims import make_claims
from convolt.reports.formats import Metric, plural
from convolt.reports.records import StudyRecord
from convolt.reports.statistics import RowStatistics
from convolt.reports.tuning_tables import find_best, format_settings
from convolt.reports.words import agree, capitalize, count_range, format_interval, format_value, join_names

STATES = {"running": "still running", "without a number": "without a finite number"}
"""States of runs, where a sentence needs other words."""


def describe_results(
    study: StudyRecord,
    metric: Metric,
    rows: Sequence[RowStatistics],
    *,
    seeds_added: bool = False,
    unlike: Sequence[str] = (),
) -> list[str]:
    """Say in a few sentences what a table shows.

    Args:
        study: The table.
        metric: What its rows are judged by.
        rows: Its rows.
        seeds_added: Whether seeds were added after a report, so that p-values do not hold.
        unlike: Names of rows that were not made like the others.

    Returns:
        Sentences, each of which stands by itself.
    """
    claims = make_claims(study, metric, rows, seeds_added)
    shown = [one for one in rows if one.summary]
    settling = study.settling
    baseline = str(study.baseline) if len(str(study.baseline)) <= 24 else "the baseline"
    if not shown:
        found = ["No run has a result yet."]
    elif len(rows) == 1:
        found = [_describe_single(metric, shown[0])]
    elif seeds_added or all("common seed" in claim.why_none for claim in claims):
        found = [_describe_best(metric, shown), _explain_no_claim(study, shown, seeds_added)]
    elif any(one.row.swept for one in rows):
        found = [*describe_swept_claims(metric, claims, baseline, settling), *explain_claims(claims, "", settling)]
    else:
        found = [*describe_claims(metric, claims, baseline, settling), *explain_claims(claims, baseline, settling)]
    found += [*_describe_tuning(study, metric), *_describe_published(metric, shown), *_describe_missing(study, metric)]
    if unlike and len(shown) > 1:
        found.append(f"{join_names(unlike)} {agree(len(unlike), 'was')} not made like the other rows; notes say how.")
    return found


def _describe_single(metric: Metric, one: RowStatistics) -> str:
    """Say the mean of a table of one row."""
    s = one.summary
    assert s is not None
    if s.n == 1:
        return f"{capitalize(metric.words)}: {format_value(metric, s.mean)} in one run: no interval, no claim."
    interval = format_interval(metric, s.low, s.high)
    about = "; brackets: 95% interval over seeds" if interval else ""
    value = format_value(metric, s.mean) + interval
    return f"{capitalize(metric.words)}: {value}, mean over {s.n} seeds{about}."


def _describe_best(metric: Metric, shown: Sequence[RowStatistics]) -> str:
    """Name the row with the best mean."""
    means = {one.row.name: (one.summary.mean, one.summary.n) for one in shown if one.summary}
    best = (min if metric.lower_is_better else max)(mean for mean, _ in means.values())
    names = [name for name, (mean, _) in means.items() if mean == best]
    seeds = count_range([n for name, (_, n) in means.items() if name in names], "seed")
    way = "lowest" if metric.lower_is_better else "highest"
    mean = f"{'mean ' if any(n > 1 for _, n in means.values()) else ''}{metric.words}"
    value = format_value(metric, best)
    return (
        f"{join_names(names, 4)} {agree(len(names), 'has')} the {way} {mean} of {len(means)} rows: {value} ({seeds})."
    )


def _explain_no_claim(study: StudyRecord, shown: Sequence[RowStatistics], seeds_added: bool) -> str:
    """Say why a table of several rows supports no claim."""
    if study.settling:
        return f"Only {study.settling.metric.words} is judged in this study: no claim."
    if all(len(one.values) < 2 for one in shown):
        return "One seed each: no interval, no claim."
    if seeds_added:
        return "Seeds were added after a report was made, so no p-value holds: no claim."
    if study.baseline is None:
        return "There is no baseline, so nothing is tested: no claim."
    if not any(study.baseline in (one.row.name, one.row.base) for one in shown):
        return f"The baseline {study.baseline} has no result here, so nothing is compared: no claim."
    return f"No row has two seeds in common with {study.baseline}, so nothing is tested: no claim."


def _describe_tuning(study: StudyRecord, metric: Metric) -> list[str]:
    """Say that rows are tuned, whose choice lies at an edge, and what the order would have been without."""
    tuning = study.tuning
    if tuning is None:
        return []
    chosen = [row for row in tuning.rows if row.choice]
    trials = count_range([len(row.trials) for row in tuning.rows], "trial")
    text = f"Each row is run at its own {join_names(tuning.keys)}, the best of {trials}"
    if len(chosen) < len(tuning.rows):
        verb = agree(len(chosen), "has")
        text += f"; {len(chosen)} of {plural(len(tuning.rows), 'row')} {verb} a choice so far"
    if edges := [row.name for row in chosen if row.choice and row.choice.edges]:
        text += f"; {join_names(edges)} chose the edge of what was tried, and better may lie beyond"
    if lost := [row.name for row in chosen if row.choice and row.choice.score is None]:
        text += f"; every trial of {join_names(lost)} diverged"
    return [f"{text}.", *_describe_defaults(study, metric)]


def _describe_defaults(study: StudyRecord, metric: Metric) -> list[str]:
    """Say in which order the rows' means would have stood without tuning, where all of them have one."""
    tuned = {row.name: row.mean(metric.name) for row in study.rows}
    untuned, seeds = {}, []
    for row in study.rows:
        values = [value for run in row.untuned if (value := run.number(metric.name)) is not None]
        untuned[row.name] = sum(values) / len(values) if values else None
        seeds.append(len(values))
    numbers = [*tuned.values(), *untuned.values()]
    if len(study.rows) < 2 or None in numbers or any(row.swept for row in study.rows):
        return []

    def order(means: dict[str, float | None]) -> list[str]:
        return sorted(means, key=lambda name: means[name] or 0.0, reverse=not metric.lower_is_better)

    by = f"({count_range(seeds, 'seed')}, no claim)"
    if order(tuned) == order(untuned):
        return [f"At their defaults the rows would have stood in the same order {by}."]
    if len(tuned) > 5:
        leaders = [order(means)[0] for means in (untuned, tuned)]
        same = f"{leaders[0]} would have led too" if leaders[0] == leaders[1] else f"{leaders[0]} would have led"
        return [f"At their defaults the order of the rows would have been another, and {same} {by}."]
    return [f"At their defaults the order would have been {', '.join(order(untuned))}, best first {by}."]


def _describe_published(metric: Metric, shown: Sequence[RowStatistics]) -> list[str]:
    """Say which published numbers lie within our intervals."""
    found = [(one, one.published, one.summary) for one in shown if one.published is not None and one.summary]
    if len(found) == 1:
        one, value, s = found[0]
        theirs, ours = format_value(metric, value), format_value(metric, s.mean)
        if (within := s.contains(value)) is None:
            return [f"Published for {one.row.name}: {theirs}; ours: {ours}; no claim."]
        where, interval = "inside" if within else "outside", format_interval(metric, s.low, s.high)
        return [f"The {theirs} published for {one.row.name}: {where} the 95% interval of our mean{interval}."]
    places = {one.row.name: s.contains(value) for one, value, s in found}
    parts = []
    for within, where in ((True, "inside"), (False, "outside")):
        names = [name for name, place in places.items() if place is within]
        few = f" ({join_names(names)})" if len(names) <= NAMED else ""
        parts += [f"{len(names)} {where}{few}"] if names else []
    if found and not parts:
        return [f"Published numbers of {len(found)} rows stand beside ours: no claim."]
    return [f"Published numbers and the 95% intervals of our means: {', '.join(parts)}."] if parts else []


def _describe_missing(study: StudyRecord, metric: Metric) -> list[str]:
    """Say how many runs are in no mean, and of which rows."""
    runs = [(row.name, run) for row in study.rows for run in row.runs]
    diverged = [name for name, run in runs if run.diverged]
    absent = {(name, run.path): str(run.state) for name, run in runs if run.state != "finished"}
    absent |= {
        (name, run.path): "without a number"
        for name, run in runs
        if run.state == "finished" and not run.diverged and run.number(metric.name) is None
    }
    total, sentences = plural(len(runs), "run"), []
    if diverged:
        rows, verb = join_names(dict.fromkeys(diverged)), agree(len(diverged), "is")
        sentences.append(f"{len(diverged)} of {total} diverged and {verb} in no mean, which flatters {rows}.")
    if absent:
        rows, verb = join_names(dict.fromkeys(name for name, _ in absent)), agree(len(absent), "is")
        states = [(n, STATES.get(state, state)) for state, n in Counter(absent.values()).most_common()]
        listed = f"without a result ({', '.join(f'{n} {state}' for n, state in states)})"
        sentences.append(f"{len(absent)} of {total} {verb} {states[0][1] if len(states) == 1 else listed}: {rows}.")
    return sentences


def describe_search(study: StudyRecord) -> list[str]:
    """Say in a few sentences what a search has found."""
    tuning = study.tuning
    assert tuning is not None
    trials = [trial for row in tuning.rows for trial in row.trials]
    done, found = sum(trial.finished for trial in trials), []
    diverged = sum(trial.diverged for trial in trials)
    if (best := find_best(tuning)) is None:
        found.append("No trial has a score yet." if done < len(trials) else "Every trial diverged.")
    else:
        row, values, score = best
        where = ", ".join(filter(None, (row.swept, format_settings(values))))
        found.append(
            f"Best of {plural(done, 'finished trial')}: {where}, {tuning.monitor.words} "
            f"{format_value(tuning.monitor, score)} ({count_range([len(tuning.seeds)], 'seed')}), not tested."
        )
        found.append("The best of many scores flatters: only a run of this setting on test images says how good it is.")
        if row.choice and row.choice.edges and row.choice.values == values:
            keys = [
                f"{key} is the {'highest' if side == 'high' else 'lowest'}" for key, side in row.choice.edges.items()
            ]
            found.append(f"Its {join_names(keys)} tried: better may lie beyond.")
    if done < len(trials):
        left = len(trials) - done
        found.append(f"{left} of {plural(len(trials), 'trial')} {agree(left, 'has')} not finished.")
    if diverged:
        found.append(f"{diverged} of {plural(len(trials), 'trial')} diverged.")
    return found
