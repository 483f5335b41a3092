"""One row an epoch: to metrics.csv, TensorBoard and status.json."""

import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from convolt.runs.directory import RunDirectory
from convolt.runs.history import Row, rows_to_csv
from convolt.system.files import write_text


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
        self._epoch_started = self._train_seconds = 0.0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the rows of the epochs before the run was resumed, which came with the checkpoint."""
        if self.rows and trainer.is_global_zero:
            write_text(self.directory.history_file, rows_to_csv(self.rows))

    def state_dict(self) -> dict[str, Any]:
        """Return the rows: a resumed run trusts the checkpoint's digest more than a file that anyone can edit."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the rows."""
        self.rows = [dict(row) for row in state_dict["rows"]]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of the epoch."""
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
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row: Row = {
            "epoch": trainer.current_epoch + 1,
            **dict(sorted(metrics.items())),
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "images_per_second": images / self._train_seconds,
            "seconds": time.perf_counter() - self._epoch_started,
        }
        self.rows.append(row)
        if not trainer.is_global_zero:
            return
        write_text(self.directory.history_file, rows_to_csv(self.rows))
        for logger in trainer.loggers:
            logger.log_metrics({name: value for name, value in row.items() if name != "epoch"}, step=int(row["epoch"]))
        epochs = trainer.max_epochs or 0
        left = (epochs - row["epoch"]) * sum(r["seconds"] for r in self.rows) / len(self.rows)
        self.directory.write_status(
            "running", epoch=int(row["epoch"]), max_epochs=epochs, metrics=metrics, seconds_left=round(left, 1)
        )
        self.on_row(row, epochs)
