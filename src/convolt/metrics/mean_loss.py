"""The mean loss over the images of an epoch, and where it stopped being a number."""

import torch
from torch import Tensor

_BLOCK = 64
"""Batches whose losses are summed at once; the order of a sum decides its last bits."""

_FLUSH_EVERY = 16 * _BLOCK
"""Batches whose losses are kept until they are summed: seldom, since code that runs seldom is slow."""


class MeanLoss:
    """Averages the losses of an epoch's batches on the device; nothing waits for it, and `add` launches nothing.

    Args:
        synchronized: Whether several processes see a part of the images each.
    """

    def __init__(self, *, synchronized: bool = False) -> None:
        self.synchronized = synchronized
        self._losses: list[Tensor] = []
        self._counts: list[int] = []
        self._reset()

    def _reset(self) -> None:
        self._sum: Tensor | None = None
        self._first_nonfinite: Tensor | None = None
        self._images = self._batches = 0

    def add(self, loss: Tensor, images: int) -> None:
        """Add the mean loss of a batch of so many images."""
        self._losses.append(loss.detach())
        self._counts.append(images)
        if len(self._losses) >= _FLUSH_EVERY:
            self._flush()

    def running_mean(self) -> Tensor | None:
        """Return the mean over this process's images so far, still on the device; None before the first.

        It changes nothing: a bar asks for it at any time, and the order of a sum decides its last bits.
        """
        total = self._weigh()[1] if self._losses else self._sum
        return None if total is None else total / (self._images + sum(self._counts))

    def first_nonfinite(self) -> Tensor | None:
        """Return the number of the first batch whose loss is not finite, still on the device.

        Returns:
            Infinity where all are finite; None before the first.
        """
        self._flush()
        return self._first_nonfinite

    def compute(self) -> dict[str, Tensor]:
        """Return {"loss": the mean over the images of all processes}, or nothing where there were none, and reset."""
        self._flush()
        if self._sum is None:
            return {}
        total = torch.stack([self._sum, self._sum.new_tensor(self._images)])
        if self.synchronized:
            torch.distributed.all_reduce(total)
        self._reset()
        return {"loss": total[0] / total[1]}

    def _weigh(self) -> tuple[Tensor, Tensor]:
        """Return the losses that are not in the sum yet, and the sum over images with them."""
        losses = torch.stack(self._losses).float()
        weights = torch.tensor(self._counts, dtype=torch.float32).to(losses.device, non_blocking=True)
        total = self._sum
        for block in zip(torch.split(losses, _BLOCK), torch.split(weights, _BLOCK), strict=True):
            total = torch.dot(*block) if total is None else total + torch.dot(*block)
        assert total is not None
        return losses, total

    def _flush(self) -> None:
        if not self._losses:
            return
        losses, self._sum = self._weigh()
        numbers = torch.arange(self._batches, self._batches + len(losses), dtype=torch.float32, device=losses.device)
        first = numbers.masked_fill_(losses.isfinite(), torch.inf).min()
        before = self._first_nonfinite
        self._first_nonfinite = first if before is None else torch.minimum(before, first)
        self._images += sum(self._counts)
        self._batches += len(losses)
        self._losses.clear()
        self._counts.clear()
