"""What the metrics of images and of pixels have in common."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from convolt.metrics.mean_loss import MeanLoss


class SplitMetrics(nn.Module, ABC):
    """Collects the predictions and the loss of a split, and computes its metrics when the epoch ends.

    Nothing is synchronized with the device, or between processes, before `compute`.

    Args:
        synchronized: Whether several processes see a part of the images each.
    """

    def __init__(self, *, synchronized: bool = False) -> None:
        super().__init__()
        self.loss = MeanLoss(synchronized=synchronized)

    @abstractmethod
    def add(self, logits: Tensor, targets: Tensor, loss: Tensor) -> None:
        """Add a batch: logits (B, K, ...), targets (B, ...) and their mean loss."""

    @abstractmethod
    def running_stats(self) -> Tensor | None:
        """Return (2,), still on the device: mean loss so far and recent accuracy; None before the first batch."""

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """Return the loss, the metrics and the "confusion_matrix" (K, K) of the epoch, and reset."""
