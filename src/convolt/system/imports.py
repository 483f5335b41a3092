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
    """Import inside without what takes long and serves nothing here; docs/log.md has what each saves.

    - The garbage collector looks through all modules over and over, and finds nothing. Afterwards it leaves alone what
      is there until the process ends, so that forked processes share more.
    - torchmetrics imports scipy.signal to give it an old name that one of its metrics of sound asks for. A
      stand-in takes that name; it imports the real module for whoever asks for more of it, inside or later.

    Does nothing where torch is imported already, since what is there then may be garbage one day.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        with _signal_later():
            yield
        gc.freeze()
        atexit.register(gc.unfreeze)
    finally:
        gc.enable()


class _Later(ModuleType):
    """Stands for scipy.signal until somebody asks for more of it than torchmetrics does."""

    hamming = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        if sys.modules.get(_SIGNAL) is self:
            del sys.modules[_SIGNAL]
        return getattr(import_module(_SIGNAL), name)


@contextmanager
def _signal_later() -> Iterator[None]:
    stand_in = sys.modules.setdefault(_SIGNAL, _Later(_SIGNAL))
    try:
        yield
    finally:
        if isinstance(stand_in, _Later) and sys.modules.get(_SIGNAL) is stand_in:
            del sys.modules[_SIGNAL]
