"""What a run shows: its settings, its progress, and its result. On a terminal with a bar, elsewhere line by line."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from torch import Tensor

from convolt.errors import printable
from convolt.models.summary import NetworkSummary
from convolt.runs.history import Row
from convolt.system.notebook import REFRESH_SECONDS

log = logging.getLogger(__name__)


class Screen(Callback):
    """Shows a run on standard output.

    Args:
        shown: Show anything at all; off on all processes but the first.
    """

    def __init__(self, *, shown: bool = True) -> None:
        self.console = Console(quiet=not shown, highlight=False, soft_wrap=True)
        self._progress: Progress | None = None
        self._last_refresh = 0.0
        self._copied: Tensor | None = None
        self._arrived: torch.cuda.Event | None = None
        self._headline = "accuracy"

    def settings(self, rows: Mapping[str, str], notes: Sequence[str]) -> None:
        """Show what is about to run, a line a setting and a line a note."""
        self.console.print("[bold]convolt[/]")
        for name, text in (*rows.items(), *(("note", note) for note in notes)):
            self.console.print(f"[cyan]{name:<8}[/] {escape(printable(text))}")

    def layers(self, summary: NetworkSummary) -> None:
        """Show a network layer by layer."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("layer", "type"):
            table.add_column(name)
        for name in ("output", "parameters", "multiply-adds"):
            table.add_column(name, justify="right", no_wrap=True)
        for layer in summary.layers:
            shape = "x".join(map(str, layer.output_shape))
            counts = [f"{count:,}" if count else "" for count in (layer.parameters, layer.macs)]
            table.add_row(layer.name, layer.type, shape, *counts)
        table.add_section()
        table.add_row("all", "", "", f"{summary.parameters:,}", f"{summary.macs:,}")
        wide = self.console.options.update(width=1000)
        self.console.print(table, width=self.console.measure(table, options=wide).maximum)  # no name is cut

    def say(self, line: str) -> None:
        """Show a line, or several, as they are; run.log has them too."""
        log.info("%s", line)
        self.console.print("\n".join(map(printable, line.split("\n"))), markup=False)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar."""
        self._headline = getattr(pl_module, "headline", self._headline)
        if not self.console.file.isatty() or self.console.quiet:  # FORCE_COLOR asks for color, not for a bar
            return
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            auto_refresh=False,  # by a thread, ten times a second, beside small networks
        )
        self._progress.start()
        self._progress.add_task("train", total=None, epoch="", note="")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the bar."""
        if self._progress:
            self._copied = None
            epoch = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
            self._progress.reset(self._progress.task_ids[0], total=trainer.num_training_batches, epoch=epoch, note="")

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Move the bar."""
        self.show_step(trainer, trainer.fit_loop.epoch_loop.batch_idx)

    def show_step(self, trainer: pl.Trainer, batch_idx: int) -> None:
        """Move the bar some times a second, with the epoch's loss and accuracy as they were one refresh ago.

        They are copied from a GPU without waiting for it, and read at the next refresh.
        """
        if self._progress and time.monotonic() - self._last_refresh >= REFRESH_SECONDS:
            note = self._read_statistics(trainer)
            self._progress.update(self._progress.task_ids[0], completed=batch_idx + 1, note=note, refresh=True)

    def _read_statistics(self, trainer: pl.Trainer) -> str:
        """Return the epoch's loss and accuracy as they were one refresh ago, and have those of now copied."""
        self._last_refresh = time.monotonic()
        note = ""
        if self._copied is not None and (self._arrived is None or self._arrived.query()):  # type: ignore[no-untyped-call]
            loss, accuracy = self._copied.tolist()
            note = f"loss {loss:.4f} accuracy {accuracy:.4f}"
        running_stats = trainer.lightning_module.running_stats()  # type: ignore[operator]
        if running_stats is not None:
            self._copied = torch.empty_like(running_stats, device="cpu", pin_memory=running_stats.is_cuda)
            self._copied.copy_(running_stats, non_blocking=True)
            self._arrived = torch.cuda.current_stream().record_event() if running_stats.is_cuda else None
        return note

    def row(self, row: Row, epochs: int) -> None:
        """Show an epoch's numbers in a line."""
        parts = [f"epoch {int(row['epoch']):>{len(str(epochs))}}/{epochs}"]
        for split in ("train", "val"):
            if f"{split}/loss" in row:
                shown = f"{self._headline.replace('_', ' ')} {row[f'{split}/{self._headline}']:.4f}"
                parts.append(f"{split} loss {row[f'{split}/loss']:.4f} {shown}")
        parts.append(f"{row['images_per_second']:,.0f} images/s")
        self.console.print("  ".join(parts))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove the bar."""
        if self._progress:
            self._progress.stop()
            self._progress = None

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Remove the bar."""
        self.on_train_end(trainer, pl_module)

    def result(self, result: Mapping[str, Any], folder: Path) -> None:
        """Show the metrics of every split and where everything lies."""
        metrics: Mapping[str, float] = result["metrics"]
        shown = name_folder(folder)
        if result.get("diverged"):
            self.console.print(f"diverged: {result['reason']}\n{shown}", markup=False)
            return
        names = list(dict.fromkeys(name.split("/")[1] for name in metrics))
        splits = [split for split in ("train", "val", "test") if any(name.startswith(f"{split}/") for name in metrics)]
        title = f"{result['checkpoint']} checkpoint, epoch {result['tested_epoch']}"
        title += "" if "test" in splits else ", not tested"
        table = Table(
            "metric", *(Column(split, justify="right") for split in splits), title=title, title_justify="left"
        )
        for name in names:
            values = (metrics.get(f"{split}/{name}") for split in splits)
            table.add_row(name, *("" if value is None else f"{value:.4f}" for value in values))
        self.console.print(table)
        self.console.print(f"{result['seconds']:.1f} s, {result['images_per_second'] or 0:,.0f} training images/s")
        self.console.print(shown, markup=False)


def name_folder(folder: Path) -> str:
    """Return a folder as it is shown: relative to the working directory where it lies below it."""
    resolved, here = folder.resolve(), Path.cwd()
    return printable(resolved.relative_to(here) if resolved.is_relative_to(here) else folder)
