"""The metrics of labeled images, computed once an epoch from predictions that stay on the device until then."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError
from torchmetrics.utilities import dim_zero_cat

from convolt.metrics.confusion import ConfusionMatrix, allow_nondeterministic
from convolt.metrics.rates import accuracy, macro_average, rates
from convolt.metrics.split import SplitMetrics

_BUFFERED_NUMBERS = 2**24
"""Logits that are buffered before the metrics are updated: 64 MB in float32."""

_RECENT_BATCHES = 20


class CalibrationError(MulticlassCalibrationError):
    """The expected calibration error over 15 bins of equal width (Guo and others 2017), of logits.

    torchmetrics takes logits for probabilities where all of them happen to lie between 0 and 1, and sums up on a GPU
    in any order.
    """

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Note the confidence of each prediction, and whether it is right."""
        super().update(preds.softmax(1), target)

    def compute(self) -> Tensor:
        """Return the error."""
        device = self.device
        self.confidences, self.accuracies = ([dim_zero_cat(x).cpu()] for x in (self.confidences, self.accuracies))
        return super().compute().to(device)


class ImageMetrics(SplitMetrics):
    """Loss, accuracy, and the macro averages of precision, recall and F1, as `metrics.rates` defines them.

    Adding a batch launches next to nothing: the metrics see all predictions of an epoch at once, or as many as fit
    into a buffer.

    Args:
        num_classes: Number of classes K; of more than ten, top-5 accuracy is measured too.
        training: Leave out what needs all predictions (the calibration error).
        synchronized: Whether several processes see a part of the images each.
    """

    def __init__(self, num_classes: int, *, training: bool, synchronized: bool = False) -> None:
        super().__init__(synchronized=synchronized)
        common: Any = {"validate_args": False, "sync_on_compute": synchronized}
        metrics: dict[str, Metric | MetricCollection] = {
            "confusion_matrix": ConfusionMatrix(num_classes, sync_on_compute=synchronized)
        }
        if num_classes > 10:
            metrics["top5_accuracy"] = MulticlassAccuracy(num_classes, average="micro", top_k=5, **common)
        if not training:
            metrics["calibration_error"] = CalibrationError(num_classes, n_bins=15, **common)
        self.metrics = MetricCollection(metrics)
        self._logits: list[Tensor] = []
        self._targets: list[Tensor] = []

    def add(self, logits: Tensor, targets: Tensor, loss: Tensor) -> None:
        """Add a batch: (B, K) logits, (B,) targets and their mean loss."""
        self._logits.append(logits.detach())
        self._targets.append(targets)
        self.loss.add(loss, logits.shape[0])
        if len(self._logits) * logits.numel() > _BUFFERED_NUMBERS:
            self._flush()

    def running_stats(self) -> Tensor | None:
        """Return (2,), still on the device: mean loss so far, and accuracy over the last batches; None at the start."""
        loss = self.loss.running_mean()
        if loss is None or not self._logits:
            return None
        recent = slice(-_RECENT_BATCHES, None)
        hits = torch.cat(self._logits[recent]).argmax(1) == torch.cat(self._targets[recent])
        return torch.stack([loss, hits.float().mean()])

    def compute(self) -> dict[str, Tensor]:
        """Return the loss, the metrics and the confusion matrix of the epoch, and reset."""
        self._flush()
        counted: dict[str, Tensor] = self.metrics.compute()
        matrix = counted["confusion_matrix"].clone()
        self.metrics.reset()
        by_class = rates(matrix)
        values = {"accuracy": accuracy(matrix)}
        values |= {name: macro_average(by_class[name]) for name in ("precision", "recall", "f1")}
        values = {name: value.to(matrix.device) for name, value in values.items()}
        return values | counted | {"confusion_matrix": matrix} | self.loss.compute()

    def _flush(self) -> None:
        if self._logits:
            with allow_nondeterministic():  # the calibration error is summed in `compute`
                self.metrics.update(torch.cat(self._logits).float(), torch.cat(self._targets))
            self._logits.clear()
            self._targets.clear()
