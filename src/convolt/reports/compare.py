"""The report on two studies or sweeps: rows of the same name set against each other, paired by seed."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from convolt.errors import UserError
from convolt.reports import page, study_figures, study_tables
from convolt.reports.claim_sentences import describe_claims, explain_claims
from convolt.reports.claims import make_claim
from convolt.reports.document import METHODS, Report, assemble, link_figure
from convolt.reports.formats import Metric, format_p_value
from convolt.reports.image_predictions import read_image_predictions
from convolt.reports.paired_tables import build_image_tables, describe_image_methods, join_tables, show_image_tables
from convolt.reports.provenance import PROVENANCE, collect_provenance, count_provenance
from convolt.reports.records import Row, StudyRecord
from convolt.reports.statistics import Difference, analyze, compare, correct_p_values, summarize
from convolt.reports.table import ROW, Column, Note, Table, to_markdown


def match_rows(first: StudyRecord, second: StudyRecord) -> list[tuple[Row, Row]]:
    """Return the rows of two tables that are compared: those of the same name, or both where each has a single one."""
    if len(first.rows) == len(second.rows) == 1:
        return [(first.rows[0], second.rows[0])]
    theirs = {row.name: row for row in second.rows}
    return [(row, theirs[row.name]) for row in first.rows if row.name in theirs]


def compare_rows(pairs: Sequence[tuple[Row, Row]], metric: Metric) -> list[Difference | None]:
    """Return each pair's difference, B minus A, corrected for their number."""
    return correct_p_values([compare(b.values(metric.name), a.values(metric.name)) for a, b in pairs])


def _name_pair(a: Row, b: Row) -> str:
    return a.name if a.name == b.name else f"{a.name} / {b.name}"


def describe_comparison(pairs: Sequence[tuple[Row, Row]], metric: Metric) -> list[str]:
    """Say in a few sentences in which rows B beats A."""
    found = zip(pairs, compare_rows(pairs, metric), strict=True)
    claims = [make_claim(b, difference, metric) for (_, b), difference in found if difference]
    named = [replace(claim, row=f"{claim.row} in B") for claim in claims]
    return [*describe_claims(metric, named, "A"), *explain_claims(named, "")]


def build_comparison_table(first: StudyRecord, second: StudyRecord, metric: Metric) -> Table:
    """Build the table of two studies' rows of the same name, paired by seed.

    Args:
        first: A.
        second: B; where both have a single row, these two are compared whatever their names.
        metric: The metric.

    Returns:
        The table; differences are B minus A, and rows that only one of the two has are in its caption.
    """
    pairs = match_rows(first, second)
    differences = compare_rows(pairs, metric)
    records, notes = [], []
    for (a, b), difference in zip(pairs, differences, strict=True):
        name = _name_pair(a, b)
        for key, what in PROVENANCE.items():
            ours, others = (sorted(count_provenance(row.runs, key)) for row in (a, b))
            if ours and others and ours != others:
                text = f"{what} differs: {', '.join(ours)} (A), {', '.join(others)} (B)"
                notes.append(Note(name, "row", text))
        notes += study_tables.make_difference_notes(name, difference)
        record: dict[str, object] = {"row": name, "metric": metric.name}
        for label, row in (("A", a), ("B", b)):
            values = row.values(metric.name)
            names = {f"mean_{label}": "mean", f"interval_low_{label}": "low", f"interval_high_{label}": "high"}
            record |= {f"n_{label}": len(values), **study_tables.read_attributes(summarize(values.values()), names)}
            record[f"_expected_{label}"] = len(row.runs)
        records.append({**record, **(study_tables.make_difference_record(difference) if difference else {})})
    columns = [ROW]
    for label in ("A", "B"):
        columns.append(Column(f"n {label}", f"n_{label}", study_tables.format_run_count, (f"_expected_{label}",)))
        columns.append(Column(f"{label}, mean ± 95%", f"mean_{label}", metric.interval, (f"interval_high_{label}",)))
    columns.append(Column("B minus A ± 95%", "difference", partial(metric.interval, signed=True), ("difference_high",)))
    columns.append(Column("p", "p_value_holm", format_p_value))
    caption = (
        f"A: {first.name}; B: {second.name}. {metric.label}, mean over seeds ± half of its 95% interval; difference: "
        "B minus A, paired by seed, ± half of its 95% interval"
    )
    caption += study_tables.make_significance_clause(differences) + "".join(
        f" Only in {label}: {', '.join(missing)}."
        for label, study, index in (("A", first, 0), ("B", second, 1))
        if (missing := [row.name for row in study.rows if row not in [pair[index] for pair in pairs]])
    )
    return Table("comparison", f"{first.name} and {second.name}: {metric.label}", caption, columns, records, notes)


def build_comparison_report(first: StudyRecord, second: StudyRecord, metric: Metric, draw: bool = True) -> Report:
    """Make the report on two tables.

    Args:
        first: A.
        second: B; differences are B minus A.
        metric: What is compared.
        draw: Whether to make the figure.

    Returns:
        The report, not yet written.

    Raises:
        UserError: No row of the two has the same name, or no run has the metric.
    """
    statistics = [(f"{label}: {study.name}", analyze(study, metric)) for label, study in (("A", first), ("B", second))]
    table = build_comparison_table(first, second, metric)
    if not table.records:
        names = [", ".join(repr(row.name) for row in study.rows[:4]) for study in (first, second)]
        raise UserError(
            f"no row of '{first.shown_path}' ({names[0]}) has the name of one of '{second.shown_path}' ({names[1]})"
        )
    missing = study_tables.build_unfinished([first, second], metric)
    joined = join_tables(match_rows(first, second), first, second)
    images = build_image_tables(joined, read_image_predictions(joined))
    found = [table, missing] if missing else [table]
    caption = "Means and 95% intervals of A and B, row by row"
    drawn = study_figures.draw_means(statistics, metric, "A and B") if draw else {}
    facts = [("A", str(first.shown_path)), ("B", str(second.shown_path)), ("metric", metric.name)]
    for label, study in (("A", first), ("B", second)):
        facts += [(f"{name} of {label}", text) for name, text in collect_provenance(study)]
    parts = [page.table(table, heading=False), *([page.figure(drawn, caption)] if drawn else [])]
    return assemble(
        title=f"{first.title} / {second.title}" if first.title != second.title else f"{first.name} / {second.name}",
        facts=facts,
        parts=[
            *(to_markdown(each) for each in (*found, *images) if each.name != "mcnemar"),
            *([link_figure("comparison", caption)] if drawn else []),
        ],
        sections={"Comparison": [*parts, *map(page.table, found[1:])], "Images": show_image_tables(images)},
        tables=[*found, *images],
        figures={"comparison": drawn},
        shown=[*found, *(each for each in images if each.name == "paired_images")],
        methods=(*METHODS, *describe_image_methods(images)),
        summary=describe_comparison(match_rows(first, second), metric),
    )
