"""Image classification: a label an image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from convolt.metrics.classification import per_class
from convolt.metrics.epoch import EpochMetrics, classification_metrics
from convolt.models.precision import at_least_float32
from convolt.tasks.task import Task


class ClassificationTask(Task):
    """Trains a network with cross-entropy and measures it.

    At the end of an epoch it logs `<split>/loss`, `<split>/accuracy` and the rest of `metrics.classification_metrics`.

    The network maps (B, C, H, W) to logits (B, K); in training to (logits, auxiliary logits, ...) where it has such
    heads. See `Task` for the arguments.
    """

    def metrics(self, *, training: bool, synchronized: bool) -> EpochMetrics:
        """Make what measures a split."""
        metrics = classification_metrics(self.num_classes, training=training, synchronized=synchronized)
        return EpochMetrics(metrics, synchronized=synchronized)

    def loss(self, outputs: Tensor | Sequence[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and the main logits (B, K); auxiliary heads count with the network's own weight."""
        if isinstance(outputs, Tensor):
            return self._cross_entropy(outputs, targets), outputs
        logits, *auxiliary = outputs
        main, *others = (self._cross_entropy(each, targets) for each in (logits, *auxiliary))
        return main + self.network.auxiliary_weight * sum(others), logits  # type: ignore[operator]

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss in float32 at least."""
        logits, targets = at_least_float32(logits), at_least_float32(targets)
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)

    def evaluation_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy, without smoothing."""
        return F.cross_entropy(logits, targets)

    def labels(self, targets: Tensor) -> Tensor:
        """Return (B,) labels; of (B, K) probabilities the likeliest."""
        return targets if targets.dim() == 1 else targets.argmax(1)

    @staticmethod
    def per_class(matrix: NDArray[np.int64], classes: list[str]) -> list[dict[str, Any]]:
        """Return accuracy, precision, recall, F1 and support of each class."""
        return per_class(matrix, classes)
