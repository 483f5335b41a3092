"""Callbacks for test_ddp.py: further processes of a run import them as a user's own."""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import Callback

from convolt.training import ddp
from convolt.training.ddp import RANK


class KeepGradients(Callback):
    """Keeps the gradients of every step and the buffers after the first epoch: {"steps": [...], "buffers": {...}}.

    Args:
        file: Where the first process writes them.
    """

    def __init__(self, file: str) -> None:
        self.file = Path(file)
        self.steps: list[dict[str, Any]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.steps.append({name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None})

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero and trainer.current_epoch == 0:
            buffers = {k: v.clone() for k, v in pl_module.network.named_buffers()}
            torch.save({"steps": self.steps, "buffers": buffers}, self.file)


class WaitForEver(Callback):
    """Keeps the first process from ever seeing what has become of the second, as a collective operation may."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero and trainer.current_epoch == 1:
            ddp.GRACE_SECONDS = 1.0
            while True:
                with suppress(BaseException):
                    time.sleep(100)


class FailElsewhere(Callback):
    """Fails in the second process alone."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if os.environ.get(RANK) == "1":
            raise ValueError("what a pity")
