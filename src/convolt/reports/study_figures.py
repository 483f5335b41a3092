"""The figures of a report, as PNG and SVG: what differs, how it was learned, and at what cost."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from convolt.figures.confusion import draw_rates
from convolt.figures.style import (
    COLORS,
    LINES,
    MARKERS,
    annotate,
    longest_width_inches,
    new_figure,
    set_class_ticks,
    shorten,
    to_bytes,
)
from convolt.reports.formats import Metric, duration_unit, plural
from convolt.reports.records import Row, StudyRecord
from convolt.reports.statistics import RowStatistics, Summary
from convolt.runs.files import RunFiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _encode_titled(figure: "Figure", axes: "Axes", title: str, about: str, legend_columns: int = 0) -> dict[str, bytes]:
    """Return a figure with its title, and one legend below, as {"png": ..., "svg": ...}: the same bytes each time."""
    figure.suptitle(f"{shorten(title, 90)}\n{about}", fontsize=10, x=0.01, ha="left")
    if legend_columns:
        add_legend(figure, [axes], legend_columns)
    return encode(figure)


def encode(figure: "Figure") -> dict[str, bytes]:
    """Return a figure as {"png": ..., "svg": ...}."""
    return {form: to_bytes(figure, form) for form in ("png", "svg")}


def add_legend(figure: "Figure", panels: Sequence["Axes"], columns: int) -> None:
    """Set one legend of all panels, without repeated entries, below the figure, in as many columns as have room."""
    unique: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        unique |= dict(zip(labels, handles, strict=True))
    labels, fits = list(unique), max(1, min(columns, len(unique)))
    while fits > 1 and _measure_legend(labels, fits) > figure.get_figwidth():
        fits -= 1
    more_lines = -(-len(labels) // fits) - -(-len(labels) // columns)
    figure.set_figheight(figure.get_figheight() + 0.17 * more_lines)
    figure.legend(list(unique.values()), labels, loc="outside lower center", ncols=fits)


def _measure_legend(labels: Sequence[str], columns: int) -> float:
    """Return about how many inches a legend takes in some columns."""
    each = np.array_split(np.asarray(labels, dtype=object), columns)
    return sum(longest_width_inches(list(column), 9, 34) + 0.55 for column in each)


def make_legend_label(name: str) -> str:
    """Return a row's name for a legend, from which Matplotlib leaves out those that begin with an underscore."""
    return shorten(f" {name}" if name.startswith("_") else name, 34)


def draw_means(studies: Sequence[tuple[str, Sequence[RowStatistics]]], metric: Metric, title: str) -> dict[str, bytes]:
    """Draw each row's mean with its interval, its seeds, and the published value.

    Args:
        studies: One table, or two that are compared, each with a label for the legend.
        metric: The metric.
        title: Names the study.

    Returns:
        The figure by format; empty where no row has a value.
    """
    shown = {one.row.name: one.row for _, rows in studies for one in rows if one.summary}
    names, swept = list(shown), list(dict.fromkeys(row.swept for row in shown.values()))
    if not names:
        return {}
    with new_figure(7.2, 1.3 + 0.36 * len(names) * len(studies) ** 0.5) as figure:
        axes = figure.subplots()
        for index, (label, rows) in enumerate(studies):
            shift = (index - (len(studies) - 1) / 2) * 0.3
            for one in rows:
                if (s := one.summary) is None:
                    continue
                y, mean = names.index(one.row.name) + shift, metric.scaled(s.mean)
                by_swept = len(studies) == 1 and len(swept) > 1  # rows of one color are compared with each other
                color = COLORS[(swept.index(one.row.swept) if by_swept else index) % len(COLORS)]
                seeds = [metric.scaled(value) for value in one.values.values()]
                axes.plot(seeds, [y] * len(seeds), "|", color=color, alpha=0.55, markersize=9, label="one seed")
                text = f"{shorten(one.row.swept, 24)}: mean, 95% interval" if by_swept else "mean, 95% interval"
                style: Any = {"fmt": "o", "color": color, "capsize": 3, "label": label or text}
                axes.errorbar(mean, y, xerr=_half_width_in_unit(metric, s), **style)
                if one.published is not None:
                    edge = "#D55E00" if len(studies) == 1 else "black"
                    style = {"markerfacecolor": "white", "markeredgecolor": edge, "markersize": 6, "zorder": 4}
                    axes.plot(metric.scaled(one.published), y, "D", label="published", **style)
        axes.set_yticks(range(len(names)), [shorten(name) for name in names])
        axes.set(ylim=(len(names) - 0.5, -0.5), xlabel=metric.label)
        axes.grid(axis="y", visible=False)
        for y, (above, below) in enumerate(pairwise(shown.values())):
            if len(swept) > 1 and above.base != below.base:
                axes.axhline(y + 0.5, color="#BBBBBB", linewidth=0.8, linestyle=":")
        columns = 2 if len(swept) > 1 else 4
        return _encode_titled(figure, axes, title, metric.name.replace("/", " "), legend_columns=columns)


