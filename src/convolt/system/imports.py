"""Importing PyTorch and Lightning in less time."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_SIGNAL, _PLOT = "scipy.signal", "torchmetrics.utilities.plot"
_CLOUD = ("boto3", "botocore", "botocore.exceptions")


@contextmanager
def fast_imports(*, freeze: bool = True) -> Iterator[None]:
    """Import faster inside the block; docs/log.md has what each of these saves.

    - The garbage collector is off, which would look through all modules again and again and find nothing. What has been
      imported is then frozen until the process ends, so that forked processes share more memory.
    - What others import and a run does not need is deferred: torchmetrics, in 1.9 too, imports scipy.signal only to
      patch one old name for its audio metrics, and matplotlib for plots; TensorBoard imports boto3, where it is
      installed, for folders on S3. Stand-ins import the real modules for whoever needs more of them.

    Does nothing where torch is already imported, since objects of then may become garbage.

    Args:
        freeze: Freeze what has been imported, and all else; not where a user's objects are among it.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        with _defer_imports():
            yield
        if freeze:
            gc.freeze()
            atexit.register(gc.unfreeze)
    finally:
        gc.enable()


class _Deferred(ModuleType):
    """Stands in for a module until more of it is needed than the names that those who import it look at."""

    hamming = None  # which torchmetrics patches in scipy.signal

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        return getattr(self._real(), name)

    def _real(self) -> ModuleType:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return import_module(self.__name__)


class _DeferredPlot(_Deferred):
    """Stands in for torchmetrics' plots: types for annotations, and functions that import the real ones when called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Any if name.isupper() else partial(self._call, name)

    def _call(self, name: str, /, *args: Any, **more: Any) -> Any:
        return getattr(self._real(), name)(*args, **more)


@contextmanager
def _defer_imports() -> Iterator[None]:
    stand_ins = [_Deferred(_SIGNAL), _DeferredPlot(_PLOT), *(map(_Deferred, _CLOUD if find_spec(_CLOUD[0]) else ()))]
    for each in stand_ins:
        sys.modules.setdefault(each.__name__, each)
    try:
        yield
    finally:
        for each in stand_ins:
            if sys.modules.get(each.__name__) is each:
                del sys.modules[each.__name__]
