"""The confusion matrix of a split, counted on the device."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from convolt.metrics.counting import in_any_order


class ConfusionMatrix(Metric):
    """Counts labels by true and predicted class, (K, K); rows are true classes.

    Args:
        num_classes: K.
        ignored: A target that counts nowhere.
        more: torchmetrics' own arguments.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_classes: int, ignored: int | None = None, **more: Any) -> None:
        super().__init__(**more)
        self.num_classes = num_classes
        self.ignored = ignored
        # The last place takes what is ignored, so that nothing has to be picked out.
        self.add_state("counts", torch.zeros(num_classes**2 + 1, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Count logits (B, K, ...) and targets (B, ...)."""
        pairs = targets * self.num_classes + logits.argmax(1)
        if self.ignored is not None:
            pairs = torch.where(targets == self.ignored, self.num_classes**2, pairs)
        with in_any_order():
            self.counts.scatter_add_(0, pairs.flatten(), torch.ones_like(pairs).flatten())

    def compute(self) -> Tensor:
        """Return (K, K)."""
        return self.counts[:-1].view(self.num_classes, self.num_classes)
