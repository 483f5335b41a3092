"""Batch norm over the batches of several processes (Peng and others 2018, MegDet)."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, *gradients: Any) -> Any:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class SynchronizedBatchNorm(_BatchNorm):
    """Batch norm whose mean and variance in training are those of the images of all processes; (B, C, ...) to the same.

    PyTorch's `SyncBatchNorm` does it on GPUs only; this one on any device, with two sums over the processes a layer.
    """

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 (PyTorch's name)
        if input.dim() < 2:
            raise ValueError(f"expected (B, C, ...), not {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (PyTorch's name)
        """Normalize (B, C, ...)."""
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(input)
        self._check_input_dim(input)
        values = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        dims = [0, *range(2, input.dim())]
        shape = (1, -1, *(1,) * (input.dim() - 2))
        own = values.new_tensor([values.numel() / values.shape[1]])
        *sums, count = _Sum.apply(torch.cat([values.sum(dims), own])).split([values.shape[1], 1])
        mean = sums[0] / count
        centerd = values - mean.view(shape)
        variance = _Sum.apply(centerd.square().sum(dims)) / count
        self._track(mean.detach(), variance.detach() * (count / (count - 1)))
        out = centerd * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        normalized: Tensor = out.to(input.dtype)
        return normalized

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        with torch.no_grad():
            self.num_batches_tracked += 1
            weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
            self.running_var.lerp_(variance.to(self.running_var.dtype), weight)


def synchronize_batchnorm(network: nn.Module, device: str) -> nn.Module:
    """Turn each batch norm of a network into one over all processes; parameters and names stay.

    Args:
        network: Changed in place, unless it is a batch norm itself.
        device: cuda, where PyTorch's own is used, or another.
    """
    if device == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call, no-any-return]
    if isinstance(network, _BatchNorm) and not isinstance(network, SynchronizedBatchNorm):
        twin = SynchronizedBatchNorm(
            network.num_features, network.eps, network.momentum, network.affine, network.track_running_stats
        )
        twin.__dict__.update(network.__dict__)
        return twin
    for name, child in network.named_children():
        setattr(network, name, synchronize_batchnorm(child, device))
    return network
