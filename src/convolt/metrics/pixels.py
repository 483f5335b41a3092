"""The metrics of labeled pixels, all of them exact from one confusion matrix that stays on the device.

For a class with TP pixels found, FP taken for it and FN missed, IoU is TP / (TP + FP + FN) (Everingham and others
2010, the VOC challenge) and Dice 2 TP / (2 TP + FP + FN), over the pixels of all images together. Mean IoU and mean
Dice are over the classes that occur, in the truth or in the predictions: a class that is absent from both has no IoU
and counts nowhere; one that is absent from the truth and predicted all the same counts as 0.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from convolt.data.sources.base import IGNORED
from convolt.metrics.confusion import ConfusionMatrix
from convolt.metrics.mean_loss import MeanLoss
from convolt.metrics.rates import accuracy, macro_average, rates

METRICS = ("mean_iou", "dice", "accuracy")

_RATES = {"mean_iou": "iou", "dice": "dice"}
"""The rates whose means over classes are metrics."""


class PixelMetrics(nn.Module):
    """Collects a split's confusion matrix and loss, and computes the metrics when the epoch ends.

    The loss is the mean over batches weighted by their images. Nothing is synchronized before `compute`.

    Args:
        num_classes: Number of classes K.
        names: Which of `METRICS` are computed.
        training: Leave out the confusion matrix itself.
        synchronized: Whether several processes see a part of the images each.
    """

    def __init__(self, num_classes: int, names: Sequence[str], *, training: bool, synchronized: bool) -> None:
        super().__init__()
        self.confusion = ConfusionMatrix(num_classes, IGNORED, sync_on_compute=synchronized)
        self.names = tuple(names)
        self.training_split = training
        self._loss = MeanLoss(synchronized=synchronized)

    def add(self, logits: Tensor, targets: Tensor, loss: Tensor) -> None:
        """Add a batch: (B, K, H, W) logits, (B, H, W) targets and their mean loss."""
        self.confusion.update(logits.detach(), targets)
        self._loss.add(loss, len(logits))

    def running_stats(self) -> Tensor | None:
        """Return (2,), still on the device: mean loss and pixel accuracy so far; None at the start."""
        loss = self._loss.so_far()
        if loss is None:
            return None
        counts = self.confusion.counts[:-1]
        hits = counts.view(self.confusion.num_classes, -1).trace()
        return torch.stack([loss, (hits / counts.sum().clamp(min=1)).to(loss.dtype)])

    def first_nonfinite(self) -> Tensor | None:
        """Return the number of the first batch whose loss is not finite, on the device, or infinity; None at first."""
        return self._loss.first_nonfinite()

    def compute(self) -> dict[str, Tensor]:
        """Return loss and metrics of all that was added, and start anew."""
        matrix: Tensor = self.confusion.compute()
        found = rates(matrix)
        every = {name: macro_average(found[_RATES[name]], torch.float64) for name in _RATES}
        every["accuracy"] = accuracy(matrix)
        values = {name: every[name].to(matrix.device) for name in self.names}
        if not self.training_split:
            values["confusion_matrix"] = matrix.clone()
        self.confusion.reset()
        return values | self._loss.take()
