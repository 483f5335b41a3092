"""What all tasks share: steps, the metrics of an epoch, the optimizer and its schedules, a check for divergence."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from hydra.utils import get_object
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from convolt.data.loader import Batch, Chunk
from convolt.errors import DivergedError
from convolt.metrics.split import SplitMetrics
from convolt.system.seeding import torch_seed
from convolt.tasks.clipping import clip_gradients
from convolt.tasks.schedulers import Schedules
from convolt.tasks.tta import average_mirrored


def for_task(kind: type, table: Mapping[str, str]) -> Any:
    """Import what a table names for a kind of task, or for the nearest of its base classes in the table.

    Args:
        kind: A subclass of `Task`.
        table: Class names of tasks, and the path of what belongs to each; it is imported only here, to start sooner.
    """
    return get_object(next(table[each.__name__] for each in kind.__mro__ if each.__name__ in table))


class Task(pl.LightningModule, ABC):
    """Trains a network and measures it; subclasses define the loss and the metrics.

    At the end of an epoch it logs `<split>/loss` and the metrics of the split.

    Args:
        network: (B, C, H, W) to logits (B, K, ...).
        num_classes: Number of classes K.
        optimizer: From parameters (or parameter groups) to an optimizer.
        schedule: From (optimizer, epochs, steps_per_epoch) to schedules; None keeps the rate.
        label_smoothing: Share of the target that cross-entropy spreads over all classes (Szegedy and others 2016).
        weight_decay_on: all parameters, or weights: neither biases nor the parameters of normalization.
        seed: The run's seed; dropout and the like are seeded by (seed, epoch) in every epoch.
        several_processes: Whether several processes train together.
        test_time_flip: Evaluate by the mean of the logits of an image and of its mirror image.
    """

    headline: ClassVar[str] = "accuracy"
    """The metric that is shown while a run trains, and by which reports compare."""

    class_rates: ClassVar[tuple[str, ...]]
    """The rates of each class in `result.json`; see `metrics.rates`."""

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: Callable[[Iterable[Any]], Optimizer],
        schedule: Callable[[Optimizer, int, int], Schedules] | None = None,
        *,
        label_smoothing: float = 0.0,
        weight_decay_on: str = "all",
        seed: int = 0,
        several_processes: bool = False,
        test_time_flip: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.num_classes = num_classes
        self.optimizer = optimizer
        self.schedule = schedule
        self.label_smoothing = label_smoothing
        self.weight_decay_on = weight_decay_on
        self.seed = seed
        self.several_processes = several_processes
        self.test_time_flip = test_time_flip
        self.train_metrics = self.metrics(training=True, synchronized=several_processes)
        self.evaluation_metrics = self.metrics(training=False, synchronized=False)
        self.measured: dict[str, Tensor] = {}  # of the split that was measured last
        self.compiled_forward: Callable[[Tensor], Any] | None = None  # the network compiled, where it is
        self._epochs_first_step = 0

    @abstractmethod
    def metrics(self, *, training: bool, synchronized: bool) -> SplitMetrics:
        """Make the metrics of a split."""

    @abstractmethod
    def loss(self, outputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of training and the logits (B, K, ...)."""

    @abstractmethod
    def evaluation_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss that validation and test report."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's output; in evaluation that of the mirror images counts too, where it is wanted."""
        if self.test_time_flip and not self.training:
            return average_mirrored(self.network, images)
        return self.network(images)  # type: ignore[no-any-return]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch, which is weighted by this process's share of it, and collect its predictions."""
        images, targets, own_count, weight = batch
        outputs = (self.compiled_forward or self)(images)
        if self.several_processes:
            count = own_count or len(targets)  # images of others keep the graph alive, at a weight of 0
            targets = targets[:count]
            outputs = outputs[:count] if isinstance(outputs, Tensor) else [head[:count] for head in outputs]
        loss, logits = self.loss(outputs, targets)
        if own_count:
            self.train_metrics.add(logits, self.labels(targets), loss)
        return loss * weight if self.several_processes else loss

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Collect the predictions of a batch, and return its logits in float32."""
        logits: Tensor = self(batch.images).float()
        loss = self.evaluation_loss(logits, batch.targets)
        self.evaluation_metrics.add(logits, batch.targets, loss)
        return logits

    test_step = validation_step

    def labels(self, targets: Tensor) -> Tensor:
        """Return the labels by which the metrics measure a training batch."""
        return targets

    def running_stats(self) -> Tensor | None:
        """Return (2,), on the device: this epoch's mean training loss, and accuracy over its last batches."""
        return self.train_metrics.running_stats()

    def on_train_epoch_start(self) -> None:
        """Seed dropout and the like by (seed, epoch), whatever came before; note the step."""
        torch.manual_seed(torch_seed(self.seed, self.current_epoch, self.global_rank))
        self._epochs_first_step = self.global_step

    def on_train_epoch_end(self) -> None:
        """Stop where the loss is not finite, log the training metrics and step the schedules that wait for a plateau.

        Raises:
            DivergedError: Before any checkpoint of the epoch is written.
        """
        self._stop_if_diverged()
        self._log_metrics("train", self.train_metrics)
        for config in self.trainer.lr_scheduler_configs:
            monitored = self.trainer.callback_metrics.get(str(config.monitor))
            if isinstance(config.scheduler, ReduceLROnPlateau) and monitored is not None:
                config.scheduler.step(monitored)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._log_metrics("val", self.evaluation_metrics)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log_metrics("test", self.evaluation_metrics)

    def _log_metrics(self, split: str, metrics: SplitMetrics) -> None:
        self.measured = metrics.compute()
        values = {name: value for name, value in self.measured.items() if name != "confusion_matrix"}
        if self.several_processes:  # so that whatever they decide by a metric, they decide alike
            first = torch.stack([value.double() for value in values.values()])
            torch.distributed.broadcast(first, 0)
            values = {name: value.to(values[name].dtype) for name, value in zip(values, first, strict=True)}
        self.log_dict({f"{split}/{name}": value for name, value in values.items()}, logger=False)

    def _stop_if_diverged(self) -> None:
        first = self.train_metrics.loss.first_nonfinite()
        if self.several_processes and first is not None:
            torch.distributed.all_reduce(first, torch.distributed.ReduceOp.MIN)
        if first is not None and first.isfinite():
            step = self._epochs_first_step + int(first) // self.trainer.accumulate_grad_batches
            raise DivergedError(
                f"the loss is not finite: first at step {step}, in epoch {self.current_epoch + 1}; "
                "lower optim.lr, or set trainer.gradient_clip_val=1, or trainer.precision=32-true"
            )

    def configure_optimizers(self) -> Any:
        """Make the optimizer and its schedules."""
        optimizer = self.optimizer(self._parameter_groups())
        if self.schedule is None:
            return optimizer
        epochs = self.trainer.max_epochs or 1
        steps = max(1, int(self.trainer.estimated_stepping_batches) // epochs)
        return [optimizer], self.schedule(optimizer, epochs, steps)

    def _parameter_groups(self) -> list[Any]:
        """Return all parameters, or two groups of which the second is not decayed."""
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        if self.weight_decay_on == "all":
            return parameters
        return [
            {"params": [p for p in parameters if p.dim() > 1]},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients to a norm where that is wanted, those of fused optimizers too, which Lightning refuses."""
        if gradient_clip_val is not None:
            clip_gradients(optimizer, gradient_clip_val, getattr(self.trainer.precision_plugin, "scaler", None))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch to the device; the loader makes chunks there."""
        return batch if isinstance(batch, Chunk) else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        """Step a schedule, but not one that waits for a plateau: Lightning would do so after the checkpoint."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()
