"""Lightning without what it spends on every hook of every step; docs/log.md says how much that was."""

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.profilers import PassThroughProfiler
from torch.optim import Optimizer

from convolt.tasks.clipping import clip_gradients

_NOTHING = nullcontext()
_STEPS = {"training_step", "validation_step", "test_step"}


class NoProfiler(PassThroughProfiler):
    """Measures nothing; Lightning's own makes a generator for every callback of every hook to do so."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """Return a context that does nothing."""
        return _NOTHING


class LeanModule(pl.LightningModule):
    """A LightningModule whose steps cost less.

    It notes the hook that is running in a plain attribute: Lightning writes the hook's name some fifty times a
    step, and `nn.Module` looks through its parameters, buffers and modules each time. Its steps carry their signature,
    which Lightning asks for at every one. Batches that are on the device already are not searched for tensors to move.
    Gradients are clipped by `convolt.tasks.clipping`, also those of fused optimizers, which Lightning refuses.
    """

    def __init_subclass__(cls, **more: Any) -> None:
        """Store the signatures of the steps."""
        super().__init_subclass__(**more)
        for name in _STEPS & vars(cls).keys():
            step = vars(cls)[name]
            step.__signature__ = inspect.signature(step)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute."""
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch to the device, unless it is there."""
        if isinstance(batch, tuple) and all(part.device == device for part in batch if isinstance(part, torch.Tensor)):
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients to a norm, where that is wanted."""
        if gradient_clip_val is not None:
            clip_gradients(optimizer, gradient_clip_val, getattr(self.trainer.precision_plugin, "scaler", None))
