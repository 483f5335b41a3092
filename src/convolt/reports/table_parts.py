"""The parts of a report on training time to a target, on several datasets, and on interactions: tables with figures."""

from collections.abc import Sequence
from dataclasses import dataclass

from convolt.reports import across_datasets, interactions, page, time_to_target
from convolt.reports.formats import Metric
from convolt.reports.records import StudyRecord
from convolt.reports.table import Table


@dataclass(frozen=True)
class Part:
    """A table with its figure.

    Attributes:
        heading: Of its section.
        table: The table, which also names the figure's files.
        figure: By format; empty where nothing is drawn.
        caption: Of the figure.
        summary: What the numbers tell, for the top of the page; may be empty.
    """

    heading: str
    table: Table
    figure: dict[str, bytes]
    caption: str
    summary: str = ""


def build_parts(study: StudyRecord, metric: Metric, target: float | None = None, draw: bool = True) -> list[Part]:
    """Make the parts that a table has.

    Args:
        study: The table.
        metric: What its rows are judged by.
        target: For the validation metric; None: it follows from the table.
        draw: Whether to make figures.

    Returns:
        The parts, in order; those without content are left out.

    Raises:
        UserError: The target is out of range, or no run kept the epochs that it asks for.
    """
    parts = []
    if datasets := across_datasets.compare_datasets(study, metric):
        table = across_datasets.build_across_datasets(study, metric, datasets)
        figure = across_datasets.draw_across_datasets(study, metric, datasets) if draw else {}
        parts.append(Part("Across datasets", table, figure, across_datasets.FIGURE_CAPTION))
    for each in interactions.find_interactions(study, metric):
        table = interactions.build_interactions(study, metric, each)
        figure = interactions.draw_interactions(study, metric, each) if draw else {}
        told = interactions.describe_interactions(study, metric, each)
        parts.append(Part("Interactions", table, figure, interactions.FIGURE_CAPTION, told))
    if times := time_to_target.measure_times(study, target):
        table = time_to_target.build_target_times(study, times)
        figure = time_to_target.draw_target_times(study, times) if draw else {}
        parts.append(Part("Learning curves", table, figure, time_to_target.FIGURE_CAPTION))
    return parts


def show_parts(parts: Sequence[Part], heading: str) -> list[str]:
    """Return the parts of a section of the page, as HTML."""
    shown = []
    for part in parts:
        if part.heading == heading:
            shown.append(page.table(part.table, heading=part.table.title != heading))
            shown += [page.figure(part.figure, part.caption)] if part.figure else []
    return shown
