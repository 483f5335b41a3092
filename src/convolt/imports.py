"""Importing PyTorch and Lightning in less time."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Import inside without the garbage collector: it looks through all modules over and over, and finds nothing.

    Afterwards it leaves alone what is there until the process ends, so that forked processes share more. Does nothing
    where torch is imported already, since what is there then may be garbage one day. docs/log.md has what it saves.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
        atexit.register(gc.unfreeze)
    finally:
        gc.enable()
