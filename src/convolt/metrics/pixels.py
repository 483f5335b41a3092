"""The metrics of labeled pixels, all of them exact from one confusion matrix that stays on the device.

For a class with TP pixels found, FP taken for it and FN missed, IoU is TP / (TP + FP + FN) (Everingham and others
2010, the VOC challenge) and Dice 2 TP / (2 TP + FP + FN), over the pixels of all images together. Mean IoU and mean
Dice are over the classes that occur, in the truth or in the predictions: a class that is absent from both has no IoU
and counts nowhere; one that is absent from the truth and predicted all the same counts as 0.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from convolt.data.sources.base import IGNORED
from convolt.metrics.confusion import ConfusionMatrix
from convolt.metrics.rates import accuracy, macro_average, rates
from convolt.metrics.split import SplitMetrics

METRICS = ("mean_iou", "dice", "accuracy")

_RATES = {"mean_iou": "iou", "dice": "dice"}
"""The rates whose means over classes are metrics."""


class PixelMetrics(SplitMetrics):
    """Loss, weighted by the images of its batches, and the metrics of pixels.

    Args:
        num_classes: Number of classes K.
        names: Which of `METRICS` are computed.
        synchronized: Whether several processes see a part of the images each.
    """

    def __init__(self, num_classes: int, names: Sequence[str] = METRICS, *, synchronized: bool = False) -> None:
        super().__init__(synchronized=synchronized)
        self.confusion = ConfusionMatrix(num_classes, IGNORED, sync_on_compute=synchronized)
        self.names = tuple(names)

    def add(self, logits: Tensor, targets: Tensor, loss: Tensor) -> None:
        """Add a batch: (B, K, H, W) logits, (B, H, W) targets and their mean loss."""
        self.confusion.update(logits.detach(), targets)
        self.loss.add(loss, len(logits))

    def running_stats(self) -> Tensor | None:
        """Return (2,), still on the device: mean loss and pixel accuracy so far; None at the start."""
        loss = self.loss.running_mean()
        if loss is None:
            return None
        counts = self.confusion.counts[:-1]
        hits = counts.view(self.confusion.num_classes, -1).trace()
        return torch.stack([loss, (hits / counts.sum().clamp(min=1)).to(loss.dtype)])

    def compute(self) -> dict[str, Tensor]:
        """Return the loss, the metrics and the confusion matrix of the epoch, and reset."""
        matrix: Tensor = self.confusion.compute().clone()
        self.confusion.reset()
        by_class = rates(matrix)
        values = {name: macro_average(by_class[rate], torch.float64) for name, rate in _RATES.items()}
        values["accuracy"] = accuracy(matrix)
        named = {name: values[name].to(matrix.device) for name in self.names}
        return named | {"confusion_matrix": matrix} | self.loss.compute()
