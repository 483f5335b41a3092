"""The confusion matrix of a split, counted on the device."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


@contextmanager
def allow_nondeterministic() -> Iterator[None]:
    """Let whole numbers, which are exact in any order, be counted by whatever is fastest.

    Where algorithms must be deterministic, torchmetrics would make a table of N x K^2 for N predictions of K classes,
    and PyTorch sort all of them.
    """
    if not torch.are_deterministic_algorithms_enabled():
        yield
        return
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=warn_only)


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
        # The last place counts what is ignored, so that nothing has to be selected.
        self.add_state("counts", torch.zeros(num_classes**2 + 1, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Count logits (B, K, ...) and targets (B, ...)."""
        pairs = targets * self.num_classes + logits.argmax(1)
        if self.ignored is not None:
            pairs = torch.where(targets == self.ignored, self.num_classes**2, pairs)
        with allow_nondeterministic():
            self.counts.scatter_add_(0, pairs.flatten(), torch.ones_like(pairs).flatten())

    def compute(self) -> Tensor:
        """Return (K, K)."""
        return self.counts[:-1].view(self.num_classes, self.num_classes)
