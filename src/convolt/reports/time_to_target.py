"""How long training takes until a validation metric first reaches a target; seeds that never do are counted."""

import csv
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from scipy import stats

from convolt.errors import UserError
from convolt.figures.style import COLORS, new_figure, shorten
from convolt.reports.formats import Metric, duration_unit, plural
from convolt.reports.records import Row, RunRecord, StudyRecord
from convolt.reports.statistics import CONFIDENCE, Difference, compare
from convolt.reports.study_figures import add_legend, encode
from convolt.reports.table import ROW, Column, Note, Record, Table
from convolt.runs.files import RunFiles
from convolt.runs.history import read_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURE_CAPTION = "When each seed first reaches the target; crosses: never"


@dataclass(frozen=True)
class RunTime:
    """When one run first reaches the target.

    Attributes:
        epoch: Counted from 1; infinite where it never does.
        seconds: Until that epoch's end; infinite likewise.
    """

    epoch: float
    seconds: float


@dataclass(frozen=True)
class MedianTime:
    """The time by which half of the seeds have reached the target.

    Attributes:
        median: Infinite where fewer than half do.
        low: Lower end of its interval over new seeds; None for one seed.
        high: Its upper end, which may be infinite.
        level: The chance that such an interval holds the median.
    """

    median: float
    low: float | None
    high: float | None
    level: float | None


@dataclass(frozen=True)
class RowTimes:
    """When the runs of one row first reach the target.

    Attributes:
        row: The row.
        target: As a fraction for rates; None where the baseline has no run that would give it.
        runs: By seed; of the finished runs that recorded the metric.
        difference: In epochs from the baseline, paired by seed; None where a seed of the two rows never reaches it.
        sooner: Seeds that reach it in fewer epochs than the baseline's run of the same seed, which may never do.
        later: Seeds that reach it in more epochs, or never.
        pairs: Seeds that both rows have; 0 for a baseline.
    """

    row: Row
    target: float | None
    runs: Mapping[int | str, RunTime]
    difference: Difference | None = None
    sooner: int = 0
    later: int = 0
    pairs: int = 0

    @property
    def reached(self) -> int:
        """How many of the runs do."""
        return sum(math.isfinite(run.epoch) for run in self.runs.values())


@dataclass(frozen=True)
class TargetTimes:
    """The times of all rows of a table.

    Attributes:
        metric: The validation metric, by which the runs chose their checkpoints.
        given: The target that was asked for; None: it follows from the table.
        rows: In the table's order.
    """

    metric: Metric
    given: float | None
    rows: tuple[RowTimes, ...]


_Epochs = Sequence[tuple[float, float, float]]
"""Of one run: number, metric, and seconds so far of each epoch that has the metric."""


def measure_times(study: StudyRecord, target: float | None = None) -> TargetTimes | None:
    """Find when each run of a table first reaches a target.

    Args:
        study: The table.
        target: As a fraction for rates. By default the metric after the last epoch, the median over the seeds of the
            baseline with the same swept values; without a baseline, over all rows with the same swept values and data.

    Returns:
        The times; None where no run kept a validation metric by epoch, or a single row has no target but its own end.

    Raises:
        UserError: A target was given, and it is out of range or no run kept the metric.
    """
    monitors = Counter(str(run.result["monitor"]) for run in study.runs if run.result.get("monitor"))
    name = monitors.most_common(1)[0][0] if monitors else f"val/{Metric(study.headline).kind}"
    metric = Metric(name)
    if target is not None and not (0 <= target <= 1 if metric.percent else math.isfinite(target)):
        range_of_metric = "a fraction from 0 to 1, such as 0.9" if metric.percent else "a number, such as 0.1"
        raise UserError(f"--target {target:g}: {name} is {range_of_metric}")
    histories = {row.name: _read_histories(row, name) for row in study.rows}
    finals = {name: [epochs[-1][1] for epochs in runs.values()] for name, runs in histories.items()}
    if target is not None and not any(finals.values()):
        raise UserError(f"no run in '{study.shown_path}' kept {name} of its epochs: leave out --target")
    if not any(finals.values()) or (target is None and len(study.rows) == 1):
        return None
    rows: list[RowTimes] = []
    for row in study.rows:
        wanted = _choose_target(study, row, finals) if target is None else target
        runs = {key: _find_first(each, wanted, metric) for key, each in histories[row.name].items()}
        rows.append(RowTimes(row, wanted, {} if wanted is None else runs))
    by_name = {one.row.name: one for one in rows}
    baselines = (study.baseline_of(row) for row in study.rows)
    pairs = zip(rows, baselines, strict=True)
    return TargetTimes(metric, target, tuple(_compare(one, by_name[b.name]) if b else one for one, b in pairs))


