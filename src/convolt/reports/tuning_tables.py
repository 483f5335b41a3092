"""The tables of tuned settings: what was chosen, every trial, and the rows at their options' own defaults."""

import shlex
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from convolt.reports.decisions import TrialRecord, TunedRow, Tuning
from convolt.reports.formats import NONE, Metric, duration_unit, plural
from convolt.reports.records import RunRecord, StudyRecord
from convolt.reports.table import ROW, Column, Note, Record, Table
from convolt.system.installation import command_name

AT_CHOSEN_SETTINGS = (
    "at the chosen settings; how much another search would have chosen differently is not in the interval"
)


def format_setting(value: Any) -> str:
    """Return a setting as Hydra takes it."""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def format_settings(values: Mapping[str, Any]) -> str:
    """Return settings as overrides."""
    return " ".join(f"{key}={format_setting(value)}" for key, value in values.items())


def measure_processor_seconds(run: RunRecord) -> float | None:
    """Return a run's processor time; of older runs, the seconds times the threads; None where neither is recorded."""
    if (recorded := run.number("cpu_seconds")) is not None:
        return recorded
    seconds, threads = run.number("seconds"), run.number("threads")
    return None if seconds is None or threads is None else seconds * threads


def _make_setting_columns(tuning: Tuning, values: list[Mapping[str, Any]]) -> list[Column]:
    """Return a column for each tuned key, of numbers where all values are some."""
    columns = []
    for key in tuning.keys:
        found = [each[key] for each in values if key in each]
        is_text = not all(isinstance(each, int | float) and not isinstance(each, bool) for each in found)
        columns.append(Column(key, key, _format_with_edge, (f"{key} edge",), is_text))
    return columns


def _format_with_edge(value: Any, edge: str | None = None) -> str:
    shown = format_setting(value)
    return f"{shown}, {'highest' if edge == 'high' else 'lowest'} tried" if edge else shown


def build_choices(tuning: Tuning) -> Table:
    """Build the table of what each row is run with, and what it cost to find it."""
    records, notes = [], []
    for row in tuning.rows:
        runs = [each.run for trial in row.trials for each in trial.runs]
        costs = [cost for run in runs if (cost := measure_processor_seconds(run)) is not None]
        finished = [trial for trial in row.trials if trial.finished]
        record: dict[str, object] = {"row": row.name}
        if row.choice:
            record |= {key: row.choice.values.get(key) for key in tuning.keys}
            record |= {f"{key} edge": row.choice.edges[key] for key in tuning.keys if key in row.choice.edges}
            record |= {"trial": row.choice.trial, "score": row.choice.score}
        records.append(
            record
            | {"trials": len(finished), "trials_planned": len(row.trials)}
            | {"diverged": sum(trial.diverged for trial in row.trials)}
            | {"processor_seconds": sum(costs) if costs else None, "runs_measured": len(costs)}
        )
        if row.choice is None:
            notes.append(Note(row.name, "score", "no choice yet: trials have not finished"))
        elif row.choice.score is None:
            notes.append(Note(row.name, "score", "every trial diverged: the row runs with its first"))
        if costs and len(costs) < len(runs):
            text = f"of {len(costs)} of {len(runs)} runs; the others record no time"
            notes.append(Note(row.name, "processor_seconds", text))
    unit, length = duration_unit(_number(record["processor_seconds"]) for record in records)
    metric = tuning.monitor
    columns = [
        ROW,
        *_make_setting_columns(tuning, [row.choice.values for row in tuning.rows if row.choice]),
        Column(metric.label, "score", metric.text),
        Column("trials", "trials", _format_trials, ("trials_planned",)),
        Column("diverged", "diverged"),
        Column(f"processor time, {unit}", "processor_seconds", lambda seconds: f"{seconds / length:.1f}"),
    ]
    edges = any(row.choice and row.choice.edges for row in tuning.rows)
    total = sum(_number(record["processor_seconds"]) or 0 for record in records)
    caption = (
        f"The trial of each row with the best {metric.words} at the checkpoint that would be tested, mean over "
        f"{tuning.seed_list}. Trials never read test images; one that diverged counts as the worst. "
    )
    if edges:
        caption += "Highest or lowest tried: the choice lies at the edge of its range, and beyond it may be better. "
    caption += "Processor time: of all cores, over all trials"
    caption += f"; {total / length:.1f} {unit} in sum." if total else "."
    if any(row.name != "search" for row in tuning.rows):
        caption += f" Results are {AT_CHOSEN_SETTINGS}."
    return Table("choices", "Chosen settings", caption, columns, records, notes)


def _number(value: object) -> float | None:
    return value if isinstance(value, float) else None


