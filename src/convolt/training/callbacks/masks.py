"""Collects the masks that a network predicts for every image of a split, in the one pass that measures it."""

from typing import Any

import torch
from torch import Tensor, nn

from convolt.runs.predictions import PredictedMasks
from convolt.training.callbacks.predictions import PredictionCollector


class MaskCollector(PredictionCollector[PredictedMasks]):
    """Collects predicted and true masks, a byte a pixel."""

    def _take_output(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._num_classes = output.shape[1]
        # As the metrics see it: argmax over float32.
        self._masks.append(output.detach().float().argmax(1).to(torch.uint8))

    def _add(self, batch: Any) -> None:
        self._targets.append(batch[1].to(torch.uint8))

    def _concatenated(self, split: str) -> PredictedMasks:
        masks, targets = (torch.cat(found).cpu().numpy() for found in (self._masks, self._targets))
        return PredictedMasks(split, self._num_classes, masks, targets)

    def _reset(self) -> None:
        super()._reset()
        self._masks: list[Tensor] = []
        self._num_classes = 0
