"""Which checkpoints a run keeps: the best weights, and the whole state of the last epochs."""

import logging
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from convolt.runs.checkpoints import SafeCheckpointIO, write_best
from convolt.runs.state_copy import StateCopy
from convolt.system.background import Background
from convolt.tasks.schedulers import mode_of
from convolt.tasks.task import Task

log = logging.getLogger(__name__)

_GRACE_SECONDS = 20.0
"""What a write may still take when a signal ends the run; SLURM kills after 30 s."""


class KeepCheckpoints(Checkpoint):
    """Keeps the best weights by a metric and the whole state of the last two epochs.

    The state is copied aside at an epoch's end, and a thread writes it while the next epoch trains.

    One callback with a state free of paths, where Lightning has two `ModelCheckpoint`s that remember absolute ones: a
    run directory may be moved, and the best-so-far is in the same file as the rest of the state.

    Args:
        folder: Where the checkpoints go.
        monitor: Metric by which the best is chosen; None: there is no best.
        facts: What a resumed run must know, and cannot read from its settings.
        own_callbacks: Whether the user's own callbacks may change the weights between two epochs.
    """

    def __init__(self, folder: Path, monitor: str | None, facts: Mapping[str, Any], *, own_callbacks: bool) -> None:
        self.folder = folder
        self.monitor = monitor
        self.own_callbacks = own_callbacks
        self.facts = dict(facts)
        self.best_score: float | None = None
        self.best_epoch: int | None = None
        self._copy = StateCopy()
        self._background = Background()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Have the checkpoints of the epoch written; raise what the writing of those before has raised."""
        self._background.wait()
        score = float(trainer.callback_metrics.get(str(self.monitor), math.nan))
        is_best = self._is_best(score)
        if is_best:
            self.best_score, self.best_epoch = score, trainer.current_epoch
        path = self.folder / f"epoch-{trainer.current_epoch + 1:04d}.ckpt"
        trainer.save_checkpoint(path, storage_options=partial(self._write_later, is_best=is_best))

    def _write_later(self, checkpoint: dict[str, Any], path: Path, *, is_best: bool) -> None:
        """Copy a checkpoint aside, and have a thread write it; called on the first process alone."""
        state = self._copy.begin(checkpoint, at_once=self.own_callbacks)

        def write() -> None:
            self._copy.complete()
            SafeCheckpointIO().save_checkpoint(state, path)  # first, since lost best weights are restored from it
            if is_best:
                write_best(state, self.folder)
            for old in sorted(self.folder.glob("epoch-*.ckpt"))[:-2]:
                SafeCheckpointIO().remove_checkpoint(old)

        self._background.start(write)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let no task of the user's change the state before it is copied."""
        if type(pl_module).on_train_epoch_start is not Task.on_train_epoch_start:
            self._copy.completed.wait()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Let no step change the state before it is copied."""
        self._copy.completed.wait()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wait until everything is written; all processes will read it."""
        self._background.wait()
        trainer.strategy.barrier()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Wait until everything is written, not for long where a signal ends the run."""
        try:
            self._background.wait(None if isinstance(exception, Exception) else _GRACE_SECONDS)
        except Exception as error:  # the one that ends the run says more
            log.warning("the last checkpoint was not written: %s: %s", type(error).__name__, error)

    def _is_best(self, score: float) -> bool:
        """Return whether a score beats the best so far; one that is not finite, or missing, does not."""
        sign = 1 if mode_of(str(self.monitor)) == "max" else -1
        return math.isfinite(score) and (self.best_score is None or sign * score > sign * self.best_score)

    def state_dict(self) -> dict[str, Any]:
        """Return the best so far, and the facts for those who look into the file."""
        return {"best_score": self.best_score, "best_epoch": self.best_epoch, "facts": self.facts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best so far."""
        self.best_score, self.best_epoch = state_dict["best_score"], state_dict["best_epoch"]
