"""Importing PyTorch and Lightning in less time."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

_SIGNAL = "scipy.signal"


@contextmanager
def quick() -> Iterator[None]:
    """Import inside without what takes long and serves nothing here; docs/log.md has what each saves.

    - The garbage collector looks through all modules over and over, and finds nothing. Afterwards it leaves alone what
      is there until the process ends, so that forked processes share more.
    - torchmetrics imports scipy.signal to give it an old name that one of its metrics of sound asks for. An empty
      module stands there meanwhile; who imports scipy.signal later gets the real one.

    Does nothing where torch is imported already, since what is there then may be garbage one day.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        with _without_scipys_signals():
            yield
        gc.freeze()
        atexit.register(gc.unfreeze)
    finally:
        gc.enable()


@contextmanager
def _without_scipys_signals() -> Iterator[None]:
    if _SIGNAL in sys.modules:
        yield
        return
    stand_in = ModuleType(_SIGNAL)
    stand_in.hamming = None  # type: ignore[attr-defined]
    sys.modules[_SIGNAL] = stand_in
    try:
        yield
    finally:
        del sys.modules[_SIGNAL]