def _format_trials(finished: int, planned: int) -> str:
    return str(finished) if finished == planned else f"{finished} of {planned}"


def build_trials(tuning: Tuning) -> Table:
    """Build the table of every trial."""
    records = [
        {"row": row.name, "trial": trial.number, **trial.values, "score": trial.score, "state": _state(row, trial)}
        | {f"score seed={each.run.seed}": each.score for each in trial.runs}
        for row in tuning.rows
        for trial in row.trials
    ]
    metric = tuning.monitor
    columns = [
        ROW,
        Column("trial", "trial"),
        *_make_setting_columns(tuning, [trial.values for row in tuning.rows for trial in row.trials]),
        Column(metric.label, "score", metric.text),
        Column("state", "state", is_text=True),
    ]
    caption = f"Every trial: {metric.words} at the checkpoint that would be tested, mean over the tuning seeds."
    return Table("trials", "All trials", caption, columns, records)


def _state(row: TunedRow, trial: TrialRecord) -> str:
    """Return what became of a trial."""
    if trial.diverged:
        return "diverged"
    if row.choice and row.choice.trial == trial.number:
        return "chosen"
    return "finished" if trial.finished else ", ".join(dict.fromkeys(each.run.state for each in trial.runs))


def build_untuned(study: StudyRecord, metric: Metric) -> Table | None:
    """Build the table of tuned rows at their options' own defaults; None where no such run has the metric."""
    records: list[Record] = []
    for row in study.rows:
        values = [value for run in row.untuned if (value := run.number(metric.name)) is not None]
        untuned, tuned = fmean(values) if values else None, row.mean(metric.name)
        records.append(
            {"row": row.name, "metric": metric.name, "n_untuned": len(values), "untuned": untuned}
            | {"n_tuned": len(row.values(metric.name)), "tuned": tuned}
            | {"gain": None if untuned is None or tuned is None else tuned - untuned, "_expected": len(row.untuned)}
        )
    if all(record["untuned"] is None for record in records):
        return None
    columns = [
        ROW,
        Column("n", "n_untuned", _format_trials, ("_expected",)),
        Column(f"at defaults, {metric.label}", "untuned", metric.text),
        Column("n tuned", "n_tuned"),
        Column("tuned", "tuned", metric.text),
        Column("tuned minus defaults", "gain", metric.signed),
    ]
    caption = (
        f"Mean {metric.label} of each row at its option's own defaults, beside its mean at the chosen settings: what "
        "the table would have said without tuning. A description, outside of every claim: no interval, no test."
    )
    return Table("untuned", "At the option's own defaults", caption, columns, records)


def describe_tuning(tuning: Tuning) -> str:
    """Return the paragraph on the methods of tuning."""
    count = max((len(row.trials) for row in tuning.rows), default=0)
    return (
        f"Each row was tuned by {plural(count, 'trial')}, run with "
        f"{tuning.seed_list}, which no row uses otherwise. The trial with the best {tuning.monitor.words} is "
        f"chosen; test images were not read. The numbers of this page are {AT_CHOSEN_SETTINGS}."
    )


def describe_search_methods(tuning: Tuning) -> str:
    """Return the paragraph on the methods of a search."""
    return (
        f"Each trial trained with {tuning.seed_list} and was scored by {tuning.monitor.words} at the checkpoint "
        "that would be tested. Test images were not read. The best of many scores flatters: quote what a run of the "
        "best setting says on test images, not this score."
    )


def find_best(tuning: Tuning) -> tuple[TunedRow, Mapping[str, Any], float] | None:
    """Return the setting with the best score of all rows so far, and its score; None where there is none."""
    scored = [
        (row, trial.values, trial.score) for row in tuning.rows for trial in row.trials if trial.score is not None
    ]
    sign = -1 if tuning.monitor.lower_is_better else 1
    return max(scored, key=lambda each: sign * each[2], default=None)


def describe_search(study: StudyRecord) -> list[tuple[str, str]]:
    """Return the best setting of a search and the command that runs and tests it, as (term, text)."""
    tuning = study.tuning
    assert tuning is not None
    if (best := find_best(tuning)) is None:
        return [("best setting", f"{NONE}; no trial has finished")]
    row, values, score = best
    done = all(row.choice for row in tuning.rows)
    unit = "%" if tuning.monitor.percent else ""
    text = f"{format_settings(values)}, {tuning.monitor.words} {tuning.monitor.text(score)}{unit}"
    swept = row.swept.split(", ") if row.swept else []
    command = shlex.join([*command_name("train").split(), *study.fixed, *swept, *format_settings(values).split()])
    return [("best setting" if done else "best so far", text), *([("run and test it", command)] if done else [])]
