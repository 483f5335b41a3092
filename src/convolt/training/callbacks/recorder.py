"""One row an epoch: to metrics.csv, the trackers and status.json."""

import math
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from convolt.runs.directory import RunDirectory
from convolt.runs.history import Row, rows_to_csv
from convolt.system.files import write_text
from convolt.training.trackers.tracker import log_row, trackers_among

_NO_METRICS = {"epoch", "learning_rate", "images_per_second", "seconds"}


def synchronized_time(device: torch.device) -> float:
    """Return the time in seconds when a device has finished its work so far."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Recorder(Checkpoint):
    """Records every epoch when it has ended.

    It is a `Checkpoint` because Lightning calls those alone after the module has logged the epoch's metrics.

    Args:
        directory: Of the run.
        on_row: Called with every new row and the number of epochs, to show it on the screen.
    """

    def __init__(self, directory: RunDirectory, on_row: Callable[[Row, int], None]) -> None:
        self.directory = directory
        self.on_row = on_row
        self.rows: list[Row] = []
        self.training_seconds = 0.0
        self._epoch_started = self._train_seconds = self._row_ended = 0.0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go back to the checkpoint from which the run is resumed: epochs after it will be trained again."""
        if not trainer.is_global_zero:
            return
        if self.rows:
            self._write(trainer)
            for tracker in trackers_among(trainer.loggers):
                tracker.resume(self.rows)
        else:
            self.directory.history_file.unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the rows: a resumed run trusts the checkpoint's digest more than a file that anyone can edit."""
        return {"rows": self.rows, "training_seconds": self.training_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the rows; earlier checkpoints do not know what of the seconds training took."""
        self.rows = [dict(row) for row in state_dict["rows"]]
        self.training_seconds = state_dict.get("training_seconds", math.nan)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of the first epoch; that of each other one starts where the row before ends."""
        self._row_ended = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of the epoch's training."""
        self._epoch_started = time.perf_counter()
        self._train_seconds = 0.0

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock: the epoch's training has ended."""
        if not self._train_seconds:
            self._train_seconds = synchronized_time(pl_module.device) - self._epoch_started

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epoch's row."""
        self.on_validation_start(trainer, pl_module)  # where there was none
        images = trainer.num_training_batches * trainer.train_dataloader.batch_size  # type: ignore[union-attr]
        images = min(images, trainer.train_dataloader.num_images)  # type: ignore[union-attr]
        self.training_seconds += self._train_seconds
        now, before = time.perf_counter(), self._row_ended
        self._row_ended = now
        row: Row = {
            "epoch": trainer.current_epoch + 1,
            **{name: float(value) for name, value in sorted(trainer.callback_metrics.items())},
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "images_per_second": images / self._train_seconds,
            "seconds": now - before,
        }
        self.rows.append(row)
        if not trainer.is_global_zero:
            return
        self._write(trainer)
        log_row(trainer.loggers, row)
        self.on_row(row, trainer.max_epochs or 0)

    def _write(self, trainer: pl.Trainer) -> None:
        """Write all rows, and how far the run has come."""
        write_text(self.directory.history_file, rows_to_csv(self.rows))
        row, epochs = self.rows[-1], trainer.max_epochs or 0
        left = (epochs - row["epoch"]) * sum(r["seconds"] for r in self.rows) / len(self.rows)
        self.directory.write_status(
            "running",
            epoch=int(row["epoch"]),
            max_epochs=epochs,
            metrics={name: value for name, value in row.items() if name not in _NO_METRICS},
            seconds_left=round(left, 1),
        )