def draw_settled(study: StudyRecord, metric: Metric, rows: Sequence[RowStatistics]) -> dict[str, bytes]:
    """Draw each row's mean and seeds, and beside them its difference from the baseline with the repeated interval.

    Args:
        study: A settling study.
        metric: The metric; differences of one that is not judged are left out.
        rows: Its rows.

    Returns:
        The figure by format; empty where no row has a value.
    """
    shown = [one for one in rows if one.summary]
    settling = study.settling
    if not shown or settling is None:
        return {}
    judged = [(y, one.verdict) for y, one in enumerate(shown) if one.verdict]
    with new_figure(9.6 if judged else 7.2, 1.4 + 0.42 * len(shown)) as figure:
        panels = list(figure.subplots(1, 2 if judged else 1, sharey=True, squeeze=False).flat)
        axes = panels[0]
        for y, one in enumerate(shown):
            assert one.summary is not None
            seeds = [metric.scaled(value) for value in one.values.values()]
            axes.plot(seeds, [y] * len(seeds), ".", color=COLORS[0], alpha=0.45, label="one seed")
            axes.plot(metric.scaled(one.summary.mean), y, "|", color="black", markersize=14, label="mean")
            if one.published is not None:
                style: Any = {"markerfacecolor": "white", "markeredgecolor": COLORS[1], "markersize": 6, "zorder": 4}
                axes.plot(metric.scaled(one.published), y, "D", label="published", **style)
        axes.set_yticks(range(len(shown)), [shorten(one.row.name, 30) for one in shown])
        axes.set(ylim=(len(shown) - 0.5, -0.5), xlabel=metric.label)
        for axes in panels[1:]:
            axes.axvline(0, color="black", linewidth=0.8)
            if settling.margin is not None:
                margin = metric.scaled(settling.margin)
                axes.axvspan(-margin, margin, color="#009E73", alpha=0.15, label="within the margin")
            for y, verdict in judged:
                known = verdict.mean is not None
                if verdict.mean is not None:
                    half = None if verdict.half_width is None else metric.scaled(verdict.half_width)
                    label = f"difference, repeated {settling.level} interval"
                    style = {"fmt": "o", "color": COLORS[1], "capsize": 3, "label": label}
                    axes.errorbar(metric.scaled(verdict.mean), y, xerr=half, **style)
                text = f"{verdict.word}{f', {verdict.n} seeds' if known else ''}"
                axes.text(1.01, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
            unit = ", points" if metric.percent else ""
            axes.set_xlabel(f"difference from {shorten(str(study.baseline), 24)}{unit}")
        for axes in panels:
            axes.grid(axis="y", visible=False)
        title = f"{shorten(study.title, 90)}\n{metric.name.replace('/', ' ')}"
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
        add_legend(figure, panels, 5)
        return encode(figure)


def _half_width_in_unit(metric: Metric, summary: Summary) -> float | None:
    """Return half of an interval in the unit of the axis; None where there is none."""
    return None if summary.half_width is None else metric.scaled(summary.half_width)


def _read_epochs(row: Row) -> pd.DataFrame:
    """Read `metrics.csv` of a row's finished runs, one below the other; unreadable ones are left out."""
    frames = []
    for run in row.finished:
        try:
            frame = pd.read_csv(RunFiles(run.path).history_file)
        except (OSError, ValueError):
            continue
        if "epoch" in frame:
            frames.append(frame.apply(pd.to_numeric, errors="coerce"))
    return pd.concat(frames) if frames else pd.DataFrame()


def draw_curves(study: StudyRecord) -> dict[str, bytes]:
    """Draw loss and headline by epoch, training and validation, of every row: mean, and a band from min to max.

    Args:
        study: The table.

    Returns:
        The figure by format; empty where no run kept its epochs.
    """
    histories = {index: frame for index, row in enumerate(study.rows) if not (frame := _read_epochs(row)).empty}
    wanted = [f"{split}/{kind}" for kind in ("loss", Metric(study.headline).kind) for split in ("train", "val")]
    keys = [key for key in wanted if any(key in frame and frame[key].notna().any() for frame in histories.values())]
    if not keys:
        return {}
    lines = (len(keys) + 1) // 2
    with new_figure(7.2, 2.6 * lines + 0.5 + 0.17 * ((len(histories) + 2) // 3)) as figure:
        panels = list(figure.subplots(lines, min(2, len(keys)), sharex=True, squeeze=False).flat)
        for panel in panels[len(keys) :]:
            panel.set_axis_off()
        for key, axes in zip(keys, panels, strict=False):
            metric = Metric(key)
            for index, frame in histories.items():
                if key not in frame:
                    continue
                by_epoch = frame.groupby("epoch")[key].agg(["mean", "min", "max"]).dropna() * metric.scaled(1.0)
                color, label = COLORS[index % len(COLORS)], make_legend_label(study.rows[index].name)
                style: Any = {"linestyle": LINES[index // len(COLORS) % len(LINES)], "linewidth": 1.4}
                style["marker"] = "." if len(by_epoch) < 12 else ""
                axes.plot(by_epoch.index, by_epoch["mean"], color=color, label=label, **style)
                axes.fill_between(by_epoch.index, by_epoch["min"], by_epoch["max"], color=color, alpha=0.15)
            axes.set(xlabel="epoch", ylabel=metric.label)
            axes.xaxis.get_major_locator().set_params(integer=True)
        title = f"{shorten(study.title, 90)}\nlearning curves: mean; band: lowest to highest seed"
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
        add_legend(figure, panels[:1], 3)
        return encode(figure)


def draw_class_rates(study: StudyRecord, kind: str) -> dict[str, bytes]:
    """Draw a heat map of a per-class number, rows by classes, mean over seeds.

    Args:
        study: The table.
        kind: A key of the per-class entries, e.g. "accuracy".

    Returns:
        The figure by format; empty where the rows' classes have nothing in common, or no run has any.
    """
    scores = {row.name: {c: e[kind] for c, e in row.per_class().items() if kind in e} for row in study.rows}
    frame = pd.DataFrame.from_dict({name: entry for name, entry in scores.items() if entry}, orient="index") * 100
    if frame.empty:
        return {}
    rows, classes = frame.shape
    values = frame.to_numpy(dtype=np.float64)
    with new_figure(min(14.0, max(7.2, 2.4 + 0.5 * classes)), 1.7 + 0.32 * rows) as figure:
        axes = figure.subplots()
        image = axes.imshow(values, aspect="auto", cmap="cividis", interpolation="nearest")
        figure.colorbar(image, ax=axes, label=f"{kind}, %", pad=0.01)
        if classes <= 20:
            annotate(axes, values, image, lambda value: f"{value:.1f}")
        set_class_ticks(axes.set_xticks, list(map(str, frame.columns)), rotation=45 if classes <= 20 else 90)
        axes.set_yticks(range(rows), [shorten(name, 30) for name in frame.index])
        axes.set_xlabel("class")
        axes.grid(visible=False)
        return _encode_titled(figure, axes, study.title, f"{kind} of each class")


def draw_costs(study: StudyRecord, metric: Metric, rows: Sequence[RowStatistics], key: str) -> dict[str, bytes]:
    """Draw the metric against what it costs.

    Args:
        study: The table.
        metric: The metric.
        rows: Its rows.
        key: "parameters" or "seconds".

    Returns:
        The figure by format; empty where fewer than two rows differ in their cost.
    """
    points = [(one, cost) for one in rows if one.summary and (cost := one.row.mean(key))]
    if len({cost for _, cost in points}) < 2:
        return {}
    timed, costs = key == "seconds", [cost for _, cost in points]
    unit, size = duration_unit(costs) if timed else ("", 1.0)
    with new_figure(7.2, 4.0 + 0.17 * ((len(points) + 2) // 3)) as figure:
        from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

        axes = figure.subplots()
        for one, cost in points:
            assert one.summary is not None
            index = study.rows.index(one.row)  # a row has one color in all figures
            values = one.row.values(key).values()
            style: Any = {"fmt": MARKERS[index // len(COLORS) % len(MARKERS)], "color": COLORS[index % len(COLORS)]}
            axes.errorbar(
                cost / size,
                metric.scaled(one.summary.mean),
                xerr=[[(cost - min(values)) / size], [(max(values) - cost) / size]] if timed else None,
                yerr=_half_width_in_unit(metric, one.summary),
                capsize=3,
                label=make_legend_label(one.row.name),
                **style,
            )
        if max(costs) > 8 * min(costs):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter("{x:g}" if timed else EngFormatter())
        axes.set_xlabel(f"training time of one run, {unit} (bar: fastest to slowest)" if timed else "parameters")
        axes.set_ylabel(metric.label if study.settling else f"{metric.label} (bar: 95% interval)")
        about = f"{metric.name.replace('/', ' ')} against {'training time' if timed else 'parameters'}"
        return _encode_titled(figure, axes, study.title, about, legend_columns=3)


def draw_confusion(study: StudyRecord, row: Row) -> dict[str, bytes]:
    """Draw a row's confusion matrix, summed over its finished runs, as rates by true class.

    Args:
        study: Names the figure.
        row: The row.

    Returns:
        The figure by format; empty where no run has a square matrix.
    """
    try:
        found = [run.result["confusion_matrix"] for run in row.finished if run.result.get("confusion_matrix")]
        matrices = [np.asarray(matrix, dtype=np.float64) for matrix in found]
    except (TypeError, ValueError):  # ragged, or not of numbers
        return {}
    shapes = {matrix.shape for matrix in matrices}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 2 or shape[0] != shape[1]:
        return {}
    counts = np.sum(matrices, axis=0)
    names = list(row.per_class())
    if len(names) != len(counts):
        names = [str(index) for index in range(len(counts))]
    title = f"{shorten(study.title, 64)}\n{shorten(row.name)}: confusion over {plural(len(matrices), 'run')}"
    return encode(draw_rates(counts, names, title))


def find_mistakes_picture(row: Row) -> Path | None:
    """Return the picture of wrong (or the worst) predictions that the row's first run left; None where none did."""
    names = ("mistakes.png", "worst.png")
    pictures = (run.path / "figures" / name for run in row.finished for name in names)
    return next((picture for picture in pictures if picture.is_file()), None)