def _read_histories(row: Row, metric: str) -> dict[int | str, _Epochs]:
    """Read a metric by epoch of a row's finished runs; those without it are left out."""
    found = {run.key: _read_history(run, metric) for run in row.finished}
    return {key: epochs for key, epochs in found.items() if epochs}


def _read_history(run: RunRecord, metric: str) -> _Epochs:
    epochs, seconds = [], 0.0
    try:
        for row in read_rows(RunFiles(run.path).history_file):
            seconds += row["seconds"]
            if math.isfinite(value := row.get(metric, math.nan)):
                epochs.append((row["epoch"], value, seconds))
    except (OSError, ValueError, TypeError, KeyError, csv.Error):  # damaged
        return []
    return epochs


def _choose_target(study: StudyRecord, row: Row, finals: Mapping[str, Sequence[float]]) -> float | None:
    """Return the target of a row that follows from the table."""
    if study.baseline in (row.name, row.base):
        values = [*finals[row.name]]
    elif baseline := study.baseline_of(row):
        values = [*finals[baseline.name]]
    else:
        values = [
            value for other in study.rows if _get_problem(other) == _get_problem(row) for value in finals[other.name]
        ]
    return statistics.median(values) if values else None


def _get_problem(row: Row) -> tuple[str, ...]:
    """Return what rows must share for one target to suit them: swept values, and the data of a plain sweep."""
    return (row.swept, *(text for text in row.overrides if text.startswith("data=")))


def _find_first(epochs: _Epochs, target: float | None, metric: Metric) -> RunTime:
    sign = -1 if metric.lower_is_better else 1
    for epoch, value, seconds in epochs if target is not None else ():
        if sign * value >= sign * float(target or 0):
            return RunTime(epoch, seconds)
    return RunTime(math.inf, math.inf)


def _compare(row: RowTimes, baseline: RowTimes) -> RowTimes:
    """Compare the epochs of a row with those of its baseline, seed by seed."""
    epochs = [{key: run.epoch for key, run in one.runs.items()} for one in (row, baseline)]
    pairs = [(epochs[0][key], epochs[1][key]) for key in epochs[0] if key in epochs[1]]
    sooner, later = sum(a < b for a, b in pairs), sum(a > b for a, b in pairs)
    never = any(math.isinf(epoch) for each in epochs for epoch in each.values())
    difference = compare(*epochs) if len(pairs) > 1 and not never else None
    return replace(row, difference=difference, sooner=sooner, later=later, pairs=len(pairs))


