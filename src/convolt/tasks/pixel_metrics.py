"""The metrics of labelled pixels, all of them exact from one confusion matrix that stays on the device.

For a class with TP pixels found, FP taken for it and FN missed, IoU is TP / (TP + FP + FN) (Everingham and others
2010, the VOC challenge) and Dice 2 TP / (2 TP + FP + FN), over the pixels of all images together. Mean IoU and mean
Dice are over the classes that occur, in the truth or in the predictions: a class that is absent from both has no IoU
and counts nowhere; one that is absent from the truth and predicted all the same counts as 0.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from convolt.data.sources.base import IGNORED
from convolt.tasks.counting import in_any_order
from convolt.tasks.mean_loss import MeanLoss

METRICS = ("mean_iou", "dice", "accuracy")


class PixelConfusion(Metric):
    """The confusion matrix of pixels, (K, K) counts; rows are true classes.

    Args:
        num_classes: K.
        more: torchmetrics' own arguments.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_classes: int, **more: Any) -> None:
        super().__init__(**more)
        self.num_classes = num_classes
        # The last place takes the pixels that are ignored, so that nothing has to be picked out.
        self.add_state("counts", torch.zeros(num_classes**2 + 1, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Count the pixels of predicted labels (B, H, W) and true ones, of which 255 is ignored."""
        pairs = torch.where(targets == IGNORED, self.num_classes**2, targets * self.num_classes + predictions)
        with in_any_order():
            self.counts.scatter_add_(0, pairs.flatten(), torch.ones_like(pairs).flatten())

    def compute(self) -> Tensor:
        """Return (K, K)."""
        return self.counts[:-1].view(self.num_classes, self.num_classes)


def rates(matrix: Tensor) -> dict[str, Tensor]:
    """Compute the metrics of a confusion matrix.

    Args:
        matrix: (K, K) counts.

    Returns:
        "iou" and "class_dice" (K), not a number for classes that do not occur; "mean_iou", "dice" and "accuracy" (of
        pixels), 0 where there is no pixel at all.
    """
    counts = matrix.cpu().double()  # not every device has doubles
    hits, true, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    iou, dice = hits / (true + predicted - hits), 2 * hits / (true + predicted)
    return {
        "iou": iou,
        "class_dice": dice,
        "mean_iou": iou.nanmean().nan_to_num(),
        "dice": dice.nanmean().nan_to_num(),
        "accuracy": (hits.sum() / counts.sum()).nan_to_num(),
    }


class PixelMetrics(nn.Module):
    """Collects a split's confusion matrix and loss, and computes the metrics when the epoch ends.

    The loss is the mean over batches weighted by their images. Nothing is synchronised before `compute`.

    Args:
        num_classes: Number of classes K.
        names: Which of `METRICS` are computed.
        training: Leave out the confusion matrix itself.
        synchronised: Whether several processes see a part of the images each.
    """

    def __init__(self, num_classes: int, names: Sequence[str], *, training: bool, synchronised: bool) -> None:
        super().__init__()
        self.confusion = PixelConfusion(num_classes, sync_on_compute=synchronised)
        self.names = tuple(names)
        self.training_split = training
        self._loss = MeanLoss(synchronised=synchronised)

    def add(self, logits: Tensor, targets: Tensor, loss: Tensor) -> None:
        """Add a batch: (B, K, H, W) logits, (B, H, W) targets and their mean loss."""
        self.confusion.update(logits.detach().argmax(1), targets)
        self._loss.add(loss, len(logits))

    def glance(self) -> Tensor | None:
        """Return (2,), still on the device: mean loss and pixel accuracy so far; None at the start."""
        loss = self._loss.so_far()
        if loss is None:
            return None
        counts = self.confusion.counts[:-1]
        hits = counts.view(self.confusion.num_classes, -1).trace()
        return torch.stack([loss, (hits / counts.sum().clamp(min=1)).to(loss.dtype)])

    def first_bad(self) -> Tensor | None:
        """Return the number of the first batch whose loss is not finite, on the device, or infinity; None at first."""
        return self._loss.first_bad()

    def compute(self) -> dict[str, Tensor]:
        """Return loss and metrics of all that was added, and start anew."""
        matrix: Tensor = self.confusion.compute()
        found = rates(matrix)
        values = {name: found[name].float() for name in self.names}
        if not self.training_split:
            values["confusion_matrix"] = matrix.clone()
        self.confusion.reset()
        return values | self._loss.take()
