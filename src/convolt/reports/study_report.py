"""The report on one study, sweep or group of runs: which tables and figures it has, and where they stand."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from convolt.reports import (
    candidate_tables,
    cost_tables,
    page,
    study_figures,
    study_tables,
    tuning_figures,
    tuning_tables,
)
from convolt.reports.deciding_section import build_deciding_section
from convolt.reports.document import METHODS, Report, assemble, link_figure, slug
from convolt.reports.earlier import SEEDS_ADDED, find_added_seeds
from convolt.reports.formats import Metric
from convolt.reports.image_predictions import read_image_predictions
from convolt.reports.paired_tables import build_image_tables, describe_image_methods, show_image_tables
from convolt.reports.provenance import collect_provenance, describe_data, find_unlike_rows
from convolt.reports.records import Row, StudyRecord
from convolt.reports.settled_tables import describe_settled_methods
from convolt.reports.statistics import RowStatistics, analyze
from convolt.reports.summary import describe_results, describe_search
from convolt.reports.table import Table, to_csv, to_markdown
from convolt.reports.table_parts import build_parts, show_parts
from convolt.reports.words import capitalize
from convolt.runs.config_hash import NOT_HASHED

CAPTIONS = {
    "comparison": "{Metric} of each row: mean{interval}, single seeds{published}{differences}",
    "curves": "Learning curves of each row: mean over seeds, and a band from the lowest to the highest",
    "per_class": "{Class} of each class in each row, mean over seeds",
    "parameters": "{Metric} of each row against its number of parameters",
    "time": "{Metric} of each row against the training time of one run",
    "sensitivity": "Validation score of every trial over each tuned key, the chosen one marked",
    "best_so_far": "Best validation score against the number of trials",
}


def _make_captions(study: StudyRecord, metric: Metric, rows: Sequence[RowStatistics]) -> dict[str, str]:
    """Return what each figure shows, by its name."""
    judged = any(one.verdict for one in rows)
    words = {
        "Metric": capitalize(metric.words),
        "Class": capitalize(Metric(study_tables.choose_class_metric(study.rows) or "").words),
        "published": ", published value" if any(one.published is not None for one in rows) else "",
        "interval": ", 95% interval" if any(one.summary and one.summary.half_width is not None for one in rows) else "",
        "differences": f"; its difference from {study.baseline} with repeated interval" if judged else "",
    }
    return {name: text.format_map(words) for name, text in CAPTIONS.items()}


def build_report(study: StudyRecord, metric: Metric, draw: bool = True, target: float | None = None) -> Report:
    """Make the report on one table of runs.

    Args:
        study: The table.
        metric: What its rows are judged by.
        draw: Whether to make figures, which take most of the time.
        target: Of the validation metric, for the time until it is reached; None: it follows from the table.

    Returns:
        The report, not yet written.

    Raises:
        UserError: No run has the metric, or the target is out of range.
    """
    if study.kind == "search":
        return build_search_report(study, draw)
    rows = analyze(study, metric)
    done = any(one.summary for one in rows)
    swept = build_parts(study, metric, target, draw)
    across = any(part.heading == "Across datasets" for part in swept)  # which has its own ranks
    predictions = read_image_predictions(study)
    images = build_image_tables(study, predictions)
    made = [
        study_tables.build_results(study, metric, rows),
        study_tables.build_unfinished([study], metric),
        study_tables.build_published(study),
        candidate_tables.build_candidates(study),
        tuning_tables.build_choices(study.tuning) if study.tuning else None,
        tuning_tables.build_untuned(study, metric) if study.tuning else None,
        study_tables.build_ranking(study, metric, rows) if done and len(rows) > 1 and not across else None,
        *(part.table for part in swept),
        *images,
        cost_tables.build_costs(metric, rows),
        study_tables.build_metrics(study),
        tuning_tables.build_trials(study.tuning) if study.tuning else None,
        study_tables.build_runs(study, metric),
    ]
    found = {table.name: table for table in made if table}
    classes = [study_tables.build_per_class(row) for row in study.rows]
    drawn = _draw(study, metric, rows) if draw else {}
    drawn |= {part.table.name: part.figure for part in swept if part.figure}
    captions = _make_captions(study, metric, rows) | {part.table.name: part.caption for part in swept}
    deciding = build_deciding_section(study, predictions, draw)

    def named(*names: str) -> list[Table]:
        return [found[name] for name in names if name in found]

    def drawings(*names: str) -> list[str]:
        return [page.figure(drawn[name], captions[name], name == "per_class") for name in names if name in drawn]

    # The table of failures stands beside the results: what is missing qualifies them.
    parts = [to_markdown(table) for name, table in found.items() if name not in ("trials", "runs", "mcnemar")]
    parts += [link_figure(name, caption) for name, caption in captions.items() if name in drawn]
    parts += deciding.markdown
    parts += [to_markdown(table) for table in classes if table and "published" in [one.label for one in table.columns]]
    report = assemble(
        title=study.title,
        question=study.question,
        facts=_collect_facts(study, metric),
        parts=parts,
        sections={
            "Results": [
                page.table(found["results"], heading=False),
                *drawings("comparison"),
                *map(page.table, named("unfinished", "published", "candidates")),
            ],
            "Tuning": [
                *map(page.table, named("choices")),
                *drawings("sensitivity", "best_so_far"),
                *map(page.table, named("untuned")),
                *(page.collapsible("All trials", [page.table(table, heading=False)]) for table in named("trials")),
            ],
            "Ranking": [page.table(table, heading=False) for table in named("ranking")],
            **{heading: show_parts(swept, heading) for heading in ("Across datasets", "Interactions")},
            "Images": [*show_image_tables(images), *deciding.page],
            "Learning curves": [*drawings("curves"), *show_parts(swept, "Learning curves")],
            "Cost": [page.table(found["costs"]), *drawings("parameters", "time")],
            "Classes": drawings("per_class"),
            "Rows": [
                _build_row_details(study, row, table, drawn.get(name, {}))
                for row, table, name in zip(study.rows, classes, _confusion_names(study), strict=True)
            ],
            "All numbers": [
                *map(page.table, named("metrics")),
                page.collapsible("All runs", [page.table(found["runs"], heading=False)]),
            ],
        },
        tables=[*found.values(), *deciding.tables],
        figures=drawn,
        shown=named(
            *("results", "paired_images"),
            *(part.table.name for part in swept if target is not None or part.heading != "Learning curves"),
            *(["costs"] if done else []),
            *("choices", "untuned", "ranking", "published", "candidates", "unfinished"),
        ),
        methods=(*_describe_methods(study), *describe_image_methods(images)),
        summary=[
            *describe_results(
                study, metric, rows, seeds_added=bool(find_added_seeds(study)), unlike=find_unlike_rows(study)
            ),
            *candidate_tables.describe_candidates(study),
            *(part.summary for part in swept if part.summary),
        ],
    )
    report = replace(report, files={**deciding.files, **report.files})
    if joined := [table for table in classes if table]:
        every = replace(joined[0], records=[record for table in joined for record in table.records])
        return replace(report, files={"tables/per_class.csv": to_csv(every).encode(), **report.files})
    return report


def build_search_report(study: StudyRecord, draw: bool = True) -> Report:
    """Make the report on a search: its trials, and the best of them.

    Args:
        study: The search.
        draw: Whether to make figures.

    Returns:
        The report, not yet written.
    """
    tuning = study.tuning
    assert tuning is not None
    choices, trials = tuning_tables.build_choices(tuning), tuning_tables.build_trials(tuning)
    unfinished = study_tables.build_unfinished([study], tuning.monitor)
    found = [choices, trials, *([unfinished] if unfinished else [])]
    drawn = _draw_tuning(study) if draw else {}
    entries = [
        ("folder", str(study.shown_path)),
        ("metric", f"{tuning.monitor.name}, {'lower' if tuning.monitor.lower_is_better else 'higher'} is better"),
        ("trials", _count_states(study.states)),
        *tuning_tables.describe_search(study),
        ("given on the command line", " ".join(study.fixed)),
        *(("note", note) for note in study.notes),
    ]
    figures = [page.figure(content, CAPTIONS[name]) for name, content in drawn.items()]
    parts = [*map(to_markdown, found), *(link_figure(name, CAPTIONS[name]) for name in drawn)]
    tables = [page.table(choices), *figures, page.table(trials), *([page.table(unfinished)] if unfinished else [])]
    return assemble(
        title=study.title,
        question=study.question,
        facts=[(term, text) for term, text in entries if text],
        parts=parts,
        sections={"Tuning": tables},
        tables=found,
        figures=drawn,
        shown=found,
        methods=[tuning_tables.describe_search_methods(tuning)],
        summary=describe_search(study),
    )


def _describe_methods(study: StudyRecord) -> tuple[str, ...]:
    """Return the paragraphs on methods."""
    methods = describe_settled_methods(study) if study.settling else METHODS
    return (*methods, tuning_tables.describe_tuning(study.tuning)) if study.tuning else methods


def _count_states(states: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {state}" for state, n in states.items())


def _collect_facts(study: StudyRecord, metric: Metric) -> list[tuple[str, str]]:
    """Return what a reader must know about a table, as (term, text)."""
    baseline = study.baseline
    if baseline and not any(baseline in (row.name, row.base) for row in study.rows):
        baseline = f"{baseline} (not a row of this table)"
    given = {text.split("=")[0]: text for text in study.fixed}
    entries = [
        ("folder", str(study.shown_path)),
        ("metric", f"{metric.name}, {'lower' if metric.lower_is_better else 'higher'} is better"),
        ("runs", _count_states(study.states)),
        ("trials", _count_states(Counter(run.state for run in study.tuning.runs)) if study.tuning else ""),
        ("runs at defaults", _count_states(Counter(run.state for row in study.rows for run in row.untuned))),
        ("baseline", baseline or ("none; --baseline ROW sets one" if len(study.rows) > 1 else "")),
        ("settings of all rows", " ".join(text for text in study.base if text.split("=")[0] not in given)),
        ("given on the command line", " ".join(text for key, text in given.items() if key not in NOT_HASHED)),
        *collect_provenance(study),
        *(("data", line) for line in describe_data(study)),
        *(("note", note) for note in study.notes),
        ("note", SEEDS_ADDED if find_added_seeds(study) else ""),
    ]
    return [(term, text) for term, text in entries if text]


def _draw_tuning(study: StudyRecord) -> dict[str, dict[str, bytes]]:
    """Return the figures of tuning that have content, by name."""
    if study.tuning is None:
        return {}
    drawn = {
        "sensitivity": tuning_figures.draw_sensitivity(study.tuning, study.title),
        "best_so_far": tuning_figures.draw_best_so_far(study.tuning, study.title),
    }
    return {name: content for name, content in drawn.items() if content}


def _draw(study: StudyRecord, metric: Metric, rows: Sequence[RowStatistics]) -> dict[str, dict[str, bytes]]:
    """Return the figures that have content, by name."""
    kind = study_tables.choose_class_metric(study.rows)
    drawn = {
        "comparison": study_figures.draw_settled(study, metric, rows)
        if study.settling
        else study_figures.draw_means([("", rows)], metric, study.title),
        "curves": study_figures.draw_curves(study),
        "per_class": study_figures.draw_class_rates(study, kind) if kind else {},
        "parameters": study_figures.draw_costs(study, metric, rows, "parameters"),
        "time": study_figures.draw_costs(study, metric, rows, "seconds"),
        **_draw_tuning(study),
    }
    for name, row in zip(_confusion_names(study), study.rows, strict=True):
        drawn[name] = study_figures.draw_confusion(study, row)
    return {name: content for name, content in drawn.items() if content}


def _confusion_names(study: StudyRecord) -> list[str]:
    return [f"confusion_{number:02}_{slug(row.name)}" for number, row in enumerate(study.rows, 1)]


def _build_row_details(study: StudyRecord, row: Row, classes: Table | None, confusion: Mapping[str, bytes]) -> str:
    """Return the part of the page about one row: settings, confusion matrix, mistakes, classes."""
    pictures = [page.picture(confusion["png"], f"Confusion matrix of {row.name}")] if confusion else []
    if mistakes := study_figures.find_mistakes_picture(row):
        of = f"{'Worst' if mistakes.stem == 'worst' else 'Wrong'} predictions of {mistakes.parent.parent.name}"
        pictures.append(page.picture(mistakes.read_bytes(), f"{of}, {row.name}", of))
    choice = study.tuning.choice_of(row.base, row.swept) if study.tuning else None
    entries = {
        "settings": " ".join(row.overrides),
        "chosen by tuning": tuning_tables.format_settings(choice.values) if choice else "",
        "note": row.note,
        "published by": str(row.published.get("source") or ""),
        "runs": ", ".join(f"{run.path.name}: {run.state}" for run in row.runs),
    }
    parts = [page.facts((term, text) for term, text in entries.items() if text)]
    parts += [page.pair(pictures)] if pictures else []
    return page.collapsible(row.name, [*parts, page.table(classes)] if classes else parts)