def find_median(times: Sequence[float]) -> MedianTime:
    """Find by when half of the seeds have reached the target, with an interval for new seeds.

    The interval runs from the r-th smallest to the r-th largest time, with the largest r for which it holds the median
    with a chance of at least 95%, 1 - 2 · P(Binomial(n, 1/2) < r): fewer than six seeds do not suffice for that, and
    have the interval from the smallest to the largest at its own level (Thompson 1936, Annals of Mathematical
    Statistics 7, 122-128). It assumes no distribution, and infinite times are times later than all others.

    Args:
        times: One for each seed, at least one.
    """
    ordered, n = sorted(times), len(times)
    median = ordered[(n - 1) // 2]
    if n == 1:
        return MedianTime(median, None, None, None)
    r = max(1, int(stats.binom.ppf((1 - CONFIDENCE) / 2, n, 0.5)))
    level = 1 - 2 * float(stats.binom.cdf(r - 1, n, 0.5))
    return MedianTime(median, ordered[r - 1], ordered[n - r], level)


def build_target_times(study: StudyRecord, times: TargetTimes) -> Table:
    """Build the table of epochs and time until the target is reached."""
    records, notes = [], []
    for one in times.rows:
        records.append(_make_record(study, one))
        notes += _make_notes(one)
    seconds = [run.seconds for one in times.rows for run in one.runs.values() if math.isfinite(run.seconds)]
    unit, length = duration_unit(seconds)

    def format_times(decimals: int, size: float) -> Any:
        def text(median: float | None, low: float | None, high: float | None, _: int) -> str:
            shown = [_format_time(value, decimals, size) for value in (median, low, high)]
            return shown[0] if low is None or math.isinf(low) else f"{shown[0]} [{shown[1]}, {shown[2]}]"

        return text

    bounds = ("epochs_low", "epochs_high", "reached"), ("seconds_low", "seconds_high", "reached")
    columns = [
        ROW,
        Column("target", "target", times.metric.text),
        Column("reached by", "reached", lambda reached, runs: f"{reached} of {runs}", ("runs",)),
        Column("epochs, median", "epochs_median", format_times(0, 1.0), bounds[0]),
        Column(f"{unit}, median", "seconds_median", format_times(1, length), bounds[1]),
    ]
    if any(one.pairs for one in times.rows):
        columns.append(Column("sooner, later", "sooner", "{}, {} of {}".format, ("later", "pairs")))
    if any(one.difference for one in times.rows):
        text = "difference in epochs" + ("" if study.settling else " ± 95%")
        columns.append(Column(text, "epochs_difference", _format_difference, ("epochs_difference_high",)))
    return Table("time_to_target", "Time to a target", _describe(study, times), columns, records, notes)


def _format_time(value: float | None, decimals: int, size: float) -> str:
    """Return a time in a unit of `size`; "never" for one that is infinite."""
    return "never" if value is None or math.isinf(value) else f"{value / size:.{decimals}f}"


def _format_difference(mean: float, high: float | None) -> str:
    return f"{mean:+.1f}" + ("" if high is None else f" ± {high - mean:.1f}")


def _make_record(study: StudyRecord, one: RowTimes) -> Record:
    """Return the unrounded numbers of one row; infinite times are "inf" in the CSV."""
    record: dict[str, object] = {"row": one.row.name, "target": one.target}
    if not one.runs:
        return record
    record |= {"runs": len(one.runs), "reached": one.reached}
    for key, values in (
        ("epochs", [run.epoch for run in one.runs.values()]),
        ("seconds", [run.seconds for run in one.runs.values()]),
    ):
        found = find_median(values)
        record[f"{key}_median"] = found.median
        if not study.settling:
            record |= {f"{key}_low": found.low, f"{key}_high": found.high, "interval_level": found.level}
    if one.pairs:
        record |= {"sooner": one.sooner, "later": one.later, "pairs": one.pairs}
    if difference := one.difference:
        record["epochs_difference"] = difference.mean
        if not study.settling:
            record |= {"epochs_difference_low": difference.low, "epochs_difference_high": difference.high}
    epochs = {key: _format_time(run.epoch, 0, 1.0) for key, run in one.runs.items()}
    return record | {"epochs_by_seed": ", ".join(f"{key}: {epoch}" for key, epoch in epochs.items())}


def _make_notes(one: RowTimes) -> list[Note]:
    notes = []
    if one.runs and (lacking := len(one.row.runs) - len(one.runs)):
        text = f"{plural(lacking, 'run')} without a result or without the metric by epoch not counted"
        notes.append(Note(one.row.name, "reached", text))
    if any((run.number("slots") or 1) > 1 for run in one.row.finished):
        text = "timed while other runs shared the machine: too slow by an unknown factor"
        notes.append(Note(one.row.name, "seconds_median", text))
    if one.difference and one.difference.low == one.difference.high and one.difference.n > 1:
        text = "all differences are the same: an interval of zero width"
        notes.append(Note(one.row.name, "epochs_difference", text))
    return notes


def _describe(study: StudyRecord, times: TargetTimes) -> str:
    """Say what the times are, and what their intervals mean."""
    swept = " with the same swept values" if any(row.swept for row in study.rows) else ""
    whose = f"'{study.baseline}'{swept}" if study.baseline else f"all rows{swept}"
    what = f"the median over the seeds of {whose} after their last epoch"
    caption = (
        f"When {times.metric.words} first reaches the target, {'as given' if times.given is not None else what}. Time: "
        "training and validation of the epochs up to it, without start, checkpoints and test. Median: by when half of "
        "the seeds have reached it; a seed that has not by the end of its run counts as later than all others, 'never'."
    )
    sooner = f" Sooner, later: seeds that take fewer or more epochs than the same seed of '{study.baseline}'{swept}."
    sooner = sooner if any(one.pairs for one in times.rows) else ""
    if study.settling:
        return f"{caption}{sooner} Results decided how many seeds ran, so there is no interval, and no claim."
    levels = {
        n: find_median([0.0] * n).level for n in sorted({len(one.runs) for one in times.rows if len(one.runs) > 1})
    }
    if levels:
        text = ", ".join(f"{level:.0%} at {n} seeds" for n, level in levels.items())
        caption += (
            f" In brackets its interval over new seeds{', lowest to highest' if max(levels) < 6 else ''}, which holds "
            f"it with a chance of {text} whatever the distribution (Thompson 1936): 95% take six."
        )
    caption += sooner
    if any(one.difference for one in times.rows):
        caption += (
            " Differences are paired by seed, ± half of their 95% t interval, and stand only where every seed of both "
            "rows reached the target."
        )
    return caption


def draw_target_times(study: StudyRecord, times: TargetTimes) -> dict[str, bytes]:
    """Draw the epoch and the time at which each seed first reaches the target, and crosses for those that never do.

    Args:
        study: Names the figure.
        times: Of its rows.

    Returns:
        The figure by format; empty where no seed of any row reaches its target.
    """
    shown = [one for one in times.rows if one.runs]
    seconds = [run.seconds for one in shown for run in one.runs.values() if math.isfinite(run.seconds)]
    if not any(one.reached for one in shown):
        return {}
    unit, length = duration_unit(seconds)
    with new_figure(9.6, 1.4 + 0.36 * len(shown)) as figure:
        panels = list(figure.subplots(1, 2 if seconds else 1, sharey=True, squeeze=False).flat)
        _draw_times(panels[0], [[run.epoch for run in one.runs.values()] for one in shown], "epochs")
        panels[0].xaxis.get_major_locator().set_params(integer=True)
        if seconds:
            _draw_times(
                panels[1], [[run.seconds / length for run in one.runs.values()] for one in shown], f"time, {unit}"
            )
        panels[0].set_yticks(range(len(shown)), [shorten(one.row.name, 34) for one in shown])
        panels[0].set_ylim(len(shown) - 0.5, -0.5)
        targets = {one.target for one in shown}
        target = f" of {times.metric.text(min(t for t in targets if t is not None))}" if len(targets) == 1 else ""
        title = f"{shorten(study.title, 90)}\nuntil {times.metric.label} reaches its target{target}"
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
        add_legend(figure, panels, 3)
        return encode(figure)


def _draw_times(axes: "Axes", rows: Sequence[Sequence[float]], unit: str) -> None:
    """Draw the times of each row's seeds on a line; equal ones stand below each other, infinite ones at the right."""
    last = max(value for values in rows for value in values if math.isfinite(value))
    never = last * 1.15
    for y, values in enumerate(rows):
        for value, count in Counter(values).items():
            heights = [y + 0.16 * (i - (count - 1) / 2) * min(1.0, 5 / count) for i in range(count)]
            if math.isinf(value):
                style: Any = {"color": COLORS[1], "label": "never", "clip_on": False}
                axes.plot([never] * count, heights, "x", markersize=5, **style)
            else:
                axes.plot([value] * count, heights, "o", color=COLORS[0], alpha=0.6, markersize=4, label="one seed")
        if values and math.isfinite(median := find_median(values).median):
            axes.plot(median, y, "|", color="black", markersize=16, label="median")
    if any(math.isinf(value) for values in rows for value in values):
        axes.axvline((last + never) / 2, color="#999999", linewidth=0.8, linestyle=":")
    axes.set_xlim(0, last * 1.22)
    axes.set_xlabel(unit)
    axes.grid(axis="y", visible=False)
