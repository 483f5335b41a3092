"""A study, a sweep or several runs as an object: one table of rows and seeds."""

import os
from functools import cached_property
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from convolt.api.run import Run
from convolt.api.shown import ReportPage, SavedPicture, saved_pictures
from convolt.errors import UserError
from convolt.reports.collect import open_folder
from convolt.reports.records import StudyRecord
from convolt.runs.bundle import is_bundle

if TYPE_CHECKING:
    import pandas as pd

    from convolt.reports.table import Table

_COLUMNS = (
    "row", "n", "runs_expected", "mean", "standard_deviation", "interval_low", "interval_high", "difference",
    "difference_low", "difference_high", "pairs", "p_value", "p_value_holm", "verdict", "published",
    "difference_from_published",
)  # fmt: skip
"""Of the report's table of results, those that `Study.table` has, as far as there is something in them."""


class Study:
    """A study, a search, a sweep, or runs beside each other, as they were when this was made.

    Args:
        path: Their folder, or a bundle of them.

    Attributes:
        path: Where it was loaded from.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._unpacked = TemporaryDirectory(prefix="convolt-") if is_bundle(self.path) else None
        self._record = self._read()

    def _read(self) -> StudyRecord:
        if self._unpacked:
            from convolt.reports.bundle import open_bundle

            return open_bundle(self.path, Path(self._unpacked.name))
        found = open_folder(self.path)
        if len(found) > 1 or found[0].path != self.path:
            names = ", ".join(str(one.path) for one in found[:3])
            raise UserError(f"{self.path} holds several studies or runs; load one of them, such as {names}")
        return found[0]

    @property
    def title(self) -> str:
        """Of the study's page, or what the folder is called."""
        return self._record.title

    @property
    def question(self) -> str:
        """What the study asks; empty where it is no study."""
        return self._record.question

    @property
    def status(self) -> dict[str, int]:
        """How many runs are in each state: `{"finished": 9}`."""
        return self._record.states

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The runs that have begun, row by row; of a search, its trials are in `table()`."""
        begun = (run.path for run in self._record.runs if run.state != "missing")
        return tuple(Run(path, _keep=self._unpacked) for path in begun)

    def table(self, metric: str | None = None, baseline: str | None = None) -> "pd.DataFrame":
        """Return the table of results: means over seeds with intervals, differences, published values.

        Args:
            metric: By its name in `Run.metrics`; None: the one that the runs name, such as "test/accuracy".
            baseline: The row that the others are compared with; None: the study's.

        Returns:
            By row; fractions stay fractions, what is unknown is missing. Of a search: its trials, with their scores.

        Raises:
            UserError: When no run has the metric, or there is no such row.
        """
        from convolt.reports.table import to_frame

        frame = to_frame(self._results(metric, baseline))
        if self._record.kind == "search":
            return frame
        known = [name for name in _COLUMNS if name in frame and not frame[name].isna().all()]
        return frame[known].set_index("row")

    def report(
        self,
        metric: str | None = None,
        baseline: str | None = None,
        *,
        out: str | os.PathLike[str] | None = None,
    ) -> ReportPage:
        """Write the report, as `report.py` does: one page, its tables as CSV and LaTeX, its figures as PNG and SVG.

        Args:
            metric: See `table`.
            baseline: Likewise.
            out: Where to; None: the folder `report` of the study, or one beside the bundle.

        Returns:
            The page, of which notebooks show the sentences and a link.

        Raises:
            UserError: See `table`; also when the folder cannot be written.
        """
        from convolt.reports.document import write_report
        from convolt.reports.formats import Metric
        from convolt.reports.report import default_report_folder, set_baseline
        from convolt.reports.study_report import build_report

        record = set_baseline(self._record, baseline)
        folder = Path(out) if out is not None else default_report_folder(record)
        built = build_report(record, Metric(metric or record.headline))
        write_report(built, folder)
        return ReportPage(folder / "report.html", tuple(built.summary))

    @property
    def figures(self) -> dict[str, SavedPicture]:
        """The figures of the report by name, such as "comparison"; where none has been written, it is written first."""
        from convolt.reports.report import default_report_folder

        folder = default_report_folder(self._record) / "figures"
        if not folder.is_dir():
            self.report()
        return saved_pictures(folder)

    def _results(self, metric: str | None, baseline: str | None) -> "Table":
        """Return the report's table of results, or of a search that of its trials."""
        from convolt.reports.formats import Metric
        from convolt.reports.report import set_baseline
        from convolt.reports.statistics import analyze
        from convolt.reports.study_tables import build_results
        from convolt.reports.tuning_tables import build_trials

        if self._record.kind == "search":
            assert self._record.tuning is not None
            return build_trials(self._record.tuning)
        record = set_baseline(self._record, baseline)
        judged_by = Metric(metric or record.headline)
        return build_results(record, judged_by, analyze(record, judged_by))

    def __repr__(self) -> str:
        states = ", ".join(f"{count} {state}" for state, count in self.status.items())
        return f"Study({str(self.path)!r}, {states})"

    def _repr_html_(self) -> str:
        """Return the title, how far the runs are, and the table as the report shows it."""
        from convolt.reports import page

        states = ", ".join(f"{count} {state}" for state, count in self.status.items())
        question = f"<br>{escape(self.question)}" if self.question else ""
        place = f"<code>{escape(str(self.path))}</code>"
        head = f"<p><b>{escape(self.title)}</b>{question}<br>{escape(states)}<br>{place}</p>"
        return head + page.table(self._results(None, None), heading=False)
