"""torch.compile for a network's training pass: whether, and how."""

import shutil
from collections.abc import Callable
from typing import Any

from torch import nn

from convolt.errors import UserError

FLOPS_PER_MULTIPLY_ADD = 6
"""Operations of a training step for each multiply-add of the forward pass: 2 forward, 4 backward."""

SMALL_STEP = 1e12
"""Operations of a step below which a GPU waits for its next kernel rather than for the results."""


def should_compile(requested: bool | str, device: str, *, resumed: bool) -> bool:
    """Return whether the training pass is compiled: for auto only where a run resumes that was compiled before.

    Raises:
        UserError: When compilation is requested on a CPU without a C++ compiler.
    """
    if requested == "auto":
        return resumed
    if requested and device == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise UserError("trainer.compile=true needs a C++ compiler on the CPU: install g++ or clang++")
    return bool(requested)


def compile_forward(
    network: nn.Module, step_macs: int, device: str, *, lenient: bool, accumulates: bool = False
) -> Callable[..., Any]:
    """Compile a network's training pass; parameters, buffers and evaluation stay the network's own.

    Args:
        network: The network.
        step_macs: Multiply-adds of a whole minibatch's forward pass.
        device: cpu or cuda; small steps on the latter are replayed as CUDA graphs.
        lenient: Run what cannot be compiled uncompiled, instead of raising.
        accumulates: Gradients of several minibatches are added up: not by CUDA graphs, whose next replay would write
            over them.
    """
    import torch._dynamo

    torch._dynamo.config.suppress_errors = lenient
    small = not accumulates and device == "cuda" and FLOPS_PER_MULTIPLY_ADD * step_macs < SMALL_STEP
    forward = torch.compile(network.forward, mode="reduce-overhead" if small else "default", dynamic=False)
    if not small:
        return forward

    def replayed(images: torch.Tensor) -> Any:
        # A graph writes its outputs to the same memory in every step; metrics keep them until the epoch ends.
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        outputs = forward(images)
        return outputs.clone() if isinstance(outputs, torch.Tensor) else tuple(output.clone() for output in outputs)

    return replayed
