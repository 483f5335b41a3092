"""What a run shows in a notebook: one line that changes in place, and its settings below it."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from rich.console import Console

from convolt.errors import printable
from convolt.runs.history import Row
from convolt.system.notebook import REFRESH_SECONDS, LiveLine
from convolt.training.callbacks.screen import Screen, name_folder


class NotebookScreen(Screen):
    """Shows a run below a notebook's cell; the epochs' numbers are in `Run.history`, and the metrics in the `Run`."""

    def __init__(self) -> None:
        super().__init__()
        # Left alone, rich would make an output of the cell for each line, and colors where the kernel asks for them.
        self.console = Console(force_jupyter=False, force_terminal=False, highlight=False, soft_wrap=True)
        self._line = LiveLine()
        self._settings = self._last_row = ""
        self._seconds: list[float] = []

    def settings(self, rows: Mapping[str, str], notes: Sequence[str]) -> None:
        """Show what is about to run, a line a setting and a line a note, below the line that changes."""
        lines = [*rows.items(), *(("note", note) for note in notes)]
        self._settings = "\n".join(f"{name:<8} {printable(text)}" for name, text in lines)
        self._line.show("begins", 0, self._settings)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the line."""
        super().on_train_start(trainer, pl_module)
        self._show(trainer, 0)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the statistics of the epoch before."""
        self._copied = None

    def show_step(self, trainer: pl.Trainer, batch_idx: int) -> None:
        """Move the bar some times a second."""
        if time.monotonic() - self._last_refresh >= REFRESH_SECONDS:
            self._show(trainer, batch_idx + 1, self._read_statistics(trainer))

    def row(self, row: Row, epochs: int) -> None:
        """Keep an epoch's numbers for the line."""
        self._seconds.append(row["seconds"])
        name = f"val/{self._headline}" if f"val/{self._headline}" in row else f"train/{self._headline}"
        self._last_row = f"{name.replace('_', ' ')} {row[name]:.4f}"

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Say how far it came."""
        self._line.show(f"stopped in epoch {trainer.current_epoch + 1} of {trainer.max_epochs}", more=self._settings)

    def result(self, result: Mapping[str, Any], folder: Path) -> None:
        """Say that it has finished, and what its most important number is."""
        value = result["metrics"].get(result["headline"])
        outcome = f"{result['headline']} {value:.4f}" if value is not None else "finished"
        if result.get("diverged"):
            outcome = f"diverged: {result['reason']}"
        took = f"{result['epochs']} epochs, {result['seconds']:.1f} s"
        self._line.show(f"{outcome}, {took}, {name_folder(folder)}", more=self._settings)

    def _show(self, trainer: pl.Trainer, completed: int, note: str = "") -> None:
        epochs, batches = trainer.max_epochs or 1, trainer.num_training_batches or 1
        share = (trainer.current_epoch + completed / batches) / epochs
        parts = [f"epoch {trainer.current_epoch + 1}/{epochs}", note, self._last_row]
        if self._seconds:
            left = (1 - share) * epochs * sum(self._seconds) / len(self._seconds)
            parts.append(f"{time.strftime('%H:%M:%S', time.gmtime(left)).removeprefix('00:')} left")
        self._line.show("  ".join(part for part in parts if part), share, self._settings)
