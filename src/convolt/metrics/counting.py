"""Counts of whole numbers, which are exact in any order."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def in_any_order() -> Iterator[None]:
    """Let whole numbers be counted by whatever is fastest, also where algorithms must be deterministic.

    torchmetrics would else make a table of N x K^2 for N predictions of K classes, and PyTorch sort all of them.
    """
    if not torch.are_deterministic_algorithms_enabled():
        yield
        return
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=warn_only)
