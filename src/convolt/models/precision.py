"""What the `-true` precisions make of a network; whatever adds up many numbers stays in float32."""

import copy

import torch
from pytorch_lightning.plugins.precision import HalfPrecision, Precision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

DTYPES = {"64-true": torch.float64, "bf16-true": torch.bfloat16, "16-true": torch.float16}
"""Of weights and images; all other precisions keep them in float32."""

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""What operations that gain by it compute in."""

HALVES = (torch.bfloat16, torch.float16)


def convert(module: nn.Module, precision: str) -> nn.Module:
    """Bring a network, or a task with its network, to the type of a `-true` precision, in place.

    Batch norms stay in float32 under halves: the tenth by which a running mean moves would be rounded away. So do the
    task's own buffers.

    Args:
        module: A float32 module.
        precision: Lightning's name of it.
    """
    dtype = DTYPES.get(precision)
    if dtype not in HALVES:
        return module.to(dtype) if dtype else module
    norms = [each for each in module.modules() if isinstance(each, _BatchNorm)]
    states = [copy.deepcopy(norm.state_dict()) for norm in norms]
    buffers = dict(module.named_buffers(recurse=False))
    module.to(dtype)
    for norm, state in zip(norms, states, strict=True):
        norm.float().load_state_dict(state)
    for name, buffer in buffers.items():
        setattr(module, name, buffer)
    return module


def at_least_float32(values: Tensor) -> Tensor:
    """Return halves as float32, and everything else unchanged."""
    return values.float() if values.dtype in HALVES else values


class HalfPrecisionWithFloatNorms(HalfPrecision):
    """Lightning's 16-true and bf16-true, with batch norms in float32."""

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Convert everything else."""
        return convert(module, self.precision)


def make_plugins(precision: str) -> list[Precision]:
    """Return the plugin by which Lightning computes in a precision; none where its own does.

    Args:
        precision: Lightning's name of it; to be left out of the Trainer's arguments where a plugin comes instead.
    """
    return [HalfPrecisionWithFloatNorms(precision)] if DTYPES.get(precision) in HALVES else []  # type: ignore[arg-type]
