"""Collects the predictions of every image of a split, in the one pass that measures it."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from convolt.models.find_layers import find_last_layers
from convolt.runs.predictions import Predicted, PredictedMasks

P = TypeVar("P")

COLLECTORS = {
    "ClassificationTask": "convolt.training.callbacks.predictions.ClassPredictionCollector",
    "SegmentationTask": "convolt.training.callbacks.predictions.MaskCollector",
}
"""What collects the predictions of a task."""


class PredictionCollector(Callback, Generic[P]):
    """Collects what the task's steps return; nothing is computed twice, and nothing waits for the device.

    Args:
        features: Images whose last hidden layer is collected, by tasks that have one; 0: of none.
        every_n_epochs: Epochs after which validation images are collected too; None: never.
    """

    def __init__(self, features: int = 0, every_n_epochs: int | None = None) -> None:
        self.features = features
        self.every_n_epochs = every_n_epochs
        self.found: dict[str, P] = {}
        self._reset()

    @abstractmethod
    def _collect(self, logits: Tensor, targets: Tensor) -> None:
        """Collect a batch."""

    @abstractmethod
    def _predictions(self, split: str, measured: Mapping[str, Tensor]) -> P:
        """Return the predictions of all batches, with the confusion matrix that the metrics counted."""

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start with the test images."""
        self._start(pl_module, len(trainer.test_dataloaders.indices))  # type: ignore[union-attr]

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Collect a batch."""
        if self._collecting:
            self._collect(outputs, batch.targets)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Join the batches."""
        self._finish("test", pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start with the validation images, at the epochs whose validation is collected."""
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._start(pl_module, len(trainer.val_dataloaders.indices))  # type: ignore[union-attr]

    on_validation_batch_end = on_test_batch_end  # type: ignore[assignment]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Join the batches."""
        self._finish("val", pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Drop what was collected."""
        self._reset()

    def _start(self, module: pl.LightningModule, count: int) -> None:
        self._collecting = True

    def _finish(self, split: str, module: Any) -> None:
        if self._collecting:
            self.found[split] = self._predictions(split, module.measured)
            self._reset()

    def _reset(self) -> None:
        self._collecting = False
        self._outputs: list[Tensor] = []
        self._targets: list[Tensor] = []


class ClassPredictionCollector(PredictionCollector[Predicted]):
    """Collects the probabilities of each image's classes, and the last hidden layer of some of the images."""

    _handles: tuple[RemovableHandle, ...] = ()
    _places: NDArray[np.int64]
    _features: list[Tensor]
    _hidden: Tensor | None
    _images: int

    def _start(self, module: pl.LightningModule, count: int) -> None:
        super()._start(module, count)
        chosen = min(self.features, count)
        self._places = np.arange(chosen) * count // max(1, chosen)
        if chosen:
            layers = find_last_layers(module.network, int(module.num_classes))  # type: ignore[arg-type]
            self._handles = tuple(layer.register_forward_pre_hook(self._before_last_layer) for layer in layers)

    def _before_last_layer(self, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._hidden = inputs[0].detach()  # of several such layers, the one that is called last counts

    def _collect(self, logits: Tensor, targets: Tensor) -> None:
        self._outputs.append(logits)
        self._targets.append(targets)
        first, self._images = self._images, self._images + len(targets)
        low, high = np.searchsorted(self._places, (first, self._images))
        if high > low:
            features = logits if self._hidden is None else self._hidden
            if features.dim() == 4:
                features = features.mean(dim=(2, 3))
            rows = torch.from_numpy(self._places[low:high] - first).to(features.device, non_blocking=True)
            self._features.append(features.flatten(1)[rows])

    def _predictions(self, split: str, measured: Mapping[str, Tensor]) -> Predicted:
        probabilities = torch.cat(self._outputs).softmax(1).cpu().numpy()
        targets = torch.cat(self._targets).cpu().numpy()
        features = torch.cat(self._features).float().cpu().numpy() if self._features else np.zeros((0, 0), np.float32)
        places = self._places[: len(features)]  # fewer where a debug preset tests on a few batches only
        matrix, error = measured["confusion_matrix"].cpu().numpy(), float(measured["calibration_error"])
        return Predicted(split, probabilities, targets, places, features, matrix, error)

    def _reset(self) -> None:
        super()._reset()
        for handle in self._handles:
            handle.remove()
        self._handles = ()
        self._places = np.zeros(0, np.int64)
        self._features, self._hidden, self._images = [], None, 0


class MaskCollector(PredictionCollector[PredictedMasks]):
    """Collects predicted and true masks, one byte for each pixel."""

    def _collect(self, logits: Tensor, targets: Tensor) -> None:
        self._outputs.append(logits.argmax(1).to(torch.uint8))
        self._targets.append(targets.to(torch.uint8))

    def _predictions(self, split: str, measured: Mapping[str, Tensor]) -> PredictedMasks:
        masks, targets = (torch.cat(parts).cpu().numpy() for parts in (self._outputs, self._targets))
        return PredictedMasks(split, masks, targets, measured["confusion_matrix"].cpu().numpy())
