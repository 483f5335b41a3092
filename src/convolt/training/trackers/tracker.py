"""What every tracker is told, besides what Lightning tells its loggers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger

from convolt.runs.history import Row

SUCCESS, FAILED, INTERRUPTED = "success", "failed", "interrupted"
"""How a run ends."""


class Tracker(Logger):
    """A logger of Lightning's that is also told of pictures, the result and the end of a run."""

    def begin(self) -> None:
        """Take that the run begins."""

    def resume(self, rows: Sequence[Row]) -> None:
        """Take the epochs before those that a resumed run trains now; most trackers have them already."""

    def log_picture(self, tag: str, file: Path, step: int) -> None:
        """Take a PNG file.

        Args:
            tag: Its name, with slashes: `figures/confusion`.
            file: Where it lies.
            step: The epoch that it shows.
        """

    def log_text(self, tag: str, markdown: str, step: int) -> None:
        """Take a text."""

    def log_result(self, choices: Mapping[str, Any], metrics: Mapping[str, float], epoch: int) -> None:
        """Take what a finished run is compared by.

        Args:
            choices: The options of the groups, the usual numbers, and whatever was typed.
            metrics: Of the test images; of validation images where a run does not test.
            epoch: The one whose weights were measured.
        """

    def announce_end(self, outcome: str) -> None:
        """Take that the run has ended, and how; do not wait."""

    def wait(self) -> None:
        """Wait until all has arrived, or will not."""


def log_row(loggers: Iterable[Logger], row: Row) -> None:
    """Tell loggers an epoch's metrics."""
    metrics = {name: value for name, value in row.items() if name != "epoch"}
    for logger in loggers:
        logger.log_metrics(metrics, step=int(row["epoch"]))


def trackers_among(loggers: Iterable[Logger]) -> list[Tracker]:
    """Return those of a Trainer's loggers that are trackers."""
    return [logger for logger in loggers if isinstance(logger, Tracker)]


@contextmanager
def tracking(loggers: Iterable[Logger]) -> Iterator[None]:
    """Tell trackers that the run in the block begins and how it has ended, all at once, and wait for them."""
    trackers, outcome = trackers_among(loggers), INTERRUPTED
    try:
        for tracker in trackers:
            tracker.begin()
        yield
        outcome = SUCCESS
    except Exception:
        outcome = FAILED
        raise
    finally:
        for tracker in trackers:
            tracker.announce_end(outcome)
        for tracker in trackers:
            tracker.wait()
