"""Imported once by the fork server, so that no run has to: whatever a run imports, and the state of that code."""

from contextlib import suppress
from importlib import import_module

from convolt.runs.code_state import code_state
from convolt.system.imports import fast_imports
from convolt.system.signals import die_with_parent

_MODULES = ("torch", "torchvision", "torch.utils.tensorboard", "pytorch_lightning", "convolt.cli.train",
            "convolt.training.run", "matplotlib.figure", "matplotlib.backends.backend_agg")  # fmt: skip

die_with_parent()  # at once, and not when all imports are done

with fast_imports():
    for name in _MODULES:
        with suppress(Exception):  # the runs import it again, and report why it does not work
            import_module(name)

code_state()  # git runs once a sweep, whose runs all have the code of this moment
