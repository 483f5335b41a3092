"""The tables of a report."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import pandas as pd

from convolt.reports.records import Row, StudyRecord, finite
from convolt.reports.remarks import remarks
from convolt.reports.statistics import NONE, Metric, RowStatistics, compare, correct, ranked, summarize
from convolt.reports.table import Cell, Notes, Table

PROVENANCE = {
    "git_commit": "commit",
    "dataset_hash": "prepared data",
    "device": "device",
    "precision": "precision",
    "torch": "PyTorch",
}
RUN_NUMBERS = (
    *("parameters", "trainable_parameters", "macs", "seconds", "images_per_second", "peak_memory_bytes"),
    *("slots", "threads", "epochs", "tested_epoch"),
)
CHECKPOINTS = {"best": "the one that was best on validation", "last": "the last epoch's"}


# Cells


def _number(metric: Metric, value: float | None, signed: bool = False) -> Cell:
    return Cell(metric.text(value, signed), value)


def _interval(metric: Metric, mean: float, half: float | None, signed: bool = False) -> str:
    """Return "84.30 ± 1.20"; a dash stands for the interval that one run does not have."""
    return f"{metric.text(mean, signed)} ± {metric.text(half)}"


def _si(value: float | None) -> Cell:
    """Return a count as 61.7 k, 11.17 M or 1.81 G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value is not None and value >= size:
            return Cell(f"{value / size:.{1 if unit == 'k' else 2}f} {unit}", value)
    return Cell(NONE if value is None else f"{value:.0f}", value)


def p_text(value: float | None) -> str:
    """Return a p-value with three decimals."""
    return NONE if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def duration_unit(seconds: Iterable[float | None]) -> tuple[str, float]:
    """Return the unit in which all of several durations read well, and its length in seconds."""
    longest = max((value for value in seconds if value is not None), default=0.0)
    return ("h", 3600.0) if longest >= 7200 else ("min", 60.0) if longest >= 120 else ("s", 1.0)


def _runs(row: Row, n: int) -> Cell:
    return Cell(str(n) if n == len(row.runs) else f"{n} of {len(row.runs)}", n)


# Tables


def _provenance_marks(study: StudyRecord, notes: Notes) -> dict[str, tuple[str, ...]]:
    """Mark the rows that were not made like most runs of the table.

    Args:
        study: The table.
        notes: Takes the remarks.

    Returns:
        The letters of each row.
    """
    marks: dict[str, list[str]] = {row.name: [] for row in study.rows}
    for row in study.rows:
        if row.note:
            marks[row.name].append(notes.mark(row.note))
        for text, number in Counter(run.extended for run in row.finished if run.extended).items():
            of = "" if number == len(row.finished) else f" ({number} of {len(row.finished)} runs)"
            marks[row.name].append(notes.mark(f"{text}{of}"))
    for key, name in (*PROVENANCE.items(), ("checkpoint", "tested checkpoint")):
        counts = Counter(run.provenance(key) for row in study.rows for run in row.finished)
        if len(counts) < 2:
            continue
        usual = counts.most_common(1)[0][0]
        for row in study.rows:
            for other in sorted({run.provenance(key) for run in row.finished} - {usual}):
                note = f"{name} {_short(key, other)}; most runs of this table: {_short(key, usual)}"
                marks[row.name].append(notes.mark(note))
    return {name: tuple(letters) for name, letters in marks.items()}


def _short(key: str, value: str) -> str:
    """Shorten a commit or a digest to what people quote."""
    if key == "dataset_hash":
        return value[:12]
    return re.sub(r"^([0-9a-f]{8})[0-9a-f]+", r"\1", value) if key == "git_commit" else value


def provenance(study: StudyRecord) -> list[tuple[str, str]]:
    """Return what the runs of a table were made with, as (what, values with their counts where they differ)."""
    facts = []
    for key, name in (*PROVENANCE.items(), ("checkpoint", "tested checkpoint")):
        counts = Counter(_short(key, run.provenance(key)) for run in study.runs if run.state == "finished")
        values = [value if len(counts) == 1 else f"{value} ({n} runs)" for value, n in counts.most_common()]
        if values:
            facts.append((name, ", ".join(values)))
    return facts


