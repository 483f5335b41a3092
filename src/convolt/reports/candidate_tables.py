"""How far the numbers of each candidate lie from the published ones, in a table and in sentences."""

import math
from statistics import fmean, variance

from convolt.reports.candidates import CandidateRecord, CandidatesRecord
from convolt.reports.formats import plural
from convolt.reports.records import StudyRecord, finite
from convolt.reports.table import Column, Note, Record, Table
from convolt.reports.words import agree, capitalize, join_names

USED_IN_CHOOSING = "used in choosing the settings by its published number: no evidence of reproduction"
"""Of a row whose published number chose among candidates."""


def find_differences(study: StudyRecord, candidate: CandidateRecord) -> dict[str, float]:
    """Return ours less the published number, of each told row that has both."""
    assert study.candidates is not None
    name = study.candidates.metric.name
    published = {row.base: finite(row.published.get(name)) for row in study.rows}
    found = {}
    for row in study.candidates.rows:
        ours, theirs = candidate.runs[row].number(name) if row in candidate.runs else None, published.get(row)
        if ours is not None and theirs is not None:
            found[row] = ours - theirs
    return found


def rank_candidates(study: StudyRecord) -> list[tuple[str, float]]:
    """Return the candidates of which every told row has a number, closest first, each with its root mean square."""
    assert study.candidates is not None
    found = []
    for candidate in study.candidates.candidates:
        differences = find_differences(study, candidate)
        if len(differences) == len(study.candidates.rows):
            found.append((candidate.name, math.sqrt(fmean(each**2 for each in differences.values()))))
    return sorted(found, key=lambda each: each[1])


def build_candidates(study: StudyRecord) -> Table | None:
    """Build the table of candidates; None where no run of one can be compared with a published number."""
    block = study.candidates
    if block is None or not any(find_differences(study, each) for each in block.candidates):
        return None
    ranking = dict(rank_candidates(study))
    places = {name: place for place, name in enumerate(ranking, 1)}
    metric = block.metric
    records: list[Record] = []
    notes = []
    for candidate in block.candidates:
        differences = find_differences(study, candidate)
        settings = " ".join(candidate.overrides) or "as the page has it"
        records.append(
            {"row": candidate.name, "settings": settings, "metric": metric.name, "seed": block.seed}
            | {"epochs": block.epochs, "published_rows": len(differences)}
            | {f"ours minus published, {row}": differences.get(row) for row in block.rows}
            | {"root_mean_square": ranking.get(candidate.name), "place": places.get(candidate.name)}
            | {"chosen": candidate.name == block.chosen}
        )
        missing = {row: run for row, run in candidate.runs.items() if row not in differences}
        for row, run in missing.items():
            why = f"{run.state}: {run.reason}" if run.reason else f"no {metric.name}"
            notes.append(Note(candidate.name, f"ours minus published, {row}", why))
        if candidate.name == block.chosen:
            notes.append(Note(candidate.name, "row", "stands in the study's settings since"))
    columns = [
        Column("candidate", "row", is_text=True),
        Column("settings", "settings", is_text=True),
        *(Column(row, f"ours minus published, {row}", metric.signed) for row in block.rows),
        Column("root mean square", "root_mean_square", metric.text),
        Column("place", "place", lambda place: f"{place:.0f}"),
    ]
    caption = (
        f"{capitalize(metric.label)}, ours less the published number of each told row, and over all of them together "
        f"the root mean square, by which candidates are ranked. {_describe_length(block)} "
        "These runs are in no other table."
    )
    return Table("candidates", "Candidates for what the report leaves open", caption, columns, records, notes)


def _describe_length(block: CandidatesRecord) -> str:
    if block.epochs is None:
        return f"Whole runs, seed {block.seed}."
    return (
        f"A screening: {plural(block.epochs, 'epoch')} of each run, seed {block.seed}, where the published numbers are "
        "of whole runs, so ours ought to lie below them and a candidate that learns fast is favored: a whole run of "
        "each told row has to confirm the choice."
    )


def mark_used_rows(study: StudyRecord, key: str) -> list[Note]:
    """Return a note on each row whose published number was used in choosing.

    Args:
        study: The table.
        key: Of the column that is marked.
    """
    used = study.candidates.used_rows if study.candidates else ()
    return [Note(row.name, key, USED_IN_CHOOSING) for row in study.rows if row.base in used and row.published]


def describe_candidates(study: StudyRecord) -> list[str]:
    """Say in sentences which candidate lies closest to the published numbers, and how surely."""
    block = study.candidates
    if block is None or not block.used_rows or not any(row.published for row in study.rows):
        return []
    used = (
        f"{join_names(block.used_rows)} decided about settings, so that their agreement with the published numbers is "
        "no evidence of reproduction."
    )
    ranking = rank_candidates(study)
    if len(ranking) < 2:
        return [used]
    (best, error), (second, next_error), *_ = ranking
    metric, gap = block.metric, next_error - error
    unit = " points" if metric.percent else ""
    missing = len(block.candidates) - len(ranking)
    many = f"{len(ranking)} candidates" + (f" ({missing} more without all results)" if missing else "")
    length = f" after {plural(block.epochs, 'epoch')}, a screening" if block.epochs else ""
    closest = (
        f"Of {many}, {best} lies closest to the published numbers of {join_names(block.rows)} together{length}: root "
        f"mean square {metric.text(error)}{unit}, that of the second, {second}, {metric.text(next_error)}"
    )
    return [f"{closest}; {_describe_sureness(study, gap)}.", used]


def _describe_sureness(study: StudyRecord, gap: float) -> str:
    """Say how large the gap between two candidates is beside what a seed changes."""
    assert study.candidates is not None
    metric = study.candidates.metric
    groups = [[*values.values()] for row in study.rows if len(values := row.values(metric.name)) > 1]
    unit = " points" if metric.percent else ""
    freedom = sum(len(each) - 1 for each in groups)
    deviation = math.sqrt(sum((len(each) - 1) * variance(each) for each in groups) / freedom) if freedom else 0.0
    if not deviation:
        return (
            f"the gap of {metric.text(gap)}{unit} has nothing to be measured by, since each candidate ran with one "
            "seed and no row of the table has several yet"
        )
    rows = f"{plural(len(groups), 'row')} of the table that {agree(len(groups), 'has')} several"
    return (
        f"the gap of {metric.text(gap)}{unit} is {gap / deviation:.1f} times the deviation over seeds, "
        f"{metric.text(deviation)}{unit}, of the {rows}"
    )
