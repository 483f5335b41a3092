"""The mean loss over the images of an epoch, and where it stopped being a number."""

import torch
from torch import Tensor

_TOGETHER = 64


class MeanLoss:
    """Collects the losses of an epoch's batches on the device; nothing waits for it.

    Adding one launches nothing; some dozens are summed up at a time.

    Args:
        synchronized: Whether several processes see a part of the images each.
    """

    def __init__(self, *, synchronized: bool = False) -> None:
        self.synchronized = synchronized
        self._recent: list[Tensor] = []
        self._recent_images: list[int] = []
        self._start_anew()

    def _start_anew(self) -> None:
        self._sum: Tensor | None = None
        self._first_bad: Tensor | None = None
        self._images = self._batches = 0

    def add(self, loss: Tensor, images: int) -> None:
        """Add a batch's mean loss over so many images."""
        self._recent.append(loss.detach())
        self._recent_images.append(images)
        if len(self._recent) >= _TOGETHER:
            self._sum_up()

    def so_far(self) -> Tensor | None:
        """Return the mean over this process's images, still on the device; None before the first."""
        self._sum_up()
        return None if self._sum is None else self._sum / self._images

    def first_nonfinite(self) -> Tensor | None:
        """Return the number of the first batch whose loss is not finite, still on the device.

        Returns:
            Infinity where all are finite; None before the first.
        """
        self._sum_up()
        return self._first_bad

    def take(self) -> dict[str, Tensor]:
        """Return {"loss": the mean over the images of all processes}, or nothing where there were none; start anew."""
        self._sum_up()
        if self._sum is None:
            return {}
        total = torch.stack([self._sum, self._sum.new_tensor(self._images)])
        if self.synchronized:
            torch.distributed.all_reduce(total)
        self._start_anew()
        return {"loss": total[0] / total[1]}

    def _sum_up(self) -> None:
        if not self._recent:
            return
        losses = torch.stack(self._recent).float()
        weights = torch.tensor(self._recent_images, dtype=torch.float32).to(losses.device, non_blocking=True)
        numbers = torch.arange(self._batches, self._batches + len(losses), dtype=torch.float32, device=losses.device)
        first_nonfinite = numbers.masked_fill_(losses.isfinite(), torch.inf).min()
        weighted = torch.dot(losses, weights)
        if self._sum is None or self._first_bad is None:
            self._sum, self._first_bad = weighted, first_nonfinite
        else:
            self._sum, self._first_bad = self._sum + weighted, torch.minimum(self._first_bad, first_nonfinite)
        self._images += sum(self._recent_images)
        self._batches += len(losses)
        self._recent.clear()
        self._recent_images.clear()