def checkpoint_text(study: StudyRecord) -> str:
    """Say in a sentence which checkpoint was tested."""
    tested = sorted({run.provenance("checkpoint") for run in study.runs if run.state == "finished"})
    if not tested:
        return "No run has finished."
    if tested == ["not recorded"]:
        return "The runs do not record which checkpoint was tested."
    if len(tested) > 1:
        return f"Tested checkpoints differ: {', '.join(tested)}."
    return f"Tested checkpoint: {CHECKPOINTS.get(tested[0], tested[0])}."


def _tests_text(study: StudyRecord, rows: Sequence[RowStatistics]) -> str:
    """Say how the differences and p-values of a table came about."""
    if not any(one.difference for one in rows):
        return ""
    m = sum(1 for one in rows if one.difference and one.difference.p_value is not None)
    swept = " with the same swept values" if any(row.swept for row in study.rows) else ""
    text = f" Differences from '{study.baseline}'{swept}, paired by seed, ± half of their 95% interval"
    return text + (f"; p: paired t test, Holm-corrected over {m} row{'' if m == 1 else 's'}." if m else ".")


def difference_marks(one: RowStatistics, notes: Notes) -> tuple[str, ...]:
    """Mark a difference that is not what the caption says."""
    difference = one.difference
    if difference is None:
        return ()
    if difference.method == "Welch":
        return (notes.mark("unpaired (Welch's t test): fewer than two seeds in common"),)
    if difference.method == "single":
        pairs = "one common seed" if difference.n else "no common seed"
        return (notes.mark(f"{pairs}: no interval, no test"),)
    if difference.p_value is None:
        return (notes.mark("the differences do not spread at all: an interval without width, no test"),)
    if difference.left_out:
        seeds = f"the {difference.n} seeds that both rows have"
        return (notes.mark(f"over {seeds}, and so not the difference of the means shown"),)
    return ()


def results(study: StudyRecord, metric: Metric, rows: Sequence[RowStatistics]) -> Table:
    """Build the main table: mean, interval, difference from the baseline, published value."""
    notes = Notes()
    marks = _provenance_marks(study, notes)
    compared = any(one.difference for one in rows)
    published = any(one.published is not None for one in rows)
    header = ["row", "n", f"{metric.label}, mean ± 95%", "SD"]
    header += ["difference ± 95%", "p"] if compared else []
    header += ["published", "ours less it"] if published else []
    lines, data = [], []
    for one in rows:
        s, d = one.summary, one.difference
        line = [Cell(one.row.name, one.row.name, marks[one.row.name]), _runs(one.row, s.n if s else 0)]
        if s:
            spread = (
                () if s.deviation != 0 else (notes.mark("all seeds gave the same value: an interval without width"),)
            )
            line += [Cell(_interval(metric, s.mean, s.half_width), s.mean, spread), _number(metric, s.deviation)]
        else:
            line += [Cell(NONE), Cell(NONE)]
        if compared:
            text = _interval(metric, d.mean, d.half_width, signed=True) if d else NONE
            if one.row.name == study.baseline or (study.baseline and one.row.base == study.baseline):
                text = "baseline"
            line.append(Cell(text, d.mean if d else None, difference_marks(one, notes)))
            line.append(Cell(p_text(d.p_holm), d.p_holm) if d else Cell(NONE))
        if published:
            line += [_number(metric, one.published), _number(metric, one.from_published, signed=True)]
        lines.append(tuple(line))
        data.append(_record(one, metric))
    n = {one.summary.n for one in rows if one.summary}
    caption = (
        f"{study.name}, {metric.label}: mean over seeds ± half of its 95% interval (Student's t, n - 1 "
        f"degrees of freedom){'' if max(n, default=0) > 1 else ', which one seed does not have'}; SD: sample standard "
        f"deviation.{_tests_text(study, rows)} {checkpoint_text(study)}"
    )
    caption += "".join(f" Data: {line}." for line in remarks(study))
    return Table("results", "Results", caption, tuple(header), tuple(lines), tuple(notes.texts), pd.DataFrame(data))


