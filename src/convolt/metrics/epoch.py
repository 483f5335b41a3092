"""The metrics of a split, computed once an epoch from predictions that stay on the device until then."""

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError
from torchmetrics.utilities import dim_zero_cat

from convolt.metrics.confusion import ConfusionMatrix
from convolt.metrics.counting import in_any_order
from convolt.metrics.mean_loss import MeanLoss
from convolt.metrics.rates import accuracy, macro_average, rates

_BUFFERED_NUMBERS = 2**24
"""Logits that are kept before the metrics are brought up to date: 64 MB in float32."""

_GLANCE_BATCHES = 20


class CalibrationError(MulticlassCalibrationError):
    """The expected calibration error over 15 bins of equal width (Guo and others 2017), of logits.

    torchmetrics takes logits for probabilities where all of them happen to lie between 0 and 1, and sums up on a GPU
    in any order.
    """

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Note how confident the network is of each image, and whether it is right."""
        super().update(preds.softmax(1), target)

    def compute(self) -> Tensor:
        """Return the error."""
        device = self.device
        self.confidences, self.accuracies = ([dim_zero_cat(x).cpu()] for x in (self.confidences, self.accuracies))
        return super().compute().to(device)


def classification_metrics(num_classes: int, *, training: bool, synchronized: bool) -> MetricCollection:
    """Make what counts a split's predictions, of which `EpochMetrics` makes the metrics.

    Args:
        num_classes: Number of classes.
        training: Leave out what needs all predictions (the calibration error).
        synchronized: Whether several processes see a part of the images each.
    """
    common: Any = {"validate_args": False, "sync_on_compute": synchronized}
    metrics: dict[str, Metric | MetricCollection] = {
        "confusion_matrix": ConfusionMatrix(num_classes, sync_on_compute=synchronized)
    }
    if num_classes > 10:
        metrics["top5_accuracy"] = MulticlassAccuracy(num_classes, average="micro", top_k=5, **common)
    if not training:
        metrics["calibration_error"] = CalibrationError(num_classes, n_bins=15, **common)
    return MetricCollection(metrics)


class EpochMetrics(nn.Module):
    """Collects a split's predictions and loss, and computes the metrics when the epoch ends.

    Accuracy is over images; precision, recall and F1 are means over the classes that have one (macro), as
    `results.rates` says.

    Adding a batch launches next to nothing: the metrics see all predictions of an epoch together, or as many as fit
    into a buffer. Nothing is synchronized before `compute`.

    Args:
        metrics: Metrics of (N, K) logits and (N,) targets.
        synchronized: Whether several processes see a part of the images each.
    """

    def __init__(self, metrics: MetricCollection, *, synchronized: bool = False) -> None:
        super().__init__()
        self.metrics = metrics
        self._logits: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._loss = MeanLoss(synchronized=synchronized)

    def add(self, logits: Tensor, targets: Tensor, loss: Tensor) -> None:
        """Add a batch: (B, K) logits, (B,) targets and their mean loss."""
        self._logits.append(logits.detach())
        self._targets.append(targets)
        self._loss.add(loss, len(logits))
        if len(self._logits) * logits.numel() > _BUFFERED_NUMBERS:
            self._flush()

    def running_stats(self) -> Tensor | None:
        """Return (2,), still on the device: mean loss so far, and accuracy over the last batches; None at the start."""
        loss = self._loss.so_far()
        if loss is None or not self._logits:
            return None
        recent = slice(-_GLANCE_BATCHES, None)
        hits = torch.cat(self._logits[recent]).argmax(1) == torch.cat(self._targets[recent])
        return torch.stack([loss, hits.float().mean()])

    def first_nonfinite(self) -> Tensor | None:
        """Return the number of the first batch whose loss is not finite, on the device, or infinity; None at first."""
        return self._loss.first_nonfinite()

    def compute(self) -> dict[str, Tensor]:
        """Return loss and metrics of all that was added, and start anew."""
        self._flush()
        counted: dict[str, Tensor] = self.metrics.compute()
        matrix = counted["confusion_matrix"].clone()
        self.metrics.reset()
        values, found = {"accuracy": accuracy(matrix)}, rates(matrix)
        values |= {name: macro_average(found[name]) for name in ("precision", "recall", "f1")}
        values = {name: value.to(matrix.device) for name, value in values.items()}
        return values | counted | {"confusion_matrix": matrix} | self._loss.take()

    def _flush(self) -> None:
        if self._logits:
            with in_any_order():  # the sums of the calibration error are taken in `compute`
                self.metrics.update(torch.cat(self._logits).float(), torch.cat(self._targets))
            self._logits.clear()
            self._targets.clear()
