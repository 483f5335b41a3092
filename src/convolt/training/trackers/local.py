"""Trackers that write files into the run's directory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from convolt.figures import tensorboard
from convolt.runs.history import Row
from convolt.training.trackers.tracker import Tracker, log_row


class TensorBoardTracker(TensorBoardLogger, Tracker):
    """TensorBoard's events, in the run's directory.

    Args:
        folder: That directory.
        epochs_done: Epochs trained before the run was resumed; TensorBoard forgets what came later.
    """

    def __init__(self, folder: Path, epochs_done: int) -> None:
        purge_step = epochs_done + 1 if epochs_done else None
        super().__init__(folder, name="", version="", default_hp_metric=False, purge_step=purge_step)

    def log_picture(self, tag: str, file: Path, step: int) -> None:
        """Add the PNG file, unchanged."""
        tensorboard.add_picture(self.experiment, tag, file.read_bytes(), step)

    def log_text(self, tag: str, markdown: str, step: int) -> None:
        """Add a text."""
        self.experiment.add_text(tag, markdown, step)

    def log_result(self, choices: Mapping[str, Any], metrics: Mapping[str, float], epoch: int) -> None:
        """Add a row to the table of hparams."""
        self.log_hyperparams(dict(choices), dict(metrics), epoch)
        self.finalize("success")


class CsvTracker(CSVLogger, Tracker):
    """Lightning's `metrics.csv` and `hparams.yaml`, in a folder `csv` of the run's directory.

    Args:
        folder: That directory.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="csv", flush_logs_every_n_steps=1)

    def resume(self, rows: Sequence[Row]) -> None:
        """Write the epochs so far again, since Lightning's logger removes the file that it finds."""
        for row in rows:
            log_row([self], row)

    def log_result(self, choices: Mapping[str, Any], metrics: Mapping[str, float], epoch: int) -> None:
        """Add a line with what was measured, and write the choices."""
        self.log_hyperparams(dict(choices))
        self.log_metrics(dict(metrics), epoch)
        self.finalize("success")
