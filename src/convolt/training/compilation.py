"""torch.compile for a network's training pass: when it pays, and how."""

import shutil
from collections.abc import Callable
from typing import Any

from torch import nn

from convolt.errors import UserError

FLOPS_PER_MULTIPLY_ADD = 6
"""Operations of a training step for each multiply-add of the forward pass: 2 forward, 4 backward."""

SECONDS_THAT_EARN_IT = 1200
"""Compiling costs a minute and saves about a tenth of the time on a CPU: it pays from ten minutes, here surely."""

OPERATIONS_PER_SECOND = {"cpu": 2e11, "cuda": 5e13}
"""What a thread or a GPU gets done, to guess how long a run will be; the GPU's figure is not measured."""

SMALL_STEP = 1e12
"""Operations of a step below which a GPU waits for its next kernel rather than for the results."""


def estimate_seconds(macs: int, images: int, epochs: int, device: str, threads: int) -> float:
    """Guess how long a run trains.

    Args:
        macs: Multiply-adds of an image's forward pass.
        images: Training images of an epoch.
        epochs: Epochs.
        device: cpu or cuda.
        threads: CPU threads.
    """
    rate = OPERATIONS_PER_SECOND.get(device, 0) * (threads if device == "cpu" else 1)
    return FLOPS_PER_MULTIPLY_ADD * macs * images * epochs / rate if rate else 0.0


def should_compile(requested: bool | str, seconds: float, device: str) -> bool:
    """Return whether the network is compiled: for auto where the run is long enough and there is a C++ compiler.

    Raises:
        UserError: When it is asked for, and cannot be done.
    """
    if requested == "auto":
        return seconds > SECONDS_THAT_EARN_IT and device in OPERATIONS_PER_SECOND and _compiler() is not None
    if requested and device == "cpu" and _compiler() is None:
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
        lenient: What cannot be compiled runs as it is.
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


def _compiler() -> str | None:
    return next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
