"""Semantic segmentation: one label for each pixel."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from convolt.errors import UserError, did_you_mean
from convolt.metrics.class_report import SEGMENTATION_RATES
from convolt.metrics.pixels import METRICS, PixelMetrics
from convolt.tasks.losses import dice_loss, pixel_cross_entropy
from convolt.tasks.schedulers import Schedules
from convolt.tasks.task import Task

LOSSES = ("cross_entropy", "dice", "both")


class SegmentationTask(Task):
    """Trains a network with cross-entropy, the Dice loss or their sum, and measures it by IoU and Dice.

    Pixels with the label 255 count nowhere. At the end of an epoch it logs `<split>/loss` and its metrics
    (`metrics.pixels` says how classes count that do not occur); the loss is the same in all splits but for label
    smoothing.

    Args:
        network: (B, C, H, W) to logits (B, K, H, W).
        num_classes: Number of classes K, the background included.
        optimizer: See `Task`, as for the others that are not named here.
        schedule: Likewise.
        loss: cross_entropy, dice or both, that is their sum.
        class_weights: One number of 0 or more a class; None: all alike.
        metrics: What is measured, of mean_iou, dice and accuracy (of pixels).
        label_smoothing: Of the cross-entropy, in training.
        weight_decay_on: See `Task`.
        seed: Likewise.
        several_processes: Likewise.
        test_time_flip: Likewise.

    Raises:
        UserError: When the loss or a metric is unknown, or the weights are not one a class.
    """

    headline: ClassVar[str] = "mean_iou"
    class_rates: ClassVar[tuple[str, ...]] = SEGMENTATION_RATES
    class_weights: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: Callable[[Iterable[Any]], Optimizer],
        schedule: Callable[[Optimizer, int, int], Schedules] | None = None,
        *,
        loss: str = "cross_entropy",
        class_weights: Sequence[float] | None = None,
        metrics: Sequence[str] = METRICS,
        label_smoothing: float = 0.0,
        weight_decay_on: str = "all",
        seed: int = 0,
        several_processes: bool = False,
        test_time_flip: bool = False,
    ) -> None:
        if loss not in LOSSES:
            raise UserError(f"task.loss={loss} is not one of {', '.join(LOSSES)}{did_you_mean(loss, LOSSES)}")
        for name in metrics:
            if name not in METRICS:
                raise UserError(f"task.metrics names the unknown {name!r}{did_you_mean(name, METRICS)}")
        if class_weights is not None and (
            len(class_weights) != num_classes or min(class_weights) < 0 or max(class_weights) == 0
        ):
            raise UserError(
                f"task.class_weights={list(class_weights)} will not do: one number of 0 or more for each of the "
                f"{num_classes} classes is wanted, and not all 0"
            )
        self.metric_names = tuple(metrics)
        super().__init__(
            network,
            num_classes,
            optimizer,
            schedule,
            label_smoothing=label_smoothing,
            weight_decay_on=weight_decay_on,
            seed=seed,
            several_processes=several_processes,
            test_time_flip=test_time_flip,
        )
        self.loss_name = loss
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    def metrics(self, *, training: bool, synchronized: bool) -> PixelMetrics:
        """Make the metrics of a split."""
        return PixelMetrics(self.num_classes, self.metric_names, synchronized=synchronized)

    def loss(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and the logits (B, K, H, W), both in float32."""
        logits = outputs.float()
        return self._compute_loss(logits, targets, self.label_smoothing), logits

    def evaluation_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of training, without smoothing."""
        return self._compute_loss(logits, targets, 0.0)

    def _compute_loss(self, logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        parts = []
        weights = None if self.class_weights is None else self.class_weights.to(logits.dtype)
        if self.loss_name != "dice":
            parts.append(pixel_cross_entropy(logits, targets, weights, smoothing))
        if self.loss_name != "cross_entropy":
            parts.append(dice_loss(logits, targets, weights))
        return torch.stack(parts).sum()
