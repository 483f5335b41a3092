"""Lightning without what it spends on every hook of every step: a fifth of its time beside a small network."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.profilers import PassThroughProfiler

_NOTHING = nullcontext()


class NoProfiler(PassThroughProfiler):
    """Measures nothing; Lightning's own makes a generator for every callback of every hook to do so."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """Return a context that does nothing."""
        return _NOTHING


class LeanModule(pl.LightningModule):
    """A LightningModule that takes note of the hook that is running by a plain attribute.

    Lightning writes the hook's name some fifty times a step, and `nn.Module` looks through its parameters, buffers
    and modules each time.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute."""
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)
