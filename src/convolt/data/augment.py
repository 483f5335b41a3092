"""Augmentation of whole minibatches, with parameters of their own for every image.

All parameters of an epoch are drawn at once on the CPU by a generator that depends on (seed, epoch, place in the list)
alone, so they are the same on every device, and adding a transform does not change the draws of the others. Four
kinds follow each other, each in the order of the list:

1. `PixelMove` (flip, shift, crop) only says which pixel of the stored image goes where. All of them together, with
   the choice of the minibatch's images, are one gather from the stored bytes.
2. `ImageTransform` (affine, color) computes on images in [0, 1].
3. `Erasure` (cutout) works on standardized images, where 0 is the mean.
4. `Mixing` (mixup, cutmix) blends images and their targets.

Labels of pixels move with the pixels in 1 and 2, to the nearest place and never blended, and are ignored where nothing
of the image is; an erasure does not change them, since the network is to infer what is hidden from its surroundings.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convolt.errors import UserError
from convolt.system.seeding import Stream, generator

Draws = dict[str, Tensor]
"""A transform's parameters: name to a tensor whose first dimension counts images."""


class Transform(ABC):
    """What every transform shares: it is applied to each image with some probability.

    Args:
        probability: Share of the images that it changes, in [0, 1].
    """

    def __init__(self, probability: float) -> None:
        if not 0 <= probability <= 1:
            raise UserError(f"an augmentation's probability is between 0 and 1, not {probability}")
        self.probability = probability

    def chosen(self, random: np.random.Generator, count: int) -> NDArray[np.bool_]:
        """Draw which of `count` images are changed."""
        return random.random(count) < self.probability

    @abstractmethod
    def draw(self, random: np.random.Generator, count: int) -> Draws:
        """Draw the parameters of `count` images; those of images that are not chosen change nothing."""


class PixelMove(Transform):
    """A transform that moves whole pixels and computes nothing."""

    @abstractmethod
    def move(self, rows: Tensor, columns: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Change where pixels come from.

        Args:
            rows: (B, H) row of the stored image that each row shows; -1 is black.
            columns: (B, W) likewise.
            draws: Parameters of these B images.

        Returns:
            The new rows and columns.
        """


class ImageTransform(Transform):
    """A transform that computes new pixel values."""

    @abstractmethod
    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Change images: (B, C, H, W), float in [0, 1]."""

    def on_masks(self, masks: Tensor, draws: Draws) -> Tensor:
        """Change labels of pixels (B, H, W; uint8) as the images' pixels are moved; colors do not change them."""
        return masks


class Erasure(Transform):
    """A transform that sets parts of standardized images to 0, the mean."""

    @abstractmethod
    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Change images: (B, C, H, W), standardized."""


class Mixing(Transform):
    """A transform that blends every image with the next one of the minibatch, and the targets alike."""

    @abstractmethod
    def __call__(self, images: Tensor, targets: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Blend images (B, C, H, W), standardized, and targets (B, K), probabilities of the classes."""


class Augmentation:
    """All transforms of a run.

    Args:
        transforms: Name to transform, in order.
        copies: 0 replaces every training image by its augmented form; k keeps it and adds k augmented copies.

    Attributes:
        moves: Whether any transform moves pixels.
        changes: Whether any transform computes new pixel values.
        mixes: Whether targets become probabilities of the classes.

    Raises:
        UserError: When both mixup and cutmix are given, or something is no transform.
    """

    def __init__(self, transforms: Mapping[str, Transform] | None = None, copies: int = 0) -> None:
        for name, transform in (transforms or {}).items():
            if not isinstance(transform, PixelMove | ImageTransform | Erasure | Mixing):
                raise UserError(
                    f"augmentation.transforms.{name} is of type {type(transform).__name__}: one of "
                    "convolt.data.augment's PixelMove, ImageTransform, Erasure or Mixing is wanted, for whole batches"
                )
        self.transforms = list((transforms or {}).values())
        self.copies = copies

        # Each with its place among all, where its parameters are.
        placed = list(enumerate(self.transforms))
        self._moves = [(place, each) for place, each in placed if isinstance(each, PixelMove)]
        self._changes = [(place, each) for place, each in placed if isinstance(each, ImageTransform)]
        self._erasures = [(place, each) for place, each in placed if isinstance(each, Erasure)]
        self._mixings = [(place, each) for place, each in placed if isinstance(each, Mixing)]
        if len(self._mixings) > 1:
            raise UserError("mixup and cutmix cannot both mix an image: choose one of them")
        self.moves, self.changes, self.mixes = map(bool, (self._moves, self._changes, self._mixings))

    def draw(self, seed: int, epoch: int, count: int, device: torch.device) -> list[Draws]:
        """Draw the parameters of an epoch's `count` images, one entry a transform."""
        drawn = (
            transform.draw(generator(seed, epoch, Stream.AUGMENTATION, place), count)
            for place, transform in enumerate(self.transforms)
        )
        return [{name: _send(values, device) for name, values in draws.items()} for draws in drawn]

    def move(self, rows: Tensor, columns: Tensor, draws: list[Draws]) -> tuple[Tensor, Tensor]:
        """Apply the pixel moves to (B, H) rows and (B, W) columns."""
        for place, transform in self._moves:
            rows, columns = transform.move(rows, columns, draws[place])
        return rows, columns

    def change(self, images: Tensor, draws: list[Draws]) -> Tensor:
        """Apply the image transforms to (B, C, H, W) in [0, 1]."""
        for place, transform in self._changes:
            images = transform(images, draws[place])
        return images

    def change_masks(self, masks: Tensor, draws: list[Draws]) -> Tensor:
        """Move labels of pixels (B, H, W; uint8) as the image transforms move the pixels of their images."""
        for place, transform in self._changes:
            masks = transform.on_masks(masks, draws[place])
        return masks

    def erase(self, images: Tensor, draws: list[Draws]) -> Tensor:
        """Apply the erasures to standardized (B, C, H, W)."""
        for place, transform in self._erasures:
            images = transform(images, draws[place])
        return images

    def mix(self, images: Tensor, targets: Tensor, draws: list[Draws]) -> tuple[Tensor, Tensor]:
        """Apply the mixing to standardized (B, C, H, W) and (B, K) probabilities."""
        for place, transform in self._mixings:
            images, targets = transform(images, targets, draws[place])
        return images, targets


def _send(values: Tensor, device: torch.device) -> Tensor:
    """Copy to a device; to a GPU from pinned memory, since this thread would wait for its kernels otherwise."""
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)
