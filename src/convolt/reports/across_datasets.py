"""One study on several datasets: the differences from the baseline side by side, and mean ranks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats

from convolt.figures.style import COLORS, new_figure, shorten
from convolt.reports.formats import Metric, plural
from convolt.reports.records import StudyRecord
from convolt.reports.settled_tables import describe_guarantee, is_judged
from convolt.reports.statistics import compare
from convolt.reports.study_figures import add_legend, encode
from convolt.reports.swept_axes import Grid, find_grids, strip_key
from convolt.reports.table import ROW, Column, Record, Table
from convolt.reports.words import capitalize

FIGURE_CAPTION = "Differences from the baseline on each dataset, with their intervals; every dataset has its own scale"


@dataclass(frozen=True)
class DatasetDifference:
    """How far a row is from the baseline on one dataset.

    Attributes:
        mean: Of the differences, paired by seed.
        low: Lower end of the interval; None where there is none.
        high: Its upper end.
        pairs: Seeds that it is over; 0 where the rows have none in common.
    """

    mean: float
    low: float | None
    high: float | None
    pairs: int


@dataclass(frozen=True)
class DatasetGrid:
    """A table that is swept over `data`.

    Attributes:
        grid: Its rows by dataset.
        means: Over seeds, by name and dataset (an override such as "data=mnist"); absent where no run has the metric.
        differences: From the baseline, likewise.
        ranks: Mean rank of each name over `ranked`, 1 for the best; equal means share their rank.
        ranked: The datasets on which every row has a mean.
    """

    grid: Grid
    means: Mapping[tuple[str, str], float]
    differences: Mapping[tuple[str, str], DatasetDifference]
    ranks: Mapping[str, float]
    ranked: tuple[str, ...]


def compare_datasets(study: StudyRecord, metric: Metric) -> DatasetGrid | None:
    """Compare the rows of a table with their baseline on each dataset.

    Args:
        study: The table.
        metric: The metric.

    Returns:
        What is found; None for a table that is not swept over `data`, has no baseline, or no run with the metric.
    """
    grid = next((grid for grid in find_grids(study) if grid.key == "data"), None)
    if grid is None:
        return None
    found = {cell: row.mean(metric.name) for cell, row in grid.cells.items()}
    means = {cell: mean for cell, mean in found.items() if mean is not None}
    differences = {}
    for name, baseline in grid.baselines.items():
        for value in grid.values:
            if difference := _compare(study, metric, grid, name, baseline, value):
                differences[name, value] = difference
    names = grid.names
    ranked = tuple(value for value in grid.values if all((name, value) in means for name in names))
    sign = 1 if metric.lower_is_better else -1
    every = [stats.rankdata([sign * means[name, value] for name in names]) for value in ranked]
    ranks = {name: float(sum(each[i] for each in every)) / len(every) for i, name in enumerate(names)} if every else {}
    return DatasetGrid(grid, means, differences, ranks, ranked) if means else None


def _compare(
    study: StudyRecord, metric: Metric, grid: Grid, name: str, baseline: str, value: str
) -> DatasetDifference | None:
    """Compare one row on one dataset: at its look where the study is settled by the metric."""
    if study.settling and is_judged(study, metric) and (cell := grid.cells.get((name, value))):
        verdict = study.settling.verdicts.get((cell.base, cell.swept))
        if verdict is None or verdict.mean is None or verdict.n is None:
            return None
        half = verdict.half_width is not None
        return DatasetDifference(verdict.mean, verdict.low if half else None, verdict.high if half else None, verdict.n)
    found = compare(grid.read(name, value, metric.name), grid.read(baseline, value, metric.name))
    if found is None:
        return None
    return DatasetDifference(
        found.mean, None if study.settling else found.low, None if study.settling else found.high, found.n
    )


def build_across_datasets(study: StudyRecord, metric: Metric, found: DatasetGrid) -> Table:
    """Build the table of differences, a column for each dataset, and mean ranks."""
    grid = found.grid
    baselines = {*grid.baselines.values()}
    records = [_make_record(found, name) for name in grid.names]

    def format_cell(difference: float | None, high: float | None, mean: float | None, row: str) -> str:
        if row in baselines:
            return f"mean {metric.text(mean)}"
        return metric.signed(difference) if high is None else metric.interval(difference, high, signed=True)

    columns = [ROW]
    for value in grid.values:
        data = strip_key(value)
        keys = (f"{data} difference_high", f"{data} mean", "row")
        columns.append(Column(data, f"{data} difference", format_cell, keys))
    if found.ranks:
        columns.append(Column("mean rank", "mean_rank", "{:.2f}".format))
    return Table("across_datasets", "Across datasets", _describe(study, metric, found), columns, records)


def _make_record(found: DatasetGrid, name: str) -> Record:
    record: dict[str, object] = {"row": name, "baseline": found.grid.baselines.get(name)}
    for value in found.grid.values:
        data, difference = strip_key(value), found.differences.get((name, value))
        record[f"{data} mean"] = found.means.get((name, value))
        for key in ("mean", "low", "high"):
            label = f"{data} difference" + ("" if key == "mean" else f"_{key}")
            record[label] = getattr(difference, key, None)
        record[f"{data} pairs"] = difference.pairs if difference else None
    return record | {"mean_rank": found.ranks.get(name)}


def _describe(study: StudyRecord, metric: Metric, found: DatasetGrid) -> str:
    """Say what the differences are, and why ranks have no test."""
    grid, n = found.grid, len(found.ranked)
    names = list(dict.fromkeys(grid.baselines.values()))
    whose = f"'{names[0]}'" if len(names) == 1 else f"'{study.baseline}' with the same swept values"
    caption = f"{capitalize(metric.label)}: differences from {whose} on the same data, paired by seed"
    if study.settling is None:
        caption += ", ± half of their 95% interval, each by itself; corrected p-values are in the results."
    elif is_judged(study, metric):
        caption += f", ± half of their repeated interval. {describe_guarantee(study.settling)}"
    else:
        caption += ", without an interval and without a claim."
    caption += " The baseline's mean stands in its own row."
    if not found.ranks:
        return f"{caption} There are no ranks until some dataset has a result of every row."
    caption += f" Mean rank: rows by mean on each dataset, 1 is best, over {plural(n, 'dataset')}"
    lacking = [strip_key(value) for value in grid.values if value not in found.ranked]
    caption += f" (not {', '.join(lacking)}, where rows have no result)" if lacking else ""
    caption += "; seeds that change a mean may change it. Ranks have no test: "
    if n < 6:
        least = f", a signed-rank test has p = {2.0 ** (1 - n):g} at best" if n > 1 else ""
        caption += f"{plural(n, 'dataset')} are too few{least}" if n > 1 else "one dataset is no sample"
        return f"{caption} (Demšar 2006, Journal of Machine Learning Research 7, 1-30)."
    return f"{caption}these datasets are no sample of all there are."


def draw_across_datasets(study: StudyRecord, metric: Metric, found: DatasetGrid) -> dict[str, bytes]:
    """Draw the differences of each dataset in a panel of its own.

    Args:
        study: Names the figure.
        metric: The metric.
        found: What is drawn.

    Returns:
        The figure by format; empty where there is no difference.
    """
    names = [
        name for name in found.grid.baselines if any((name, value) in found.differences for value in found.grid.values)
    ]
    if not names:
        return {}
    values = found.grid.values
    columns = min(4, len(values))
    lines = -(-len(values) // columns)
    with new_figure(1.8 + 2.3 * columns, 0.9 + lines * (0.7 + 0.32 * len(names))) as figure:
        panels = list(figure.subplots(lines, columns, sharey=True, squeeze=False).flat)
        label = f"repeated {study.settling.level} interval" if study.settling else "95% interval"
        if study.settling and not is_judged(study, metric):
            label = "no interval"
        for axes, value in zip(panels, values, strict=False):
            axes.axvline(0, color="black", linewidth=0.8)
            for y, name in enumerate(names):
                if (one := found.differences.get((name, value))) is None:
                    continue
                half = None if one.high is None else metric.scaled(one.high - one.mean)
                style: Any = {"fmt": "o", "color": COLORS[0], "capsize": 3, "label": f"difference, {label}"}
                axes.errorbar(metric.scaled(one.mean), y, xerr=half, **style)
            axes.set_title(shorten(strip_key(value), 24), fontsize=9)
            axes.grid(axis="y", visible=False)
            axes.set_xlabel("difference" + (", points" if metric.percent else ""))
        for axes in panels[len(values) :]:
            axes.set_axis_off()
        panels[0].set_yticks(range(len(names)), [shorten(name, 30) for name in names])
        panels[0].set_ylim(len(names) - 0.5, -0.5)
        baselines: Sequence[str] = list(dict.fromkeys(found.grid.baselines.values()))
        from_whom = baselines[0] if len(baselines) == 1 else str(study.baseline)
        title = f"{shorten(study.title, 90)}\n{metric.words}: difference from {shorten(from_whom, 40)} on each dataset"
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
        add_legend(figure, panels, 3)
        return encode(figure)
