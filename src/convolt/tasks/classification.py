"""Image classification: a label an image."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from convolt.results.record import per_class
from convolt.tasks.metrics import EpochMetrics, classification_metrics
from convolt.tasks.schedulers import Schedules
from convolt.tasks.task import DivergedError, Task

if TYPE_CHECKING:
    from convolt.answers import ClassAnswers
    from convolt.callbacks.predictions import KeepPredictions
    from convolt.pictures.image_album import ImageAlbum

__all__ = ["ClassificationTask", "DivergedError"]


class ClassificationTask(Task):
    """Trains a network with cross-entropy and measures it.

    At the end of an epoch it logs `<split>/loss`, `<split>/accuracy` and the rest of `metrics.classification_metrics`.

    Args:
        network: (B, C, H, W) to logits (B, K); in training (logits, auxiliary logits, ...) where it has such heads.
        num_classes: Number of classes K.
        optimizer: From parameters (or parameter groups) to an optimizer.
        schedule: From (optimizer, epochs, steps_per_epoch) to schedules; None keeps the rate.
        label_smoothing: Share of the target that is spread over all classes (Szegedy and others 2016), in [0, 1].
        more: See `Task`.
    """

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: Callable[[Iterable[Any]], Optimizer],
        schedule: Callable[[Optimizer, int, int], Schedules] | None = None,
        *,
        label_smoothing: float = 0.0,
        weight_decay_on: str = "all",
        seed: int = 0,
        several_processes: bool = False,
    ) -> None:
        super().__init__(
            network,
            num_classes,
            optimizer,
            schedule,
            weight_decay_on=weight_decay_on,
            seed=seed,
            several_processes=several_processes,
        )
        self.label_smoothing = label_smoothing

    def metrics(self, *, training: bool, synchronised: bool) -> EpochMetrics:
        """Make what measures a split."""
        return EpochMetrics(classification_metrics(self.num_classes, training=training, synchronised=synchronised))

    def loss(self, outputs: Tensor | Sequence[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and the main logits (B, K); auxiliary heads count with the network's own weight."""
        if isinstance(outputs, Tensor):
            return F.cross_entropy(outputs, targets, label_smoothing=self.label_smoothing), outputs
        logits, *auxiliary = outputs
        main, *others = (
            F.cross_entropy(o, targets, label_smoothing=self.label_smoothing) for o in (logits, *auxiliary)
        )
        return main + self.network.auxiliary_weight * sum(others), logits  # type: ignore[operator]

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

    @staticmethod
    def keeper() -> "type[KeepPredictions]":
        """Return the callback that keeps probabilities."""
        from convolt.callbacks.predictions import KeepPredictions

        return KeepPredictions

    @staticmethod
    def album() -> "type[ImageAlbum]":
        """Return the pictures of such a run."""
        from convolt.pictures.image_album import ImageAlbum

        return ImageAlbum

    @staticmethod
    def answers() -> "type[ClassAnswers]":
        """Return what `predict.py` tells: the likeliest classes."""
        from convolt.answers import ClassAnswers

        return ClassAnswers
