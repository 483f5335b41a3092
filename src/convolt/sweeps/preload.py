"""Imported once by the fork server, so that no run has to: whatever a run imports, and nothing that computes."""

from contextlib import suppress
from importlib import import_module

for _module in ("torch", "torchvision", "pytorch_lightning", "convolt.command_line", "convolt.run"):
    with suppress(Exception):  # the runs import it again, and say why it does not work
        import_module(_module)
