"""What a network predicts for the images of a split, and the file of it in a run's directory."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convolt.data.sources.base import IGNORED
from convolt.metrics.rates import rates
from convolt.system.files import atomic_write


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a network predicts for the first N images of a split, in order.

    Attributes:
        split: train, val or test.
        probabilities: (N, K), float32.
        targets: (N,), the true classes.
        places: (M,), ascending: images whose last hidden layer was collected, spread evenly over the split.
        features: (M, D), the input of the layer that makes the logits, its mean over space where it is a convolution.
        confusion_matrix: (K, K), counts of the metrics: by the logits, of which the softmax can make two equal.
        calibration_error: Of the metrics.
    """

    split: str
    probabilities: NDArray[np.float32]
    targets: NDArray[np.int64]
    places: NDArray[np.int64]
    features: NDArray[np.float32]
    confusion_matrix: NDArray[np.int64]
    calibration_error: float

    def save(self, path: Path, indices: NDArray[np.int64]) -> None:
        """Write a .npz of "probabilities" (N, K; float32, as computed), "targets" (N) and "indices" (N).

        Args:
            path: The file.
            indices: (N or more,) places of the images in the stored array of their split.
        """
        _save_arrays(path, probabilities=self.probabilities, targets=self.targets, indices=indices[: len(self.targets)])

    def differences(self, path: Path) -> list[str]:
        """Describe how the predictions differ from those in a file that `save` wrote; nothing where they are equal."""
        with np.load(path) as stored:
            before = stored["probabilities"]
        if before.shape != self.probabilities.shape:
            return [f"{len(self.probabilities)} images instead of {len(before)}"]
        if np.array_equal(before, self.probabilities):
            return []
        return [f"probabilities differ by up to {float(np.abs(before - self.probabilities).max()):.2g}"]


@dataclass(frozen=True, eq=False)
class PredictedMasks:
    """What a network predicts for the pixels of the first N images of a split, in order.

    Attributes:
        split: train, val or test.
        masks: (N, H, W), uint8, predicted labels.
        targets: (N, H, W), uint8, the true ones; 255 is ignored.
        confusion_matrix: (K, K), counts of pixels, of the metrics.
        places: Empty: no hidden layer is collected.
        features: Likewise.
    """

    split: str
    masks: NDArray[np.uint8]
    targets: NDArray[np.uint8]
    confusion_matrix: NDArray[np.int64]
    places: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    features: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    @cached_property
    def matrices(self) -> NDArray[np.int64]:
        """(N, K, K) counts of each image's pixels by true and predicted class."""
        count = len(self.confusion_matrix)
        matrices = np.empty((len(self.masks), count, count), np.int64)
        for place, (mask, target) in enumerate(zip(self.masks, self.targets, strict=True)):
            counted = target != IGNORED
            pairs = target[counted].astype(np.int64) * count + mask[counted]
            matrices[place] = np.bincount(pairs, minlength=count**2).reshape(count, count)
        return matrices

    def mean_iou(self) -> NDArray[np.float64]:
        """(N,) the mean IoU of each image, over its own true and predicted classes; not a number without pixels."""
        return rates(torch.from_numpy(self.matrices))["iou"].nanmean(1).numpy()

    def save(self, path: Path, indices: NDArray[np.int64]) -> None:
        """Write a .npz of "masks" (N, H, W; uint8, predicted) and "indices" (N).

        Args:
            path: The file.
            indices: (N or more,) places of the images in the stored array of their split.
        """
        _save_arrays(path, masks=self.masks, indices=indices[: len(self.masks)])

    def differences(self, path: Path) -> list[str]:
        """Describe how the masks differ from those in a file that `save` wrote; nothing where they are equal."""
        with np.load(path) as stored:
            before = stored["masks"]
        if before.shape != self.masks.shape:
            return [f"{len(self.masks)} images instead of {len(before)}"]
        count = int((before != self.masks).sum())
        return [f"{count:,} pixels of the masks differ"] if count else []


def _save_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Write a .npz, atomically."""
    with atomic_write(path) as beside, beside.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
