"""When a run writes which checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping
from torch import Tensor

from convolt.runs.checkpoints import BEST, write_best
from convolt.tasks.schedulers import mode_of


class KeepCheckpoints(Checkpoint):
    """Keeps the best weights by a metric and the whole state of the last two epochs.

    One callback with a state free of paths, where Lightning has two `ModelCheckpoint`s that remember absolute ones: a
    run directory may be moved, and the best-so-far is in the same file as the rest of the state.

    Args:
        folder: Where the checkpoints go.
        monitor: Metric by which the best is chosen; None: there is no best.
        facts: What a continuation must know of the run, and cannot read from its settings.
        own_callbacks: Whether the user's own callbacks may save other weights than were validated.
    """

    def __init__(
        self, folder: Path, monitor: str | None, facts: Mapping[str, Any] | None = None, *, own_callbacks: bool = False
    ) -> None:
        self.folder = folder
        self.monitor = monitor
        self.own_callbacks = own_callbacks
        self.facts = dict(facts or {})
        self.best_score: float | None = None
        self.best_epoch: int | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the checkpoints of the epoch: the whole state first, from which lost best weights can be had again."""
        improved = self.monitor is not None and self._improved(trainer.callback_metrics.get(self.monitor))
        if improved:
            self.best_epoch = trainer.current_epoch
        path = self.folder / f"epoch-{trainer.current_epoch + 1:04d}.ckpt"
        trainer.save_checkpoint(path)
        if improved and self.own_callbacks:  # Lightning would not ask them what a checkpoint of weights holds
            if trainer.is_global_zero:
                write_best(path)
            trainer.strategy.barrier()
        elif improved:
            trainer.save_checkpoint(self.folder / BEST, weights_only=True)
        if trainer.is_global_zero:
            for old in sorted(self.folder.glob("epoch-*.ckpt"))[:-2]:
                trainer.strategy.remove_checkpoint(old)

    def _improved(self, score: Tensor | None) -> bool:
        if score is None or not score.isfinite():
            return False
        value = float(score)
        sign = 1 if mode_of(str(self.monitor)) == "max" else -1
        if self.best_score is not None and sign * value <= sign * self.best_score:
            return False
        self.best_score = value
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return the best so far, and the facts for those who look into the file."""
        return {"best_score": self.best_score, "best_epoch": self.best_epoch, "facts": self.facts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best so far."""
        self.best_score, self.best_epoch = state_dict["best_score"], state_dict["best_epoch"]


class StopEarly(EarlyStopping):
    """Lightning's early stopping, which stays stopped in a run that is continued."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at once where the restored state had stopped already."""
        if self.stopped_epoch:
            trainer.should_stop = True
