"""Imported once by the fork server, so that no run has to: whatever a run imports, and nothing that computes."""

import ctypes
import signal
import sys
from contextlib import suppress
from importlib import import_module

from convolt.system.imports import fast_imports

_PR_SET_PDEATHSIG = 1

if sys.platform == "linux":  # the server goes with the launcher at once, and not when all imports are done
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

with fast_imports():
    for _module in (
        "torch",
        "torchvision",
        "torch.utils.tensorboard",
        "pytorch_lightning",
        "convolt.cli.train",
        "convolt.training.run",
    ):
        with suppress(Exception):  # the runs import it again, and say why it does not work
            import_module(_module)