def _record(one: RowStatistics, metric: Metric) -> dict[str, object]:
    """Return all numbers of one row, unrounded."""
    row, s, d = one.row, one.summary, one.difference
    train, val = (_split(row, metric, split) for split in ("train", "val"))
    gap = _gap(row, metric)
    inside = None
    if s and s.low is not None and s.high is not None and one.published is not None:
        inside = s.low <= one.published <= s.high
    commits = sorted({run.provenance("git_commit") for run in row.finished})
    return {
        "row": row.name,
        "overrides": " ".join(row.overrides),
        "metric": metric.name,
        "runs_expected": len(row.runs),
        "n": s.n if s else 0,
        "mean": s.mean if s else None,
        "standard_deviation": s.deviation if s else None,
        "interval_low": s.low if s else None,
        "interval_high": s.high if s else None,
        "best": s.best if s else None,
        "worst": s.worst if s else None,
        "difference": d.mean if d else None,
        "difference_low": d.low if d else None,
        "difference_high": d.high if d else None,
        "difference_method": d.method if d else None,
        "pairs": d.n if d else None,
        "p_value": d.p_value if d else None,
        "p_value_holm": d.p_holm if d else None,
        "published": one.published,
        "published_source": row.published.get("source"),
        "difference_from_published": one.from_published,
        "published_in_interval": inside,
        "train": train,
        "val": val,
        "train_test_gap": gap,
        "parameters": row.mean("parameters"),
        "macs": row.mean("macs"),
        "seconds": row.mean("seconds"),
        "images_per_second": row.mean("images_per_second"),
        "peak_memory_bytes": row.mean("peak_memory_bytes"),
        "shared_machine": any((run.number("slots") or 1) > 1 for run in row.finished),
        "git_commits": " ".join(commits),
    }


def _split_kind(row: Row, metric: Metric) -> str:
    """Return the metric to set beside the test's on the other splits: its own kind, or accuracy where not recorded."""
    return metric.kind if row.mean(f"train/{metric.kind}") is not None else "accuracy"


def _split(row: Row, metric: Metric, split: str) -> float | None:
    return row.mean(f"{split}/{_split_kind(row, metric)}")


def _gap(row: Row, metric: Metric) -> float | None:
    train, test = _split(row, metric, "train"), _split(row, metric, "test")
    return None if train is None or test is None else train - test


def costs(metric: Metric, rows: Sequence[RowStatistics]) -> Table:
    """Build the table of spread, generalization and cost."""
    notes = Notes()
    name, length = duration_unit(one.row.mean("seconds") for one in rows)
    kinds = {_split_kind(one.row, metric) for one in rows if one.row.finished}
    kind = Metric(f"train/{kinds.pop() if len(kinds) == 1 else 'accuracy'}")
    header = ("row", "best", "worst", "train", "val", "gap", "params", "MACs", f"time, {name}", "images/s", "epoch")
    lines = []
    for one in rows:
        row, s, seconds = one.row, one.summary, one.row.mean("seconds")
        slots = max((int(run.number("slots") or 1) for run in row.finished), default=1)
        shared = (
            (notes.mark("timed while other runs shared the machine: too slow by an unknown factor"),)
            if slots > 1
            else ()
        )
        pace = row.mean("images_per_second")
        epochs = sorted({int(run.number("tested_epoch") or 0) for run in row.finished if "tested_epoch" in run.result})
        lines.append(
            (
                Cell(row.name, row.name),
                _number(metric, s.best if s else None),
                _number(metric, s.worst if s else None),
                _number(kind, _split(row, metric, "train")),
                _number(kind, _split(row, metric, "val")),
                _number(kind, _gap(row, metric), signed=True),
                _si(row.mean("parameters")),
                _si(row.mean("macs")),
                Cell(NONE) if seconds is None else Cell(f"{seconds / length:.1f}", seconds, shared),
                Cell(NONE) if pace is None else Cell(f"{pace:,.0f}", pace, shared),
                Cell(NONE.join(map(str, dict.fromkeys((epochs[0], epochs[-1])))), epochs[-1]) if epochs else Cell(NONE),
            )
        )
    caption = (
        f"Best and worst seed of {metric.label}; {kind.kind.replace('_', ' ')} on training images (as measured while "
        "training, with augmentation) and validation images; gap: train less test; MACs: multiply-adds of one image; "
        "time: training, the mean of one run; epoch: of the tested checkpoint, from the earliest to the latest seed."
    )
    # A column that no row fills says nothing.
    kept = [i for i in range(len(header)) if i < 1 or any(line[i].text != NONE for line in lines)]
    data = pd.DataFrame([_record(one, metric) for one in rows])
    data = data.loc[:, ["row", "best", "worst", *list(data.columns)[list(data.columns).index("train") :]]]
    return Table(
        "costs",
        "Spread, generalization and cost",
        caption,
        tuple(header[i] for i in kept),
        tuple(tuple(line[i] for i in kept) for line in lines),
        tuple(notes.texts),
        data,
    )


