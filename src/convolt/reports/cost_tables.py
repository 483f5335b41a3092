"""The table of what a row's runs cost, and of how far training and test lie apart."""

from collections.abc import Sequence
from statistics import fmean

from convolt.reports.formats import NONE, Metric, duration_unit, format_count
from convolt.reports.records import Row
from convolt.reports.statistics import RowStatistics
from convolt.reports.table import ROW, Column, Note, Record, Table, read_attributes

COSTS = ("parameters", "macs", "seconds", "images_per_second", "peak_memory_bytes")


def make_cost_record(row: Row, metric: Metric) -> Record:
    """Return a row's other splits and its costs."""
    train, val, test = (row.mean(f"{split}/{_choose_kind(row, metric)}") for split in ("train", "val", "test"))
    times = [(run.number("training_seconds"), run.number("seconds")) for run in row.finished]
    shares = [spent / whole for spent, whole in times if spent is not None and whole]
    return {
        "train": train,
        "val": val,
        "train_test_gap": None if train is None or test is None else train - test,
        **{key: row.mean(key) for key in COSTS},
        "training_share": fmean(shares) if shares else None,
        "shared_machine": any((run.number("slots") or 1) > 1 for run in row.finished),
        "git_commits": " ".join(sorted({run.provenance("git_commit") for run in row.finished})),
    }


def _choose_kind(row: Row, metric: Metric) -> str:
    """Return the kind of metric that all splits have: the metric's own, or accuracy where training has no such."""
    return metric.kind if row.mean(f"train/{metric.kind}") is not None else "accuracy"


def make_time_column(records: Sequence[Record]) -> Column:
    """Return the column of training times, all in one unit."""
    unit, length = duration_unit(record["seconds"] for record in records)
    return Column(f"time, {unit}", "seconds", lambda seconds: f"{seconds / length:.1f}")


def build_costs(metric: Metric, rows: Sequence[RowStatistics]) -> Table:
    """Build the table of spread, generalization and cost."""
    kinds = {_choose_kind(one.row, metric) for one in rows if one.row.finished}
    kind = Metric(f"train/{kinds.pop() if len(kinds) == 1 else 'accuracy'}")
    records, notes = [], []
    for one in rows:
        best_and_worst = read_attributes(one.summary, {"best": "best", "worst": "worst"})
        record = {"row": one.row.name, **best_and_worst, **make_cost_record(one.row, metric)}
        if epochs := one.row.values("tested_epoch").values():
            record |= {"_first_epoch": int(min(epochs)), "_last_epoch": int(max(epochs))}
        if record["shared_machine"]:
            text = "timed while other runs shared the machine: too slow by an unknown factor"
            timed = [key for key in ("seconds", "images_per_second") if record[key] is not None]
            notes += [Note(one.row.name, key, text) for key in timed]
        records.append(record)
    columns = [
        ROW,
        Column("best", "best", metric.text),
        Column("worst", "worst", metric.text),
        Column("train", "train", kind.text),
        Column("val", "val", kind.text),
        Column("gap", "train_test_gap", kind.signed),
        Column("params", "parameters", format_count),
        Column("MACs", "macs", format_count),
        make_time_column(records),
        Column("of it training", "training_share", "{:.0%}".format),
        Column("images/s", "images_per_second", "{:,.0f}".format),
        Column("epoch", "_last_epoch", _format_epochs, more_keys=("_first_epoch",)),
    ]
    caption = (
        f"Best and worst seed of {metric.label}; {kind.kind.replace('_', ' ')} on training images (as measured while "
        "training, with augmentation) and validation images; gap: train minus test; MACs: multiply-adds of one image; "
        "time: a run from start to result, the mean; of it training: what the images/s are of, the rest being start, "
        "validation, test and files; epoch: of the tested checkpoint, from the earliest to the latest seed."
    )
    # A column that no row fills says nothing.
    filled = [one for one in columns if one.is_text or any(one.cell(record).text != NONE for record in records)]
    return Table("costs", "Spread, generalization and cost", caption, filled, records, notes)


def _format_epochs(last: int, first: int) -> str:
    return str(last) if first == last else f"{first}{NONE}{last}"
