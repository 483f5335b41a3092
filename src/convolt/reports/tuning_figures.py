"""The figures of tuned settings: the score over each tuned key, and the best score against the number of trials."""

from typing import TYPE_CHECKING, Any

import numpy as np

from convolt.figures.style import COLORS, LINES, new_figure, shorten
from convolt.reports.decisions import TunedRow, Tuning
from convolt.reports.study_figures import add_legend, encode, make_legend_label
from convolt.reports.tuning_tables import format_setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHOSEN = "#D55E00"


def draw_sensitivity(tuning: Tuning, title: str) -> dict[str, bytes]:
    """Draw the score of all trials over each tuned key, a panel a row and key, with the choice.

    Args:
        tuning: The trials.
        title: Names the study.

    Returns:
        The figure by format; empty where no trial has finished.
    """
    keys = tuning.keys
    scores = [trial.score for row in tuning.rows for trial in row.trials if trial.score is not None]
    if not scores:
        return {}
    low, high = tuning.monitor.scaled(min(scores)), tuning.monitor.scaled(max(scores))
    height = (high - low) or abs(high) or 1.0
    count = len(tuning.rows)
    with new_figure(max(4.2, 3.6 * len(keys)), 1.2 + 1.75 * count) as figure:
        panels = figure.subplots(count, len(keys), squeeze=False, sharey=True)
        for line, row in zip(panels, tuning.rows, strict=True):
            for axes, key in zip(line, keys, strict=True):
                if key in row.space:
                    _draw_panel(axes, tuning, row, key)
                else:
                    axes.set_axis_off()
            line[0].set_ylabel(tuning.monitor.label)
        for column, key in enumerate(keys):
            _share_limits([axes for axes, row in zip(panels[:, column], tuning.rows, strict=True) if key in row.space])
        panels[0, 0].set_ylim(low - 0.2 * height, high + 0.12 * height)  # those that diverged stand below
        figure.suptitle(
            f"{shorten(title, 90)}\nscore of every trial over each tuned key", fontsize=10, x=0.01, ha="left"
        )
        add_legend(figure, list(panels.flat), 3)
        return encode(figure)


def _draw_panel(axes: "Axes", tuning: Tuning, row: TunedRow, key: str) -> None:
    """Draw the trials of one row over one key; diverged ones at the lower end."""
    from matplotlib.ticker import LogLocator

    values = row.space[key]
    if isinstance(values, list):
        names = [format_setting(value) for value in values]
        axes.set_xticks(range(len(names)), [shorten(name, 18) for name in names])
        axes.set_xlim(-0.5, len(names) - 0.5)
    elif row.is_log(key):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(
            LogLocator(subs=(1.0, 2.0, 5.0) if values["high"] < 100 * values["low"] else (1.0,))
        )
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")

    def place(value: Any) -> float:
        return float(names.index(format_setting(value))) if isinstance(values, list) else float(value)

    choice = row.choice.trial if row.choice else None
    for trial in row.trials:
        x = place(trial.values[key])
        if trial.diverged:
            style: Any = {"transform": axes.get_xaxis_transform(), "color": "#666666", "linestyle": ""}
            axes.plot(x, 0.04, "x", label="diverged", **style)
        elif trial.score is not None and trial.number != choice:
            axes.plot(x, tuning.monitor.scaled(trial.score), "o", color=COLORS[0], alpha=0.7, label="one trial")
    for trial in row.trials:
        if trial.number == choice and trial.score is not None:
            y = tuning.monitor.scaled(trial.score)
            axes.plot(place(trial.values[key]), y, "D", color=CHOSEN, markersize=8, zorder=4, label="chosen")
    axes.set_title(shorten(row.name, 40), loc="left", fontsize=9)
    axes.set_xlabel(key)


def _share_limits(panels: list["Axes"]) -> None:
    """Give the panels of one key the same axis, so that rows compare at a glance, where it is of the same kind."""
    if len({(axes.get_xscale(), axes.xaxis.get_major_formatter().__class__) for axes in panels}) > 1:
        return
    limits = [axes.get_xlim() for axes in panels]
    for axes in panels:
        axes.set_xlim(min(low for low, _ in limits), max(high for _, high in limits))


def draw_best_so_far(tuning: Tuning, title: str) -> dict[str, bytes]:
    """Draw the best score of the first trials of each row against their number.

    Args:
        tuning: The trials.
        title: Names the study.

    Returns:
        The figure by format; empty where no trial has finished.
    """
    accumulate = (np.fmin if tuning.monitor.lower_is_better else np.fmax).accumulate
    lines = []
    for row in tuning.rows:
        scores = [np.nan if trial.score is None else tuning.monitor.scaled(trial.score) for trial in row.trials]
        while scores and not row.trials[len(scores) - 1].finished:
            scores.pop()
        lines.append(accumulate(np.asarray(scores, dtype=np.float64)))
    if not any(np.isfinite(line).any() for line in lines):
        return {}
    with new_figure(7.2, 3.4 + 0.17 * ((len(lines) + 2) // 3)) as figure:
        from matplotlib.ticker import MaxNLocator

        axes = figure.subplots()
        for index, (row, line) in enumerate(zip(tuning.rows, lines, strict=True)):
            style: Any = {
                "linestyle": LINES[index // len(COLORS) % len(LINES)],
                "marker": ".",
                "drawstyle": "steps-post",
            }
            label = make_legend_label(row.name)
            axes.plot(range(1, len(line) + 1), line, color=COLORS[index % len(COLORS)], label=label, **style)
        axes.set(xlabel="number of trials", ylabel=f"best {tuning.monitor.label}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(f"{shorten(title, 90)}\nbest so far", loc="left")
        add_legend(figure, [axes], 3)
        return encode(figure)
