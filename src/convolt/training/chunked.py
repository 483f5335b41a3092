"""Steps on the batches of a chunk, one after the other, between which Lightning does nothing."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loops.optimization.automatic import _AutomaticOptimization
from torch.optim import Optimizer

from convolt.config.settings import Settings
from convolt.data.loader import Batch, Chunk
from convolt.tasks.task import Task

_HOOKS_OF_A_STEP = (
    "backward", "configure_gradient_clipping", "lr_scheduler_step", "on_after_backward", "on_after_batch_transfer",
    "on_before_backward", "on_before_batch_transfer", "on_before_optimizer_step", "on_before_zero_grad",
    "on_train_batch_end", "on_train_batch_start", "optimizer_step", "optimizer_zero_grad", "training_step",
    "transfer_batch_to_device",
)  # fmt: skip


def batches_of_a_chunk(settings: Settings, task: type[Task]) -> int | None:
    """Return how many batches Lightning gets at a time: 1 for auto where something of the user's looks at every step.

    Returns:
        None: as many as the loader makes at once.
    """
    if settings.trainer.chunk != "auto":
        return settings.trainer.chunk
    own_hooks = any(getattr(task, hook) is not getattr(Task, hook) for hook in _HOOKS_OF_A_STEP)
    return 1 if settings.callbacks or settings.debug.profile or own_hooks else None


class ChunkedOptimization(_AutomaticOptimization):
    """Lightning's automatic optimization, which also takes the steps of all batches of a chunk.

    All of Lightning's counters count batches and steps, so that what it decides, stores and restores is the same; only
    the hooks `on_train_batch_start` and `on_train_batch_end` see whole chunks. What concerns a single device is done
    here without Lightning's hooks, which cost more than the step of a small network.

    Args:
        trainer: The run's.
        on_step: Called after every step on a batch of a chunk.
    """

    def __init__(self, trainer: pl.Trainer, on_step: Callable[[pl.Trainer], None]) -> None:
        super().__init__(trainer)
        self.on_step = on_step

    def run(self, optimizer: Optimizer, batch_idx: int, kwargs: OrderedDict[str, Any]) -> Any:
        """Take the steps of a chunk; a batch is left to Lightning."""
        chunk, loop = kwargs["batch"], self.trainer.fit_loop.epoch_loop
        if not isinstance(chunk, Chunk):
            return super().run(optimizer, batch_idx, kwargs)
        alone = self.trainer.world_size == 1 and getattr(self.trainer.precision_plugin, "scaler", None) is None
        progress, last = loop.batch_progress, len(chunk) - 1
        for place, batch in enumerate(chunk):
            progress.is_last_batch = progress.current.ready == self.trainer.num_training_batches
            if alone:
                self._step_alone(optimizer, loop.batch_idx, batch)
            else:
                super().run(optimizer, loop.batch_idx, OrderedDict(kwargs, batch=batch, batch_idx=loop.batch_idx))
            self.on_step(self.trainer)
            if place == last or progress.is_last_batch or loop.done:
                break  # what follows, Lightning does for the last batch
            progress.increment_processed()
            loop.update_lr_schedulers("step", update_plateau_schedulers=False)
            loop._batches_that_stepped += not loop._should_accumulate()
            progress.increment_completed()
            progress.increment_ready()
            progress.increment_started()
        return {}

    def _step_alone(self, optimizer: Optimizer, batch_idx: int, batch: Batch) -> None:
        """Take the step of one batch, or add up its gradients, as Lightning does on a single device."""
        trainer, progress = self.trainer, self.optim_progress.optimizer
        task: Any = trainer.lightning_module
        accumulated = trainer.accumulate_grad_batches
        accumulates = trainer.fit_loop._should_accumulate()

        def compute_gradients() -> Any:
            with trainer.precision_plugin.forward_context():
                loss = task.training_step(batch, batch_idx)
            if batch_idx % accumulated == 0:
                progress.zero_grad.increment_ready()
                progress.zero_grad.increment_started()
                optimizer.zero_grad()
                progress.zero_grad.increment_completed()
            (loss / accumulated if accumulated > 1 else loss).backward()
            if not accumulates:
                task.configure_gradient_clipping(optimizer, trainer.gradient_clip_val)
            return loss

        if accumulates:
            compute_gradients()
            return
        progress.step.increment_ready()
        optimizer.step(compute_gradients)
        progress.step.increment_completed()
