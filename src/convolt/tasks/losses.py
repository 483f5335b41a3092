"""Losses over labeled pixels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from convolt.data.sources.base import IGNORED
from convolt.models.repeatable import flatten_pixels


def pixel_cross_entropy(
    logits: Tensor, targets: Tensor, weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Return the cross-entropy, its mean over the pixels that are not ignored; 0 where all are.

    Args:
        logits: (B, K, H, W).
        targets: (B, H, W), int64; 255 is ignored.
        weights: (K,) of the classes, by which the mean is weighted; None: all alike.
        label_smoothing: Share of the target that is spread over all classes.
    """
    logits, targets = flatten_pixels(logits, targets)
    total = F.cross_entropy(
        logits, targets, weights, ignore_index=IGNORED, reduction="sum", label_smoothing=label_smoothing
    )
    seen = targets != IGNORED
    count = seen.sum() if weights is None else (weights[targets.where(seen, 0)] * seen).sum()
    return total / count.clamp(min=torch.finfo(torch.float32).tiny)


def dice_loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return 1 less the mean soft Dice coefficient of the classes that are among the targets.

    A class's coefficient is 2 sum(p t) / (sum(p) + sum(t)) over the batch's pixels that are not ignored, with its
    probability p and its indicator t (Milletari and others 2016, https://arxiv.org/abs/1606.04797, whose denominator
    has squares). Classes without a pixel have no coefficient that could grow and are left out; 0 where there are none.

    Args:
        logits: (B, K, H, W).
        targets: (B, H, W), int64; 255 is ignored.
        weights: (K,) of the classes in the mean; None: all alike.
    """
    seen = (targets != IGNORED)[:, None]
    probabilities = logits.float().softmax(1) * seen
    truth = F.one_hot(targets.where(seen[:, 0], 0), logits.shape[1]).movedim(-1, 1) * seen
    over = (0, 2, 3)
    both, true = (probabilities * truth).sum(over), truth.sum(over)
    share = (true > 0).to(both.dtype) if weights is None else (true > 0) * weights
    dice = 2 * both / (probabilities.sum(over) + true).clamp(min=torch.finfo(torch.float32).tiny)
    total = share.sum()
    return (total - (share * dice).sum()) / total.clamp(min=torch.finfo(torch.float32).tiny)