def metrics(study: StudyRecord) -> Table | None:
    """Build the table of every test metric; None where there is only one."""
    names = dict.fromkeys(
        name for run in study.runs for name in run.result.get("metrics", {}) if name.startswith("test/")
    )
    if len(names) < 2:
        return None
    lines, data = [], []
    for row in study.rows:
        line, record = [Cell(row.name, row.name)], {"row": row.name}
        for name in names:
            metric, values = Metric(name), row.values(name)
            s = summarize(list(values.values())) if values else None
            line.append(Cell(_interval(metric, s.mean, s.half_width), s.mean) if s else Cell(NONE))
            record |= {f"{name} mean": s.mean if s else None, f"{name} sd": s.deviation if s else None}  # type: ignore[dict-item]
        lines.append(tuple(line))
        data.append(record)
    header = ("row", *(Metric(name).label.removeprefix("test ") for name in names))
    caption = "Every metric of the test images: mean over seeds ± half of its 95% interval."
    return Table("metrics", "All test metrics", caption, header, tuple(lines), data=pd.DataFrame(data))


def published(study: StudyRecord) -> Table | None:
    """Build the table of every published number beside ours; None where there are none."""
    lines, data = [], []
    for row in study.rows:
        for name, value in row.published.items():
            if name in ("source", "note") or finite(value) is None:
                continue
            metric, values = Metric(name), row.values(name)
            s = summarize(list(values.values()), metric.lower_is_better) if values else None
            inside = None
            if s and s.low is not None and s.high is not None:
                inside = s.low <= value <= s.high
            source = str(row.published.get("source") or NONE)
            lines.append(
                (
                    Cell(row.name, row.name),
                    Cell(name.replace("/", " ").replace("_", " "), name),
                    _number(metric, value),
                    Cell(_interval(metric, s.mean, s.half_width), s.mean) if s else Cell(NONE),
                    _number(metric, s.mean - value if s else None, signed=True),
                    Cell(NONE if inside is None else "yes" if inside else "no", str(inside)),
                    Cell(source, source),
                )
            )
            ours = s.mean if s else None
            data.append(
                {"row": row.name, "metric": name, "published": value, "mean": ours, "n": s.n if s else 0}
                | {"difference": s.mean - value if s else None, "published_in_interval": inside, "source": source}
            )
    if not lines:
        return None
    header = ("row", "metric", "published", "ours ± 95%", "difference", "in interval", "source")
    caption = (
        "Published numbers beside ours, rates in percent; in interval: whether the published number lies within our "
        "95% interval of the mean, which says nothing about how far it would vary itself."
    )
    return Table("published", "Against the published numbers", caption, header, tuple(lines), data=pd.DataFrame(data))


def unfinished(studies: Sequence[StudyRecord], metric: Metric) -> Table | None:
    """Build the table of runs that have no result, with the reason of each; None where all have one."""
    lines, data = [], []
    for study in studies:
        for row in study.rows:
            for run in row.runs:
                state, reason = str(run.state), run.reason
                if run.state == "finished":
                    if run.number(metric.name) is not None:
                        continue
                    state, reason = f"no {metric.name}", "result.json has no finite number of this name"
                where = str(run.path.relative_to(study.path)) if run.path != study.path else run.path.name
                if len(studies) > 1:
                    where = f"{study.name}/{where}"
                seed = NONE if run.seed is None else str(run.seed)
                lines.append((row.name, seed, state, reason, where))
                data.append({"row": row.name, "seed": run.seed, "state": state, "reason": reason, "folder": where})
    if not lines:
        return None
    counts = ", ".join(f"{n} {state}" for state, n in Counter(line[2] for line in lines).most_common())
    return Table(
        "unfinished",
        "Runs without a result",
        f"{counts}. These runs are in no mean above; giving the study's command again makes what is missing.",
        ("row", "seed", "state", "reason", "folder"),
        tuple(tuple(Cell(text, text) for text in line) for line in lines),
        data=pd.DataFrame(data),
    )


