"""Steps on the batches of a chunk, one after the other, between which Lightning does nothing."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.optimization.automatic import _AutomaticOptimization
from torch.optim import Optimizer

from convolt.config.settings import Settings
from convolt.data.loader import Chunk
from convolt.errors import UserError
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
    return 1 if settings.callbacks or settings.debug.profile or _has_own_hooks(task) else None


def _has_own_hooks(task: type) -> bool:
    """Return whether a task of the user's does something of its own in a step."""
    return any(getattr(task, hook) is not getattr(Task, hook, None) for hook in _HOOKS_OF_A_STEP)


class ChunkedOptimization(_AutomaticOptimization):
    """Lightning's automatic optimization, which also takes the steps of all batches of a chunk.

    All of Lightning's counters count batches and steps, so that what it decides, stores and restores is the same; but
    the hooks `on_train_batch_start` and `on_train_batch_end` see whole chunks, callbacks see no steps, and a stop that
    is requested waits for the chunk's end.

    Args:
        trainer: The run's.
        on_step: Called with the trainer and the batch's number in its epoch after every step on a batch of a chunk.
    """

    def __init__(self, trainer: pl.Trainer, on_step: Callable[[pl.Trainer, int], None]) -> None:
        super().__init__(trainer)
        self.on_step = on_step

    def run(self, optimizer: Optimizer, batch_idx: int, kwargs: OrderedDict[str, Any]) -> Any:
        """Take the steps of a chunk; a batch is left to Lightning."""
        if not isinstance(kwargs["batch"], Chunk):
            return super().run(optimizer, batch_idx, kwargs)
        scales = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        if scales or self.trainer.world_size > 1 or _has_own_hooks(type(self.trainer.lightning_module)):
            self._run_batch_by_batch(optimizer, kwargs)
        else:
            self._run_alone(optimizer, kwargs["batch"], self.trainer.fit_loop.epoch_loop.batch_idx)
        return {}

    def _run_batch_by_batch(self, optimizer: Optimizer, kwargs: OrderedDict[str, Any]) -> None:
        """Let Lightning take the step of each batch: it scales losses, synchronizes processes and calls hooks."""
        chunk, loop = kwargs["batch"], self.trainer.fit_loop.epoch_loop
        progress = loop.batch_progress
        for place, batch in enumerate(chunk, 1):
            progress.is_last_batch = progress.current.ready == self.trainer.num_training_batches
            super().run(optimizer, loop.batch_idx, OrderedDict(kwargs, batch=batch, batch_idx=loop.batch_idx))
            self.on_step(self.trainer, loop.batch_idx)
            if place == len(chunk) or loop.done:
                break  # what follows, Lightning does for the last batch
            loop.update_lr_schedulers("step", update_plateau_schedulers=False)
            loop._batches_that_stepped += not loop._should_accumulate()
            progress.increment_by(1)

    def _run_alone(self, optimizer: Optimizer, chunk: Chunk, first: int) -> None:
        """Do what Lightning does on a single device, without its hooks, and count afterwards what was done.

        They cost more than the step of a small network.
        """
        trainer, loop, progress = self.trainer, self.trainer.fit_loop.epoch_loop, self.optim_progress.optimizer
        task: Any = trainer.lightning_module
        accumulated, clip = trainer.accumulate_grad_batches, trainer.gradient_clip_val
        schedules: list[tuple[Any, int]] = [
            (config.scheduler, config.frequency) for config in trainer.lr_scheduler_configs
            if config.interval == "step" and not config.reduce_on_plateau
        ]  # fmt: skip
        batches, forward_context = trainer.num_training_batches, trainer.precision_plugin.forward_context
        end = min(first + len(chunk), batches)
        steps_left = loop.max_steps - loop.global_step if loop.max_steps >= 0 else -1
        batch, number, computed, steps, rates, zeroed = chunk[0], first, -1, 0, 0, 0

        def compute_gradients() -> Any:
            nonlocal computed, zeroed
            if not torch.is_grad_enabled():  # by an optimizer of the user's
                with torch.enable_grad():
                    return compute_gradients()
            computed = number
            with forward_context():
                loss = task.training_step(batch, number)
            if number % accumulated == 0:
                zeroed += 1
                optimizer.zero_grad()
            if accumulated > 1:
                loss = loss / accumulated
            loss.backward()
            if not accumulates:
                task.configure_gradient_clipping(optimizer, clip)
            return loss

        for number, batch in enumerate(chunk, first):  # noqa: B007 (compute_gradients reads it)
            accumulates = (number + 1) % accumulated > 0 and number + 1 < batches
            if accumulates:
                compute_gradients()
            else:
                optimizer.step(closure=compute_gradients)
                if computed != number:
                    raise UserError(
                        f"optim: {type(optimizer).__name__}.step does not call its closure, which computes the "
                        "gradients: let it begin with loss = closure()"
                    )
                steps += 1
            self.on_step(trainer, number)
            if number + 1 == end or steps == steps_left:
                break  # what follows, Lightning does for the last batch
            if not accumulates:
                for schedule, frequency in schedules:
                    if (number + 1) % frequency == 0:
                        schedule.step()
                        rates += 1
        loop.batch_progress.increment_by(number - first, number + 1 == batches)
        loop._batches_that_stepped += steps - (not accumulates)
        loop.scheduler_progress.increment_by(rates)
        progress.step.increment_by(steps)
        progress.zero_grad.increment_by(zeroed)
