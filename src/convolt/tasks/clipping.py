"""Gradients clipped to a largest norm."""

import torch
from torch.amp import GradScaler
from torch.nn.utils import clip_grad_norm_, clip_grads_with_norm_
from torch.optim import Optimizer

from convolt.models.precision import HALVES


def clip_gradients(optimizer: Optimizer, largest: float, scaler: GradScaler | None = None) -> None:
    """Clip the gradients of all parameters of an optimizer, in place.

    The norm of halves is computed in float32: in float16 it would be infinite from 65,504 on, and the gradients zero.

    Args:
        optimizer: After the backward pass.
        largest: What the norm over all gradients may be.
        scaler: By what the loss was scaled. Where the optimizer would undo that in its step, as fused ones do, it is
            undone here, and the scaler makes the optimizer skip it.
    """
    if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
        scaler.unscale_(optimizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if all(p.dtype not in HALVES for p in parameters):
        clip_grad_norm_(parameters, largest)
        return
    norms = [torch.linalg.vector_norm(p.grad, dtype=torch.float32) for p in parameters]
    clip_grads_with_norm_(parameters, largest, torch.linalg.vector_norm(torch.stack(norms)))