def class_metric(rows: Iterable[Row]) -> str | None:
    """Return which per-class number is reported: IoU, or else accuracy or recall; None where runs have none."""
    having = {key for row in rows for entry in row.per_class().values() for key in entry}
    return next((key for key in ("iou", "accuracy", "recall", "f1") if key in having), None)


def ranking(metric: Metric, rows: Sequence[RowStatistics], shown: int = 3) -> Table:
    """Build the ranking of the rows, with the best and worst classes of each."""
    kind = class_metric(one.row for one in rows)
    lines, data = [], []
    for place, one in enumerate(ranked(rows, metric), 1):
        assert one.summary is not None
        line = [Cell(str(place), place), Cell(one.row.name, one.row.name), _number(metric, one.summary.mean)]
        record: dict[str, object] = {"rank": place, "row": one.row.name, "mean": one.summary.mean}
        if kind:
            scores = {name: entry[kind] for name, entry in one.row.per_class().items() if kind in entry}
            order = sorted(scores, key=lambda name: scores[name], reverse=True)
            each = max(1, min(shown, len(order) // 2))
            best, worst = order[:each], order[::-1][:each]
            for title, names in (("best classes", best), ("worst classes", worst)):
                text = ", ".join(f"{name} ({scores[name] * 100:.1f})" for name in names) or NONE
                line.append(Cell(text, text))
                record[title.replace(" ", "_")] = text
        lines.append(tuple(line))
        data.append(record)
    header = ("rank", "row", metric.label, *(("best classes", "worst classes") if kind else ()))
    caption = f"Rows by mean {metric.label}. Neighbors whose intervals overlap may well change places with other seeds."
    if kind:
        caption += f" Classes by their {kind} in percent, mean over seeds."
    return Table("ranking", "Ranking", caption, header, tuple(lines), data=pd.DataFrame(data))


def per_class(row: Row) -> Table | None:
    """Build one row's per-class table, with published numbers beside ours where there are any."""
    ours = row.per_class()
    theirs = {str(entry.get("class")): entry for entry in row.published_per_class}
    if not ours:
        return None
    order = ("precision", "recall", "f1", "iou", "dice", "accuracy")
    keys = [key for key in order if any(key in entry for entry in ours.values())]
    printed = [key for key in order if any(finite(entry.get(key)) is not None for entry in theirs.values())]
    lines, data = [], []
    for name, entry in ours.items():
        value = {key: finite(theirs.get(name, {}).get(key)) for key in printed}
        line = [Cell(name, name)]
        for key in dict.fromkeys((*keys, *printed)):
            line.append(_number(Metric(key), entry.get(key)))
            if key in printed:
                line.append(_number(Metric(key), value[key]))
        support = entry.get("support")
        lines.append((*line, Cell(NONE if support is None else f"{support:.0f}", support)))
        data.append({"row": row.name, "class": name, **entry} | {f"published_{key}": value[key] for key in printed})
    columns = [
        name
        for key in dict.fromkeys((*keys, *printed))
        for name in ([_class_label(key), "published"] if key in printed else [_class_label(key)])
    ]
    caption = f"{row.name}: each class of the test images, in percent, mean over {len(row.finished)} run(s)."
    if theirs:
        caption += f" Published: {row.published.get('source') or 'see the study'}."
    header = ("class", *columns, "support")
    return Table("per_class", f"Classes of {row.name}", caption, header, tuple(lines), data=pd.DataFrame(data))


def _class_label(key: str) -> str:
    return {"f1": "F1", "iou": "IoU", "dice": "Dice"}.get(key, key)


def runs(study: StudyRecord, metric: Metric) -> Table:
    """Build the table of single runs, from which every other number can be worked out again."""
    lines, data = [], []
    name, length = duration_unit(run.number("seconds") for run in study.runs)
    for row in study.rows:
        for run in row.runs:
            where = str(run.path.relative_to(study.path)) if run.path != study.path else run.path.name
            seconds = run.number("seconds")
            lines.append(
                (
                    Cell(row.name, row.name),
                    Cell(NONE if run.seed is None else str(run.seed), run.seed),
                    Cell(f"{run.state}, {run.extended}" if run.extended else run.state, run.state),
                    _number(metric, run.number(metric.name)),
                    Cell(NONE if seconds is None else f"{seconds / length:.1f}", seconds),
                    Cell(_short("git_commit", run.provenance("git_commit")) if run.result else NONE, ""),
                    Cell(where, where),
                )
            )
            numbers = {key: run.number(key) for key in RUN_NUMBERS}
            origin = {key: run.provenance(key) for key in (*PROVENANCE, "checkpoint")} if run.result else {}
            data.append(
                {"row": row.name, "seed": run.seed, "state": run.state, "folder": where}
                | run.result.get("metrics", {})
                | numbers
                | origin
                | {"config_hash": run.result.get("config_hash")}
                | ({"extended": run.extended} if run.extended else {})
            )
    header = ("row", "seed", "state", metric.label, f"time, {name}", "commit", "folder")
    return Table("runs", "All runs", "Every run of this table.", header, tuple(lines), data=pd.DataFrame(data))


def comparison(first: StudyRecord, second: StudyRecord, metric: Metric) -> Table:
    """Build the table of two studies' rows of the same name, paired by seed.

    Args:
        first: A.
        second: B; where both have a single row, these two are compared whatever their names.
        metric: The metric.

    Returns:
        The table; differences are B less A, and rows that only one of the two has are in its notes.
    """
    notes = Notes()
    theirs = {row.name: row for row in second.rows}
    pairs = [(row, theirs[row.name]) for row in first.rows if row.name in theirs]
    if len(first.rows) == len(second.rows) == 1:
        pairs = [(first.rows[0], second.rows[0])]
    values = [(a.values(metric.name), b.values(metric.name)) for a, b in pairs]
    differences = correct([compare(b, a) for a, b in values])
    lines, data = [], []
    for (a, b), (x, y), d in zip(pairs, values, differences, strict=True):
        name = a.name if a.name == b.name else f"{a.name} / {b.name}"
        marks = [
            notes.mark(f"{label} differs: {', '.join(ours)} (A), {', '.join(others)} (B)")
            for key, label in (*PROVENANCE.items(), ("checkpoint", "tested checkpoint"))
            if (ours := sorted({_short(key, run.provenance(key)) for run in a.finished}))
            and (others := sorted({_short(key, run.provenance(key)) for run in b.finished}))
            and ours != others
        ]
        line = [Cell(name, name, tuple(marks))]
        record: dict[str, object] = {"row": name, "metric": metric.name}
        for label, row, found in (("A", a, x), ("B", b, y)):
            s = summarize(list(found.values()), metric.lower_is_better) if found else None
            line.append(_runs(row, s.n if s else 0))
            line.append(Cell(_interval(metric, s.mean, s.half_width), s.mean) if s else Cell(NONE))
            record |= {f"n_{label}": s.n if s else 0, f"mean_{label}": s.mean if s else None}
            record |= {f"interval_low_{label}": s.low if s else None, f"interval_high_{label}": s.high if s else None}
        one = RowStatistics(b, y, None, d, None)
        shown = _interval(metric, d.mean, d.half_width, signed=True) if d else NONE
        line += [Cell(shown, d.mean if d else None, difference_marks(one, notes))]
        line += [Cell(p_text(d.p_holm if d else None), d.p_holm if d else None)]
        lines.append(tuple(line))
        record |= {"difference": d.mean, "difference_low": d.low, "difference_high": d.high} if d else {}
        record |= (
            {"difference_method": d.method, "pairs": d.n, "p_value": d.p_value, "p_value_holm": d.p_holm} if d else {}
        )
        data.append(record)
    m = sum(1 for d in differences if d and d.p_value is not None)
    alone = [
        f" Only in {label}: {', '.join(names)}."
        for label, rows, index in (("A", first.rows, 0), ("B", second.rows, 1))
        if (names := [row.name for row in rows if row not in [pair[index] for pair in pairs]])
    ]
    caption = (
        f"A: {first.name}; B: {second.name}. {metric.label}, mean over seeds ± half of its 95% interval; difference: "
        f"B less A, paired by seed, ± half of its 95% interval; p: paired t test, Holm-corrected over {m} row"
        f"{'' if m == 1 else 's'}.{''.join(alone)}"
    )
    header = ("row", "n A", "A, mean ± 95%", "n B", "B, mean ± 95%", "B less A ± 95%", "p")
    title = f"{first.name} and {second.name}: {metric.label}"
    return Table("comparison", title, caption, header, tuple(lines), tuple(notes.texts), pd.DataFrame(data))
