"""The tables of a report on one study, sweep or group of runs."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from convolt.reports.candidate_tables import mark_used_rows
from convolt.reports.cost_tables import make_cost_record, make_time_column
from convolt.reports.decisions import Tuning
from convolt.reports.earlier import find_added_seeds
from convolt.reports.formats import NONE, Metric, format_p_value, plural
from convolt.reports.provenance import PROVENANCE, describe_checkpoint, describe_data, note_provenance, shorten_hash
from convolt.reports.records import Row, RunRecord, StudyRecord, finite
from convolt.reports.settled_tables import (
    describe_settled,
    make_settled_columns,
    make_settled_notes,
    make_settled_record,
)
from convolt.reports.statistics import Difference, RowStatistics, summarize, without_interval
from convolt.reports.table import ROW, Column, Note, Record, Table, read_attributes
from convolt.reports.tuning_tables import AT_CHOSEN_SETTINGS

RUN_NUMBERS = (
    *("parameters", "trainable_parameters", "macs", "seconds", "cpu_seconds", "training_seconds"),
    *("images_per_second", "peak_memory_bytes", "slots", "threads", "epochs", "tested_epoch"),
)
CLASS_METRICS = ("precision", "recall", "f1", "iou", "dice", "accuracy")


def make_difference_record(difference: Difference | None) -> Record:
    """Return the unrounded numbers of a difference."""
    names = {"difference": "mean", "difference_low": "low", "difference_high": "high", "difference_method": "method"}
    return read_attributes(difference, names | {"pairs": "n", "p_value": "p_value", "p_value_holm": "p_holm"})


def format_run_count(n: int, expected: int) -> str:
    """Return how many of the expected runs a mean is over: "3", or "2 of 3"."""
    return str(n) if n == expected else f"{n} of {expected}"


def make_difference_notes(row: str, difference: Difference | None) -> list[Note]:
    """Return the remark on a difference that is not what the caption says."""
    if difference is None:
        return []
    if difference.method == "Welch":
        text = "unpaired (Welch's t test): fewer than two seeds in common"
    elif difference.method == "single":
        text = f"{'one common seed' if difference.n else 'no common seed'}: no interval, no test"
    elif difference.p_value is None:
        text = "all differences are the same: an interval of zero width, no test"
    elif difference.left_out:
        text = f"over the {difference.n} seeds that both rows have, so it is not the difference of the means shown"
    else:
        return []
    return [Note(row, "difference", text)]


def make_significance_clause(differences: Sequence[Difference | None]) -> str:
    """End a caption on differences: with the test of the p-values and the number that they are corrected for."""
    m = sum(1 for one in differences if one and one.p_value is not None)
    return f"; p: paired t test, Holm-corrected over {plural(m, 'row')}." if m else "."


def build_results(study: StudyRecord, metric: Metric, rows: Sequence[RowStatistics]) -> Table:
    """Build the main table: mean, interval, difference from the baseline, published value."""
    notes = [*note_provenance(study), *mark_used_rows(study, "published")]
    for one in rows:
        if one.summary and one.summary.deviation == 0:
            width = "" if study.settling else ": an interval of zero width"
            notes.append(Note(one.row.name, "mean", f"all seeds gave the same value{width}"))
        if study.settling is None:
            notes += make_difference_notes(one.row.name, one.difference)
        else:
            notes += make_settled_notes(one)
    baselines = {row.name for row in study.rows if study.baseline in (row.name, row.base)}

    def difference(mean: float | None, high: float | None, row: str) -> str:
        return "baseline" if row in baselines else metric.interval(mean, high, signed=True)

    columns = [
        ROW,
        Column("n", "n", format_run_count, more_keys=("runs_expected",)),
        _make_mean_column(study, metric, f"{metric.label}, mean", "mean", "interval_high"),
        Column("SD", "standard_deviation", metric.text),
    ]
    caption = f"{study.name}, {metric.label}: mean over seeds"
    if study.settling is None:
        caption += " ± half of its 95% interval (Student's t, n - 1 degrees of freedom)"
        caption += "" if any(len(one.values) > 1 for one in rows) else ", which one seed does not have"
    caption += "; SD: sample standard deviation."
    if study.settling:
        columns += make_settled_columns(study, metric)
        caption += describe_settled(study, metric, rows)
    elif any(one.difference for one in rows):
        columns.append(Column("difference ± 95%", "difference", difference, more_keys=("difference_high", "row")))
        columns.append(Column("p", "p_value_holm", format_p_value))
        swept = " with the same swept values" if any(row.swept for row in study.rows) else ""
        caption += f" Differences from '{study.baseline}'{swept}, paired by seed, ± half of their 95% interval"
        caption += make_significance_clause([one.difference for one in rows])
    if any(one.published is not None for one in rows):
        columns.append(Column("published", "published", metric.text))
        columns.append(Column("ours minus it", "difference_from_published", metric.signed))
    if study.tuning:
        caption += f" Rows are tuned: everything here is {AT_CHOSEN_SETTINGS}."
    caption += f" {describe_checkpoint(study)}" + "".join(f" Data: {line}." for line in describe_data(study))
    earlier = find_added_seeds(study)
    records = [_make_result_record(study, one, metric, earlier) for one in rows]
    return Table("results", "Results", caption, columns, records, notes)


def _make_mean_column(study: StudyRecord, metric: Metric, label: str, key: str, high: str) -> Column:
    """Return a column of means, with their t intervals unless results decided how many seeds ran."""
    if study.settling:
        return Column(label, key, metric.text)
    return Column(f"{label} ± 95%", key, metric.interval, more_keys=(high,))


def _make_result_record(study: StudyRecord, one: RowStatistics, metric: Metric, earlier: Mapping[str, int]) -> Record:
    """Return all numbers of one row; `earlier`: how many seeds rows had that were reported before some were added."""
    row, s, published = one.row, one.summary, one.published
    numbers = {"mean": "mean", "standard_deviation": "deviation"}
    inside = {"published_in_interval": None if s is None or published is None else s.contains(published)}
    if study.settling is None:
        numbers |= {"interval_low": "low", "interval_high": "high"}
        difference = make_difference_record(one.difference)
    else:
        difference, inside = make_settled_record(study, metric, one), {}
    return {
        "row": row.name,
        "overrides": " ".join(row.overrides),
        "metric": metric.name,
        "runs_expected": len(row.runs),
        **({"seeds_at_first_report": earlier[row.name]} if row.name in earlier else {}),
        "n": len(one.values),
        **read_attributes(s, numbers | {"best": "best", "worst": "worst"}),
        **difference,
        "published": published,
        "published_source": row.published.get("source"),
        "difference_from_published": None if s is None or published is None else s.mean - published,
        **inside,
        **make_cost_record(row, metric),
    }


def build_metrics(study: StudyRecord) -> Table | None:
    """Build the table of every test metric; None where there is only one."""
    every = dict.fromkeys(name for run in study.runs for name in run.result.get("metrics", {}))
    names = [name for name in every if name.startswith("test/")]
    if len(names) < 2:
        return None
    records = []
    for row in study.rows:
        record: dict[str, object] = {"row": row.name}
        for name in names:
            columns_of_one = {f"{name} mean": "mean", f"{name} sd": "deviation", f"_{name} high": "high"}
            record |= read_attributes(summarize(row.values(name).values()), columns_of_one)
        records.append(record)
    columns = [
        Column(metric.label.removeprefix("test "), f"{metric.name} mean", metric.interval, (f"_{metric.name} high",))
        if study.settling is None
        else Column(metric.label.removeprefix("test "), f"{metric.name} mean", metric.text)
        for metric in map(Metric, names)
    ]
    caption = "Every metric of the test images: mean over seeds"
    caption += ", without a claim." if study.settling else " ± half of its 95% interval."
    return Table("metrics", "All test metrics", caption, [ROW, *columns], records)


def build_published(study: StudyRecord) -> Table | None:
    """Build the table of every published number beside ours; None where there are none."""
    records = []
    for row in study.rows:
        for name, value in row.published.items():
            if name in ("source", "note") or finite(value) is None:
                continue
            values = row.values(name)
            s = summarize(values.values())
            if study.settling:
                s = without_interval(s)
            records.append(
                {"row": row.name, "metric": name, "published": value}
                | {"mean": s.mean if s else None, "n": len(values), "difference": s.mean - value if s else None}
                | ({} if study.settling else {"published_in_interval": s.contains(value) if s else None})
                | {"source": str(row.published.get("source") or NONE), "_high": s.high if s else None}
            )
    if not records:
        return None
    columns = [
        ROW,
        Column("metric", "metric", lambda name: Metric(name).words, is_text=True),
        Column("published", "published", lambda value, name: Metric(name).text(value), ("metric",)),
        Column("ours ± 95%", "mean", lambda mean, name, high: Metric(name).interval(mean, high), ("metric", "_high")),
        Column("difference", "difference", lambda value, name: Metric(name).signed(value), ("metric",)),
        Column("in interval", "published_in_interval", lambda inside: "yes" if inside else "no", is_text=True),
        Column("source", "source", is_text=True),
    ]
    caption = (
        "Published numbers beside ours, rates in percent; in interval: whether the published number lies within our "
        "95% interval of the mean, which says nothing about how much the published number itself would vary."
    )
    if study.settling:
        columns[3] = Column("ours", "mean", lambda mean, name: Metric(name).text(mean), ("metric",))
        del columns[5]
        caption = "Published numbers beside ours, rates in percent, without a claim."
    notes = mark_used_rows(study, "published_in_interval" if study.settling is None else "published")
    return Table("published", "Against the published numbers", caption, columns, records, notes)


def build_unfinished(studies: Sequence[StudyRecord], metric: Metric) -> Table | None:
    """Build the table of runs that have no result, with the reason of each; None where all have one."""
    records: list[Record] = []
    for study, row, run in ((a, b, c) for a in studies for b in a.rows for c in (*b.runs, *b.untuned)):
        state, reason = str(run.state), run.reason
        if run.state == "finished":
            if run.number(metric.name) is not None:
                continue
            state, reason = f"no {metric.name}", "result.json has no finite number of this name"
            if run.diverged:
                state, reason = "diverged", str(run.result.get("reason"))
        folder = f"{study.name}/{_relative_folder(study, run)}" if len(studies) > 1 else _relative_folder(study, run)
        records.append({"row": row.name, "seed": run.seed, "state": state, "reason": reason, "folder": folder})
    records += [record for study in studies if study.tuning for record in _list_stopped_trials(study, study.tuning)]
    if not records:
        return None
    counts = ", ".join(f"{n} {state}" for state, n in Counter(record["state"] for record in records).most_common())
    caption = f"{counts}. These runs are in no mean above"
    if any(record["state"] != "diverged" for record in records):
        caption += "; running the study's command again completes them"
    caption += "."
    columns = [Column(key, key, is_text=True) for key in ("row", "seed", "state", "reason", "folder")]
    return Table("unfinished", "Runs without a result", caption, columns, records)


def _list_stopped_trials(study: StudyRecord, tuning: Tuning) -> Iterator[Record]:
    """Yield the trials that stopped without a result, which keep their row from a choice."""
    for row, each in ((a, c) for a in tuning.rows for b in a.trials for c in b.runs):
        run = each.run
        if not each.diverged and run.state in ("failed", "interrupted", "cut off"):
            folder = _relative_folder(study, run)
            yield {"row": row.name, "seed": run.seed, "state": run.state, "reason": run.reason, "folder": folder}


def _relative_folder(study: StudyRecord, run: RunRecord) -> str:
    """Return where a run is, seen from its study."""
    return str(run.path.relative_to(study.path)) if run.path != study.path else run.path.name


def choose_class_metric(rows: Iterable[Row]) -> str | None:
    """Return which per-class number is reported: IoU, or else accuracy or recall; None where runs have none."""
    found = {key for row in rows for entry in row.per_class().values() for key in entry}
    return next((key for key in ("iou", "accuracy", "recall", "f1") if key in found), None)


def build_ranking(study: StudyRecord, metric: Metric, rows: Sequence[RowStatistics]) -> Table:
    """Build the ranking of the rows, with the best and worst classes of each, three at most."""
    kind = choose_class_metric(one.row for one in rows)
    means = [(one.summary.mean, one.row) for one in rows if one.summary]
    means.sort(key=lambda each: each[0], reverse=not metric.lower_is_better)
    records = []
    for rank, (mean, row) in enumerate(means, 1):
        record: dict[str, object] = {"rank": rank, "row": row.name, "mean": mean}
        if kind:
            scores = {name: entry[kind] for name, entry in row.per_class().items() if kind in entry}
            order = sorted(scores, key=lambda name: scores[name], reverse=True)
            each = max(1, min(3, len(order) // 2))
            for key, names in (("best_classes", order[:each]), ("worst_classes", order[::-1][:each])):
                record[key] = ", ".join(f"{name} ({scores[name] * 100:.1f})" for name in names) or NONE
        records.append(record)
    columns = [Column("rank", "rank", is_text=True), ROW, Column(metric.label, "mean", metric.text)]
    neighbors = "Neighbors" if study.settling else "Neighbors whose intervals overlap"
    caption = f"Rows by mean {metric.label}. {neighbors} may well change places with other seeds."
    if kind:
        columns += [Column(f"{which} classes", f"{which}_classes", is_text=True) for which in ("best", "worst")]
        caption += f" Classes by their {kind} in percent, mean over seeds."
    return Table("ranking", "Ranking", caption, columns, records)


def build_per_class(row: Row) -> Table | None:
    """Build one row's per-class table, with published numbers beside ours where there are any."""
    ours = row.per_class()
    theirs = {str(entry.get("class")): entry for entry in row.published_per_class}
    if not ours:
        return None
    printed = [key for key in CLASS_METRICS if any(finite(entry.get(key)) is not None for entry in theirs.values())]
    records = [
        {"row": row.name, "class": name, **entry}
        | {f"published_{key}": finite(theirs.get(name, {}).get(key)) for key in printed}
        for name, entry in ours.items()
    ]
    columns = [Column("class", "class", is_text=True)]
    measured = [key for key in CLASS_METRICS if any(key in entry for entry in ours.values())]
    for key in dict.fromkeys((*measured, *printed)):
        label = {"f1": "F1", "iou": "IoU", "dice": "Dice"}.get(key, key)
        columns.append(Column(label, key, Metric(key).text))
        if key in printed:
            columns.append(Column("published", f"published_{key}", Metric(key).text))
    columns.append(Column("support", "support", "{:.0f}".format))
    caption = f"{row.name}: each class of the test images, in percent, mean over {len(row.finished)} run(s)."
    if theirs:
        caption += f" Published: {row.published.get('source') or 'see the study'}."
    return Table("per_class", f"Classes of {row.name}", caption, columns, records)


def build_runs(study: StudyRecord, metric: Metric) -> Table:
    """Build the table of single runs, from which every other number can be worked out again."""
    records = [
        {"row": row.name, "seed": run.seed, "state": run.state, "folder": _relative_folder(study, run)}
        | run.result.get("metrics", {})
        | {key: run.number(key) for key in RUN_NUMBERS}
        | ({key: run.provenance(key) for key in PROVENANCE} if run.result else {})
        | {"config_hash": run.result.get("config_hash")}
        | ({"extended": run.extended} if run.extended else {})
        for row in study.rows
        for run in row.runs
    ]
    columns = [
        ROW,
        Column("seed", "seed"),
        Column("state", "state", lambda *parts: ", ".join(filter(None, parts)), more_keys=("extended",), is_text=True),
        Column(metric.label, metric.name, metric.text),
        make_time_column(records),
        Column("commit", "git_commit", lambda commit: shorten_hash("git_commit", commit), is_text=True),
        Column("folder", "folder", is_text=True),
    ]
    return Table("runs", "All runs", "Every run of this table.", columns, records)
