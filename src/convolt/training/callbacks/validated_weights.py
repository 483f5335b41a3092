"""The weights that were validated, where a callback validates or saves others than those that are trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from convolt.errors import RunError
from convolt.runs.checkpoints import TRAINED, VALIDATED

Weights = dict[str, Tensor]


class ValidatedWeights(Checkpoint):
    """Ensures that an epoch's checkpoint holds the weights that were validated, and that no others are tested.

    A callback may put averages in for the validation, prune afterwards, or write something else into a checkpoint. So
    the weights are copied during each validation, by the names that they had before training, since a run's
    network is built again wherever it is used. A run whose user adds no callbacks does without.

    It is a `Checkpoint`, and the last one, because Lightning calls those after all other callbacks.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._validated: Weights | None = None
        self._tested: Weights | None = None
        self._handle: RemovableHandle | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Note the names of the weights."""
        if stage == "fit":
            self._names = list(pl_module.state_dict())

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Have the weights copied when the first batch has gone through them."""
        self._handle = pl_module.register_forward_hook(self._copy)

    def _copy(self, module: nn.Module, _inputs: Any, _output: Any) -> None:
        """Copy the weights; a pruned one is an attribute like any other."""
        if self._handle:
            self._handle.remove()
        state = module.state_dict()
        found = {name: state[name] if name in state else attrgetter(name)(module) for name in self._names}
        self._validated = {name: value.detach().clone() for name, value in found.items()}

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the validated and the trained weights, where they are not what the checkpoint holds already."""
        trained = pl_module.state_dict()
        for key, weights in ((VALIDATED, self._validated), (TRAINED, trained)):
            if weights is not None and not _equal(weights, checkpoint["state_dict"]):
                checkpoint[key] = weights

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Resume with the trained weights.

        Raises:
            RunError: When a callback had changed the layers themselves, whose state Lightning does not restore.
        """
        if TRAINED in checkpoint:
            changed = sorted(checkpoint[TRAINED].keys() ^ pl_module.state_dict().keys())
            if changed:
                raise RunError(
                    f"a callback changed the network's layers while it was trained ({changed[0]}), and a run that was "
                    "cut off cannot resume from there: run it again with force=true"
                )
            pl_module.load_state_dict(checkpoint[TRAINED])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop the copy: the epoch's checkpoint is written."""
        self._validated = None

    def remember_tested(self, module: pl.LightningModule) -> None:
        """Remember the weights that are to be tested."""
        self._tested = {name: value.clone() for name, value in module.state_dict().items()}

    def on_test_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Restore the tested weights, whatever other callbacks test."""
        if batch_idx == 0 and self._tested is not None:
            pl_module.load_state_dict(self._tested)

    @contextmanager
    def swapped_in(self, module: pl.LightningModule) -> Iterator[None]:
        """Give the module the validated weights of this epoch while the block runs."""
        trained = {name: value.clone() for name, value in module.state_dict().items()}
        module.load_state_dict(self._validated or {}, strict=False)
        try:
            yield
        finally:
            module.load_state_dict(trained)


def _equal(first: Weights, second: Weights) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name].to(value.device)) for name, value in first.items()
    )
