"""Layers and losses whose gradients have no repeatable form on a GPU in PyTorch, computed by others that have one.

`torch.use_deterministic_algorithms` raises for adaptive pooling, and for the three-dimensional average pooling by which
local response normalization is done. What is here computes the same in another order, so it is for
`trainer.deterministic=true` on a GPU alone: elsewhere a run keeps the bits that it has always had.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = int | None | tuple[int | None, ...]


def make_repeatable(network: nn.Module) -> None:
    """Turn a network's layers into repeatable ones, in place; parameters, names and hooks stay."""
    for layer in network.modules():
        if type(layer) in _REPEATABLE:
            layer.__class__ = _REPEATABLE[type(layer)]


def adaptive_pool2d(images: Tensor, size: Size, reduce: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Pool (..., H, W) to a size, first the rows and then the columns of each window.

    Args:
        images: (..., H, W).
        size: Side of the output, or its height and width; None keeps the input's.
        reduce: Turns a window into one value, given the tensor and the dimension.
    """
    sizes = size if isinstance(size, tuple) else (size, size)
    for dim, out_length in zip((-2, -1), sizes, strict=True):
        parts = (images.narrow(dim, *window) for window in _pool_windows(images.shape[dim], out_length))
        images = torch.stack([reduce(part, dim) for part in parts], dim)
    return images


def flatten_pixels(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return (N, K) and (N,) where only such a cross-entropy repeats its bits: on a GPU, and where it must.

    Args:
        logits: (B, K, ...).
        targets: (B, ...).
    """
    if logits.is_cpu or not torch.are_deterministic_algorithms_enabled():
        return logits, targets
    return logits.movedim(1, -1).flatten(0, -2), targets.flatten()


def _pool_windows(length: int, out_length: int | None) -> Iterator[tuple[int, int]]:
    """Yield where each of PyTorch's windows begins, and its length."""
    count = out_length or length
    for place in range(count):
        first = place * length // count
        yield first, -(-(place + 1) * length // count) - first


class _AdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """Means of windows."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (PyTorch's name)
        """(..., H, W) to (..., H', W')."""
        if self.output_size in (1, (1, 1)):  # PyTorch takes the mean then, which repeats its bits
            return super().forward(input)
        wide = input.float() if input.dtype.itemsize < 4 else input  # one rounding and not two
        return adaptive_pool2d(wide, self.output_size, torch.mean).to(input.dtype)


class _AdaptiveMaxPool2d(nn.AdaptiveMaxPool2d):
    """Maxima of windows."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (PyTorch's name)
        """(..., H, W) to (..., H', W')."""
        return adaptive_pool2d(input, self.output_size, lambda part, dim: part.max(dim).values)


class _LocalResponseNorm(nn.LocalResponseNorm):
    """The squares of neighboring channels, added up one by one."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (PyTorch's name)
        """(B, C, ...) to the same."""
        around = (0, 0) * (input.dim() - 2) + (self.size // 2, (self.size - 1) // 2)
        squares = F.pad(input.square(), around)
        channels = input.shape[1]
        total = sum((squares.narrow(1, first, channels) for first in range(1, self.size)), squares[:, :channels])
        return input / (total / self.size).mul(self.alpha).add(self.k).pow(self.beta)


_REPEATABLE: dict[type[nn.Module], type[nn.Module]] = {
    nn.AdaptiveAvgPool2d: _AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d: _AdaptiveMaxPool2d,
    nn.LocalResponseNorm: _LocalResponseNorm,
}
