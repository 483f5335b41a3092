"""Which checkpoints a run keeps: the best weights, and the whole state of the last epochs."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from convolt.runs.checkpoints import BEST, write_best
from convolt.tasks.schedulers import mode_of


class KeepCheckpoints(Checkpoint):
    """Keeps the best weights by a metric and the whole state of the last two epochs.

    One callback with a state free of paths, where Lightning has two `ModelCheckpoint`s that remember absolute ones: a
    run directory may be moved, and the best-so-far is in the same file as the rest of the state.

    Args:
        folder: Where the checkpoints go.
        monitor: Metric by which the best is chosen; None: there is no best.
        facts: What a resumed run must know, and cannot read from its settings.
        own_callbacks: Whether the user's own callbacks may save other weights than were validated.
    """

    def __init__(self, folder: Path, monitor: str | None, facts: Mapping[str, Any], *, own_callbacks: bool) -> None:
        self.folder = folder
        self.monitor = monitor
        self.own_callbacks = own_callbacks
        self.facts = dict(facts)
        self.best_score: float | None = None
        self.best_epoch: int | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the checkpoints of the epoch: the whole state first, from which lost best weights can be restored."""
        score = float(trainer.callback_metrics.get(str(self.monitor), math.nan))
        is_best = self._is_best(score)
        if is_best:
            self.best_score, self.best_epoch = score, trainer.current_epoch
        path = self.folder / f"epoch-{trainer.current_epoch + 1:04d}.ckpt"
        trainer.save_checkpoint(path)
        if is_best and self.own_callbacks:  # Lightning would not ask them what a checkpoint of weights holds
            if trainer.is_global_zero:
                write_best(path)
            trainer.strategy.barrier()
        elif is_best:
            trainer.save_checkpoint(self.folder / BEST, weights_only=True)
        if trainer.is_global_zero:
            for old in sorted(self.folder.glob("epoch-*.ckpt"))[:-2]:
                trainer.strategy.remove_checkpoint(old)

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
