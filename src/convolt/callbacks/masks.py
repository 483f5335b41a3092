"""Keeps the masks that a network predicts for every image of a split, in the one pass that measures it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convolt.callbacks.predictions import Keep, save_arrays
from convolt.data.sources.base import IGNORED
from convolt.results.rates import rates


@dataclass(frozen=True, eq=False)
class PredictedMasks:
    """What a network said about the pixels of the first N images of a split, in order.

    Attributes:
        split: train, val or test.
        num_classes: K.
        masks: (N, H, W), uint8, predicted labels.
        targets: (N, H, W), uint8, the true ones; 255 is ignored.
        places: Empty: no hidden layer is kept.
        features: Likewise.
    """

    split: str
    num_classes: int
    masks: NDArray[np.uint8]
    targets: NDArray[np.uint8]
    places: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    features: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    @cached_property
    def matrices(self) -> NDArray[np.int64]:
        """(N, K, K) counts of each image's pixels by true and predicted class."""
        count = self.num_classes
        found = np.empty((len(self.masks), count, count), np.int64)
        for place, (mask, target) in enumerate(zip(self.masks, self.targets, strict=True)):
            seen = target != IGNORED
            pairs = target[seen].astype(np.int64) * count + mask[seen]
            found[place] = np.bincount(pairs, minlength=count**2).reshape(count, count)
        return found

    def mean_iou(self) -> NDArray[np.float64]:
        """(N,) the mean IoU of each image, over its own true and predicted classes; not a number without pixels."""
        return rates(torch.from_numpy(self.matrices))["iou"].nanmean(1).numpy()

    def save(self, path: Path, indices: NDArray[np.int64]) -> None:
        """Write a .npz of "masks" (N, H, W; uint8, predicted) and "indices" (N).

        Args:
            path: The file.
            indices: (N or more,) places of the images in the stored array of their split.
        """
        save_arrays(path, masks=self.masks, indices=indices[: len(self.masks)])

    def differences(self, path: Path) -> list[str]:
        """Tell how the masks differ from those in a file that `save` wrote; nothing where they are equal."""
        with np.load(path) as stored:
            before = stored["masks"]
        if before.shape != self.masks.shape:
            return [f"{len(self.masks)} images instead of {len(before)}"]
        count = int((before != self.masks).sum())
        return [f"{count:,} pixels of the masks differ"] if count else []


class KeepMasks(Keep[PredictedMasks]):
    """Keeps predicted and true masks, a byte a pixel."""

    def __init__(self, features: int = 0, validation_epochs: Callable[[int], bool] = lambda _: False) -> None:
        super().__init__(features, validation_epochs)
        self._masks: list[Tensor] = []
        self._num_classes = 0

    def _after(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._num_classes = output.shape[1]
        # As the metrics see it: argmax over float32.
        self._masks.append(output.detach().float().argmax(1).to(torch.uint8))

    def _keep(self, batch: Any) -> None:
        self._targets.append(batch[1].to(torch.uint8))

    def _together(self, split: str) -> PredictedMasks:
        masks, targets = (torch.cat(found).cpu().numpy() for found in (self._masks, self._targets))
        return PredictedMasks(split, self._num_classes, masks, targets)

    def _forget(self) -> None:
        super()._forget()
        self._masks = []
