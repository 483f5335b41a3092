"""Collects a network's predictions for every image of a split, in the one pass that measures it."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from convolt.models.layers import last_layers
from convolt.runs.predictions import Predicted

P = TypeVar("P")

COLLECTORS = {
    "ClassificationTask": "convolt.training.callbacks.predictions.ClassPredictionCollector",
    "SegmentationTask": "convolt.training.callbacks.masks.MaskCollector",
}
"""What collects the predictions of a task."""


class PredictionCollector(Callback, Generic[P]):
    """Collects predictions while a split is evaluated; nothing is computed twice, and nothing waits for the device.

    Args:
        features: Number of images whose last hidden layer is collected too, where a task has one.
        validation_epochs: From an epoch, from 1, to whether its validation predictions are collected.
    """

    def __init__(self, features: int = 0, validation_epochs: Callable[[int], bool] = lambda _: False) -> None:
        self.features = features
        self.validation_epochs = validation_epochs
        self.found: dict[str, P] = {}
        self._handles: list[RemovableHandle] = []
        self._reset()

    @abstractmethod
    def _take_output(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Take the network's output for a batch."""

    @abstractmethod
    def _concatenated(self, split: str) -> P:
        """Concatenate the batches."""

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start collecting."""
        self._start(pl_module, len(trainer.test_dataloaders.indices))  # type: ignore[union-attr]

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Concatenate the batches."""
        self._finish("test")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start collecting, where this epoch's predictions are wanted."""
        if self.validation_epochs(trainer.current_epoch + 1):
            self._start(pl_module, len(trainer.val_dataloaders.indices))  # type: ignore[union-attr]

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Take a batch."""
        if self._handles:
            self._add(batch)

    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Concatenate the batches."""
        if self._handles:
            self._finish("val")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Stop collecting."""
        self._reset()

    def _start(self, module: pl.LightningModule, count: int) -> None:
        self._handles = [module.register_forward_hook(self._take_output)]

    def _add(self, batch: Any) -> None:
        self._targets.append(batch[1])

    def _finish(self, split: str) -> None:
        self.found[split] = self._concatenated(split)
        self._reset()

    def _reset(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._targets: list[Tensor] = []


class ClassPredictionCollector(PredictionCollector[Predicted]):
    """Collects the probabilities of images with one label each, and the last hidden layer's features of some."""

    _wanted: NDArray[np.int64]
    _seen: int
    _hidden: Tensor | None

    def _start(self, module: pl.LightningModule, count: int) -> None:
        super()._start(module, count)
        count_wanted = min(self.features, count)
        self._wanted = np.arange(count_wanted) * count // max(1, count_wanted)
        if count_wanted:
            layers = last_layers(module.network, int(module.num_classes))  # type: ignore[arg-type]
            self._handles += [layer.register_forward_pre_hook(self._take_hidden) for layer in layers]

    def _take_hidden(self, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._hidden = inputs[0].detach()  # of several such layers, the one that is called last counts

    def _take_output(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        self._logits.append(output.detach())

    def _add(self, batch: Any) -> None:
        super()._add(batch)
        first, self._seen = self._seen, self._seen + len(batch[1])
        low, high = np.searchsorted(self._wanted, (first, self._seen))
        if high > low:
            found = self._hidden if self._hidden is not None else self._logits[-1]
            if found.dim() == 4:
                found = found.mean(dim=(2, 3))
            rows = torch.from_numpy(self._wanted[low:high] - first).to(found.device, non_blocking=True)
            self._features.append(found.flatten(1)[rows])

    def _concatenated(self, split: str) -> Predicted:
        logits = torch.cat(self._logits).float()
        probabilities, guesses = logits.softmax(1).cpu().numpy(), logits.argmax(1).cpu().numpy()
        targets = torch.cat(self._targets).cpu().numpy()
        features = torch.cat(self._features).float().cpu().numpy() if self._features else np.zeros((0, 0), np.float32)
        places = self._wanted[: len(features)]  # fewer where a debug preset tests on a few batches only
        return Predicted(split, probabilities, guesses, targets, places, features)

    def _reset(self) -> None:
        super()._reset()
        self._logits: list[Tensor] = []
        self._features: list[Tensor] = []
        self._wanted = np.zeros(0, np.int64)
        self._seen, self._hidden = 0, None
