"""What PyTorch cannot repeat on a GPU, and what records whether it was asked to; for tests on a CPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from convolt.models.repeatable import make_repeatable
from convolt.tasks.losses import pixel_cross_entropy

UNREPEATABLE = (
    "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward", "adaptive_max_pool2d_backward",
    "avg_pool3d_backward", "max_pool3d_with_indices_backward", "fractional_max_pool2d_backward", "max_unpool2d",
    "upsample_linear1d_backward", "upsample_bilinear2d_backward", "_upsample_bilinear2d_aa_backward",
    "upsample_bicubic2d_backward", "upsample_trilinear3d_backward", "reflection_pad1d_backward",
    "reflection_pad2d_backward", "replication_pad2d_backward", "nll_loss2d_forward", "_ctc_loss_backward", "histc",
    "grid_sampler_2d_backward", "put_", "put", "kthvalue", "median", "nanmedian", "_embedding_bag_backward",
)  # fmt: skip
"""ATen's operations for which `torch.use_deterministic_algorithms(True)` raises on a GPU (its page lists them)."""


class Recorded(TorchDispatchMode):
    """Notes the names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def training_operations(network: nn.Module, size: int) -> set[str]:
    """Return what a step of a network on the meta device, made repeatable, asks PyTorch to do."""
    make_repeatable(network.train())
    with Recorded() as recorded:
        outputs = network(torch.empty(2, 3, size, size, device="meta"))
        losses = []
        for head in [outputs] if isinstance(outputs, Tensor) else outputs:
            targets = torch.zeros(2, *head.shape[2:], dtype=torch.int64, device="meta")
            losses.append(pixel_cross_entropy(head, targets) if head.dim() > 2 else F.cross_entropy(head, targets))
        torch.stack(losses).sum().backward()
    return recorded.names
