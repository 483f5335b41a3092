"""The mean loss over the images of an epoch."""

import torch
from torch import Tensor


class MeanLoss:
    """Adds up losses on the device; nothing waits for it.

    Args:
        synchronised: Whether several processes see a part of the images each.
    """

    def __init__(self, *, synchronised: bool = False) -> None:
        self.synchronised = synchronised
        self._sum: Tensor | None = None
        self._images = 0

    def add(self, loss: Tensor, images: int) -> None:
        """Add a batch's mean loss over so many images."""
        weighted = loss.detach().float() * images
        self._sum = weighted if self._sum is None else self._sum + weighted
        self._images += images

    def so_far(self) -> Tensor | None:
        """Return the mean over this process's images, still on the device; None before the first."""
        return None if self._sum is None else self._sum / self._images

    def take(self) -> dict[str, Tensor]:
        """Return {"loss": the mean over the images of all processes}, or nothing where there were none; start anew."""
        if self._sum is None:
            return {}
        total = torch.stack([self._sum, self._sum.new_tensor(self._images)])
        if self.synchronised:
            torch.distributed.all_reduce(total)
        self._sum, self._images = None, 0
        return {"loss": total[0] / total[1]}
