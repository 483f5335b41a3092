"""Image classification: one label for each image."""

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from convolt.metrics.class_report import CLASSIFICATION_RATES
from convolt.metrics.images import ImageMetrics
from convolt.models.precision import at_least_float32
from convolt.tasks.task import Task


class ClassificationTask(Task):
    """Trains a network with cross-entropy and measures it.

    At the end of an epoch it logs `<split>/loss`, `<split>/accuracy` and the rest of `metrics.images.ImageMetrics`.

    The network maps (B, C, H, W) to logits (B, K); in training to (logits, auxiliary logits, ...) where it has such
    heads. See `Task` for the arguments.
    """

    class_rates: ClassVar[tuple[str, ...]] = CLASSIFICATION_RATES

    def metrics(self, *, training: bool, synchronized: bool) -> ImageMetrics:
        """Make the metrics of a split."""
        return ImageMetrics(self.num_classes, training=training, synchronized=synchronized)

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
        """Return (B,) labels; of (B, K) probabilities the most likely ones."""
        return targets if targets.dim() == 1 else targets.argmax(1)
