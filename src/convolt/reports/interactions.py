"""Whether a row's difference from the baseline depends on a swept value: differences of differences."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from convolt.figures.style import COLORS, LINES, MARKERS, new_figure, shorten
from convolt.reports.claims import ERROR
from convolt.reports.formats import Metric, format_p_value, plural
from convolt.reports.records import StudyRecord
from convolt.reports.statistics import Difference, compare, correct_p_values
from convolt.reports.study_figures import add_legend, encode, make_legend_label
from convolt.reports.study_tables import make_difference_notes, make_difference_record
from convolt.reports.swept_axes import Grid, find_grids, strip_key
from convolt.reports.table import ROW, Column, Note, Table
from convolt.reports.words import capitalize, count_range, format_amount, format_interval

FIGURE_CAPTION = "Means at each swept value, and how far each difference from the baseline changes with it"
MOST_SENTENCES = 4


@dataclass(frozen=True)
class Interaction:
    """How a row's difference from its baseline changes between two swept values.

    Attributes:
        name: The row, apart from the swept key.
        baseline: The row with which it is compared.
        reference: The swept override that the other is set against.
        value: The other one.
        at_reference: The difference from the baseline there, over the common seeds; None where there are none.
        at_value: The difference at the other value.
        change: The second minus the first, paired by seed, Holm-corrected in `p_holm`; without interval and p-value in
            a settled study and for one common seed.
    """

    name: str
    baseline: str
    reference: str
    value: str
    at_reference: float | None
    at_value: float | None
    change: Difference | None

    @property
    def label(self) -> str:
        """Names it in a table."""
        return f"{self.name} ({strip_key(self.value)} against {strip_key(self.reference)})"

    @property
    def told(self) -> bool:
        """Whether the seeds tell that the difference changes."""
        p = self.change.p_holm if self.change else None
        return p is not None and p < ERROR


@dataclass(frozen=True)
class GridInteractions:
    """The interactions of one swept key with the rows.

    Attributes:
        grid: The rows by swept value.
        found: Of each row and value beside the baseline and the first value.
    """

    grid: Grid
    found: tuple[Interaction, ...]

    @property
    def stem(self) -> str:
        """Names its table and figure."""
        return f"interactions_{self.grid.key.replace('/', '.')}"


def find_interactions(study: StudyRecord, metric: Metric) -> list[GridInteractions]:
    """Work out the differences of differences of a table, for every swept key but `data`.

    Of row r, baseline b, swept value v and first value u, a seed's is (r at v - b at v) - (r at u - b at u), over the
    seeds that have all four runs: what a seed does to both rows, or at both values, drops out. The interval and the
    test are Student's, and Holm's correction is over all of one swept key. The scale of a metric differs between
    datasets, so `data` has none.

    Args:
        study: The table.
        metric: The metric.

    Returns:
        One entry a swept key that has any difference of differences.
    """
    every = []
    for grid in find_grids(study):
        if grid.key == "data":
            continue
        found = [_find(grid, metric, name, value) for name in grid.baselines for value in grid.values[1:]]
        changes: Sequence[Difference | None] = correct_p_values([one.change for one in found])
        if study.settling:
            changes = [one and replace(one, low=None, high=None, p_value=None, p_holm=None) for one in changes]
        if any(changes):
            pairs = zip(found, changes, strict=True)
            every.append(GridInteractions(grid, tuple(replace(one, change=change) for one, change in pairs)))
    return every


def _find(grid: Grid, metric: Metric, name: str, value: str) -> Interaction:
    baseline, reference = grid.baselines[name], grid.values[0]
    cells = [grid.read(*cell, metric.name) for cell in _corners(name, baseline, reference, value)]
    seeds = [seed for seed in cells[0] if all(seed in cell for cell in cells)]
    at_reference, at_value = ({seed: a[seed] - b[seed] for seed in seeds} for a, b in (cells[:2], cells[2:]))
    if not seeds:
        return Interaction(name, baseline, reference, value, None, None, None)
    change = compare(at_value, at_reference)
    means = fmean(at_reference.values()), fmean(at_value.values())
    return Interaction(name, baseline, reference, value, *means, change)


def _corners(name: str, baseline: str, reference: str, value: str) -> list[tuple[str, str]]:
    return [(name, reference), (baseline, reference), (name, value), (baseline, value)]


def describe_interactions(study: StudyRecord, metric: Metric, interactions: GridInteractions) -> str:
    """Say in sentences what the seeds tell, and of how much they tell nothing: that is not to say that nothing differs.

    Args:
        study: The table; nothing is told of a settled one.
        metric: The metric.
        interactions: Of one swept key.

    Returns:
        The sentences; empty for a settled study, and where one seed alone is common.
    """
    tested = [one for one in interactions.found if one.change and one.change.p_value is not None]
    if study.settling or not tested:
        return ""
    told = sorted((one for one in tested if one.told), key=lambda one: one.change.p_holm if one.change else 1.0)  # type: ignore[arg-type,return-value]
    sentences = [_describe_told(metric, one) for one in told[:MOST_SENTENCES]]
    if more := told[MOST_SENTENCES:]:
        sentences.append(f"{len(more)} more are told, see the table.")
    if open_ones := [one for one in tested if not one.told]:
        seeds = count_range([one.change.n for one in open_ones if one.change], "seed")
        which = (
            "; ".join(one.label for one in open_ones)
            if len(open_ones) <= MOST_SENTENCES
            else f"{len(open_ones)} others"
        )
        sentences.append(f"Whether differences change with {interactions.grid.key} is not told by {seeds}: {which}.")
    return " ".join(sentences)


def _describe_told(metric: Metric, one: Interaction) -> str:
    """Say which way a difference changes, by how much, and what it is at both values."""
    assert one.change is not None
    way = "higher" if one.change.mean > 0 else "lower"
    low, high = sorted(abs(end) for end in (one.change.low or 0.0, one.change.high or 0.0))
    size = format_amount(metric, abs(one.change.mean)) + format_interval(metric, low, high)
    return (
        f"The difference of '{one.name}' from '{one.baseline}' is {size} {way} with {one.value} than with "
        f"{one.reference}: "
        f"{metric.signed(one.at_value)} against {metric.signed(one.at_reference)}, told by "
        f"{plural(one.change.n, 'seed')}."
    )


def build_interactions(study: StudyRecord, metric: Metric, interactions: GridInteractions) -> Table:
    """Build the table of differences at both values, and of how far they differ."""
    records, notes = [], []
    for one in interactions.found:
        record: dict[str, object] = {"row": one.label, "name": one.name, "baseline": one.baseline, "value": one.value}
        record |= {"reference": one.reference, "at_reference": one.at_reference, "at_value": one.at_value}
        numbers = make_difference_record(one.change)
        if study.settling:
            numbers = {key: numbers[key] for key in ("difference", "pairs")}
        elif one.change:
            notes += make_difference_notes(one.label, replace(one.change, left_out=0))
        if one.change is None:
            notes.append(Note(one.label, "row", "no seed has finished all four runs"))
        records.append({**record, **numbers})

    def format_change(mean: float, high: float | None) -> str:
        return metric.signed(mean) if high is None else metric.interval(mean, high, signed=True)

    columns = [
        ROW,
        Column("n", "pairs"),
        Column("difference there", "at_value", metric.signed),
        Column(f"with {interactions.grid.values[0]}", "at_reference", metric.signed),
        Column("change" if study.settling else "change ± 95%", "difference", format_change, ("difference_high",)),
    ]
    if any(one.change and one.change.p_holm is not None for one in interactions.found):
        columns.append(Column("p", "p_value_holm", format_p_value))
    title = f"Does the difference depend on {interactions.grid.key}?"
    return Table(interactions.stem, title, _describe(study, metric, interactions), columns, records, notes)


def _describe(study: StudyRecord, metric: Metric, interactions: GridInteractions) -> str:
    """Say what the numbers are, and what a large p-value does not mean."""
    names = list(dict.fromkeys(interactions.grid.baselines.values()))
    whose = f"'{names[0]}'" if len(names) == 1 else f"'{study.baseline}' with the same other swept values"
    what = (
        f"{capitalize(metric.label)}: the difference from {whose} at a value of {interactions.grid.key}, that with "
        f"{interactions.grid.values[0]}, and the change from this to that, over the n seeds that have all four runs"
    )
    if study.settling:
        return f"{what}. Results decided how many seeds ran, so a change has no interval, and there is no claim."
    m = sum(1 for one in interactions.found if one.change and one.change.p_value is not None)
    what += ", paired by seed, ± half of its 95% interval (Student's t)"
    what += f"; p: paired t test, Holm-corrected over {plural(m, 'change')}; told: p < {ERROR:g}." if m else "."
    what += " A change that is not told may still be there." if m else ""
    return what


def draw_interactions(study: StudyRecord, metric: Metric, interactions: GridInteractions) -> dict[str, bytes]:
    """Draw the mean of each row at each swept value, and beside them the differences of differences.

    Args:
        study: Names the figure.
        metric: The metric.
        interactions: Of one swept key.

    Returns:
        The figure by format.
    """
    grid, shown = interactions.grid, [one for one in interactions.found if one.change]
    with new_figure(9.6, max(3.6, 1.5 + 0.3 * len(shown)) + 0.17 * ((len(grid.names) + 2) // 3)) as figure:
        left, right = figure.subplots(1, 2)
        for index, name in enumerate(grid.names):
            points = [
                (x, metric.scaled(fmean(values.values())))
                for x, value in enumerate(grid.values)
                if (values := grid.read(name, value, metric.name))
            ]
            style: Any = {"color": COLORS[index % len(COLORS)], "linestyle": LINES[index // len(COLORS) % len(LINES)]}
            style |= {"marker": MARKERS[index % len(MARKERS)], "linewidth": 1.4, "markersize": 5}
            left.plot([x for x, _ in points], [y for _, y in points], label=make_legend_label(name), **style)
        left.set_xticks(range(len(grid.values)), [shorten(strip_key(value), 14) for value in grid.values])
        left.set(xlabel=grid.key, ylabel=f"{metric.label}, mean", xlim=(-0.3, len(grid.values) - 0.7))
        right.axvline(0, color="black", linewidth=0.8)
        for y, one in enumerate(shown):
            assert one.change is not None
            high = one.change.high
            half = None if high is None else metric.scaled(high - one.change.mean)
            index = grid.names.index(one.name)
            style = {"fmt": MARKERS[index % len(MARKERS)], "color": COLORS[index % len(COLORS)], "capsize": 3}
            right.errorbar(metric.scaled(one.change.mean), y, xerr=half, **style)
        right.set_yticks(
            range(len(shown)), [f"{shorten(one.name, 24)}, {shorten(strip_key(one.value), 14)}" for one in shown]
        )
        right.set_ylim(len(shown) - 0.5, -0.5)
        right.grid(axis="y", visible=False)
        interval = "" if study.settling else " (bar: 95%)"
        against = shorten(strip_key(grid.values[0]), 14)
        right.set_xlabel(f"change against {against}{', points' if metric.percent else ''}{interval}")
        title = f"{shorten(study.title, 90)}\n{metric.words}: does the difference depend on {shorten(grid.key, 30)}?"
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
        add_legend(figure, [left], 3)
        return encode(figure)
