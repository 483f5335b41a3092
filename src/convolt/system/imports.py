"""Importing PyTorch and Lightning in less time."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

_SIGNAL = "scipy.signal"


@contextmanager
def fast_imports() -> Iterator[None]:
    """Import faster inside the block; docs/log.md has what each of these saves.

    - The garbage collector is off, which would look through all modules again and again and find nothing. What has been
      imported is then frozen until the process ends, so that forked processes share more memory.
    - torchmetrics, in 1.9 too, imports scipy.signal (0.6 s) only to patch one old name for its audio metrics: a
      stand-in takes the patch, and imports the real module for whoever needs more of it.

    Does nothing where torch is already imported, since objects of then may become garbage.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        with _defer_scipy_signal():
            yield
        gc.freeze()
        atexit.register(gc.unfreeze)
    finally:
        gc.enable()


class _ScipySignal(ModuleType):
    """Stands in for scipy.signal until more of it is needed than torchmetrics patches."""

    hamming = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        if sys.modules.get(_SIGNAL) is self:
            del sys.modules[_SIGNAL]
        return getattr(import_module(_SIGNAL), name)


@contextmanager
def _defer_scipy_signal() -> Iterator[None]:
    stand_in = _ScipySignal(_SIGNAL)
    sys.modules.setdefault(_SIGNAL, stand_in)
    try:
        yield
    finally:
        if sys.modules.get(_SIGNAL) is stand_in:
            del sys.modules[_SIGNAL]
