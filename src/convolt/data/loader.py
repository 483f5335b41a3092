"""Whole minibatches from arrays of bytes: chosen, moved, augmented and standardized together, on the training device.

There are no worker processes: indexing whole batches of bytes is faster than handing images between processes; images
that do not fit on the device are read by a thread, a few batches ahead. The order and every random parameter follow
from (seed, epoch) alone, which makes an epoch repeatable after a crash.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from convolt.data.augment import Augmentation, Draws
from convolt.data.prefetch import prefetch
from convolt.system.seeding import Stream, generator


class Batch(NamedTuple):
    """What one process has of a minibatch.

    Attributes:
        images: (B, C, H, W), float, standardized.
        targets: (B,), int64, or (B, K), probabilities, where images are mixed, or (B, H, W), int64, a label a pixel.
        num_own: How many of the images, the first ones, are this process's own. Only these count: others follow where a
            process has fewer than the two that batch norm needs.
        weight: Of the mean loss over the own images, so that its mean over all processes is that of the minibatch.
    """

    images: Tensor
    targets: Tensor
    num_own: int
    weight: float


class Chunk(tuple[Batch, ...]):
    """Batches that are trained on one after the other."""


Pair = tuple[Tensor, Tensor]
"""Images and targets, as in `Batch`."""

PixelSources = tuple[Tensor, Tensor]
"""The stored row (B, H') and column (B, W') that each padded one shows; one past the last is beyond the border."""

Stored = tuple[Tensor, Tensor, Tensor]
"""Stored bytes on the training device, (B,) labels, and (B,) where among the bytes the batch's images are."""

_CHUNK_BYTES = {"cpu": 8 * 2**20, "cuda": 64 * 2**20, "mps": 64 * 2**20}
"""Bytes of input up to which training batches are made several at a time: one alone is hardly work for a kernel."""


class Changes(NamedTuple):
    """What is done to some training images.

    Attributes:
        draws: Random parameters, one entry a transform.
        original: (B,), true where an image stays unchanged; None where copies are not added to the images.
    """

    draws: list[Draws]
    original: Tensor | None

    def split(self, size: int, count: int) -> "Iterator[Changes]":
        """Yield those of each `size` of `count` images in turn."""
        for part in (slice(first, first + size) for first in range(0, count, size)):
            yield Changes(
                [{name: values[part] for name, values in draws.items()} for draws in self.draws],
                None if self.original is None else self.original[part],
            )


class Preprocessing:
    """How stored bytes become a network's input.

    Args:
        padding: Black pixels added on every side.
        image_size: Side to which images are resized after the padding.
        mean: Mean of each channel, as a fraction of white.
        std: Standard deviation of each channel, likewise.
        device: Where images are turned into input.
    """

    def __init__(
        self,
        padding: int,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str = "cpu",
    ) -> None:
        self.padding = padding
        self.image_size = image_size
        self.mean, self.std = (
            torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1) for values in (mean, std)
        )
        # Of a row of pixels with their channels: (W * C,).
        self._scale, self._offset = ((value / self.std).flatten().repeat(image_size) for value in (1 / 255, -self.mean))

    def pad(self, stored: Tensor) -> Tensor:
        """Add the black border to stored bytes (B, H, W, C)."""
        return F.pad(stored, (0, 0, *(self.padding,) * 4)) if self.padding else stored

    def resize(self, images: Tensor) -> Tensor:
        """Resize (B, C, H, W) to the image size, where it is another."""
        size = [self.image_size, self.image_size]
        if list(images.shape[2:]) == size:
            return images
        return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)

    def __call__(self, stored: Tensor) -> Tensor:
        """Turn stored bytes (B, H, W, C) into a network's input (B, C, H, W), without augmentation."""
        return self.from_padded(self.pad(stored))

    def from_padded(self, padded: Tensor, change: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Turn padded bytes (B, H, W, C) into input (B, C, H, W).

        Args:
            padded: Bytes.
            change: What is done to the images (B, C, H, W) in [0, 1] before they are resized.
        """
        if change is None and list(padded.shape[1:3]) == [self.image_size] * 2:
            flat = padded.flatten(2).float()
            return torch.addcmul(self._offset, flat, self._scale, out=flat).view(padded.shape).permute(0, 3, 1, 2)
        images = padded.permute(0, 3, 1, 2).float().div_(255)  # in memory the channels stay last
        return (self.resize(images if change is None else change(images)) - self.mean).div_(self.std)


@dataclass(eq=False)
class BatchLoader:
    """The minibatches of a split, as Lightning iterates over them.

    Attributes:
        images: (N, H, W, C), uint8, on the device where they are kept.
        labels: (N,), int64, of the chosen images alone matter; likewise.
        indices: (M,) of the images that belong to the split, in order.
        preprocessing: How bytes become input.
        batch_size: Images of a batch over all processes; the last one may be smaller.
        device: Where batches are wanted.
        seed: Run's seed; with `epoch` it fixes the order and the augmentation.
        epoch: Returns the current epoch; None keeps the images in order and unchanged (evaluation).
        augmentation: What is done to training images.
        num_classes: Number of classes K, for targets of mixed images.
        rank: Place of this process among those that train together.
        world_size: Number of those processes; each has its part of every batch, so that the batches and the images of
            an epoch are the same for any number of them. Not for evaluation: each process evaluates all images.
        chunk: How many training batches are handed over at a time, as a `Chunk`; None: as many as are made at once; 1:
            each by itself.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    preprocessing: Preprocessing
    batch_size: int
    device: torch.device
    _: KW_ONLY
    seed: int = 0
    epoch: Callable[[], int] | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    num_classes: int = 0
    rank: int = 0
    world_size: int = 1
    chunk: int | None = 1

    def __post_init__(self) -> None:
        self.indices = self.indices.to(self.images.device)

    @cached_property
    def num_images(self) -> int:
        """Images of an epoch over all processes, augmented copies included."""
        return len(self.indices) * (1 + (self.augmentation.copies if self.epoch else 0))

    def __len__(self) -> int:
        """Return the number of batches; a last training batch of one image is left out, for batch norm's sake."""
        full, rest = divmod(self.num_images, self.batch_size)
        return full + (rest > 1 or (rest == 1 and (self.epoch is None or full == 0)))

    def __iter__(self) -> Iterator[Batch | Chunk]:
        """Yield the batches. Nothing is drawn before the first is requested, when the epoch is known."""
        if self.epoch is None:
            for source, labels, index in self._fetch(torch.split(self.indices, self.batch_size)):
                images = self.preprocessing(source.index_select(0, index))
                yield Batch(images, self._targets(labels), len(images), 1.0)
            return
        for batches in self._training_chunks(self.epoch()):
            if self.chunk == 1:
                yield from batches
            else:
                yield Chunk(batches)

    def _training_chunks(self, epoch: int) -> Iterator[Iterator[Batch]]:
        """Yield this process's part of each batch of an epoch, several made at once."""
        order = self.epoch_order(epoch)
        parts = [*torch.split(order, self.batch_size)[: len(self)]]
        if self.world_size > 1:
            parts = [self._places_of_rank(places) for places in parts]
        size, places = len(parts[0]), torch.cat(parts)
        places = places.pin_memory() if self.device.type == "cuda" else places
        fitting = max(1, _CHUNK_BYTES.get(self.device.type, 0) // (size * self._bytes_per_image()))
        chunk = size * (fitting if self.chunk in (1, None) else self.chunk)
        fetched = self._fetch(torch.split(self._stored_indices(places), chunk))
        numbers = itertools.count()
        for stored, changes in zip(fetched, self._draw_changes(places, epoch, chunk), strict=True):
            images, labels = self._augment(stored, changes)
            batches = torch.split(images, size), torch.split(labels, size)
            mixes = self.augmentation.mixes
            pairs = map(self._mix, *batches, changes.split(size, len(images))) if mixes else zip(*batches, strict=True)
            yield map(self._batch, pairs, numbers)

    def _batch(self, pair: Pair, number: int) -> Batch:
        """Return a batch of an epoch, given this process's part of its images and targets."""
        total = min(self.batch_size, self.num_images - number * self.batch_size)
        num_own = len(range(self.rank, total, self.world_size))
        return Batch(*pair, num_own, num_own * self.world_size / total)

    def _places_of_rank(self, places: Tensor) -> Tensor:
        """Return this process's part of a batch's (B,) places: every `world_size`-th, filled up to two."""
        own = places[self.rank :: self.world_size]
        return torch.cat([own, places[: 2 - len(own)]]) if len(own) < 2 else own

    def augmented(self, places: Tensor, epoch: int) -> Pair:
        """Return the images of (B,) places as an epoch changed them, mixed among themselves, and their targets."""
        (stored,) = self._fetch([self._stored_indices(places)])
        (changes,) = self._draw_changes(places, epoch, len(places))
        return self._mix(*self._augment(stored, changes), changes)

    def _bytes_per_image(self) -> int:
        """Return the bytes of an image as float input, or before it is resized, whichever are more."""
        height, width, channels = self.images.shape[1:]
        border, side = 2 * self.preprocessing.padding, self.preprocessing.image_size
        return 4 * channels * max((height + border) * (width + border), side**2)

    def _stored_indices(self, places: Tensor) -> Tensor:
        """Return where the images of (B,) places are stored."""
        return self.indices[places.to(self.images.device, non_blocking=True) % len(self.indices)]

    def _draw_changes(self, places: Tensor, epoch: int, size: int) -> Iterator[Changes]:
        """Return what an epoch does to the images of (B,) places, `size` of them at a time."""
        augmentation = self.augmentation
        drawn = augmentation.draw(self.seed, epoch, self.num_images, self.device)
        places = places.to(self.device, non_blocking=True)
        changes = Changes(
            [{name: values[places] for name, values in draws.items()} for draws in drawn],
            places < len(self.indices) if augmentation.copies else None,
        )
        return changes.split(size, len(places))

    def epoch_order(self, epoch: int) -> Tensor:
        """Draw the order of an epoch: places among the split's images, the copies behind the originals."""
        return torch.from_numpy(generator(self.seed, epoch, Stream.ORDER).permutation(self.num_images))

    def _fetch(self, batches: Iterable[Tensor]) -> Iterator[Stored]:
        """Bring the images of each (B,) indices to the training device.

        Images that are kept elsewhere are read, gathered and pinned by a thread while the device computes.
        """
        if self.images.device == self.device:
            for indices in batches:
                yield self.images, self.labels[indices], indices
            return
        for stored, labels in prefetch(self._gather, batches):
            images = stored.to(self.device, non_blocking=True)
            yield images, labels.to(self.device, non_blocking=True), torch.arange(len(images), device=self.device)

    def _gather(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Gather the stored images and labels of (B,) indices, in pinned memory where the device is a GPU."""
        stored, labels = self.images[indices], self.labels[indices]
        return (stored.pin_memory(), labels.pin_memory()) if self.device.type == "cuda" else (stored, labels)

    def _augment(self, stored: Stored, changes: Changes) -> Pair:
        """Turn fetched images into input, with all changes that concern each image alone."""
        augmentation, preprocessing = self.augmentation, self.preprocessing
        source, labels, index = stored
        draws, original = changes
        moves = self._pixel_sources(len(index), changes)
        padded = preprocessing.pad(source.index_select(0, index)) if moves is None else gather(source, index, moves)

        def change(images: Tensor) -> Tensor:
            return restore_originals(original, images, augmentation.change(images, draws))

        images = preprocessing.from_padded(padded, change if augmentation.changes else None)
        erased = restore_originals(original, images, augmentation.erase(images, draws))
        return erased, self._targets(labels, moves, changes)

    def _mix(self, images: Tensor, labels: Tensor, changes: Changes) -> Pair:
        """Blend the images of a batch with each other, and their targets alike, where the augmentation mixes."""
        if not self.augmentation.mixes:
            return images, labels
        targets = F.one_hot(labels, self.num_classes).to(images.dtype)
        mixed, blended = self.augmentation.mix(images, targets, changes.draws)
        return restore_originals(changes.original, images, mixed), restore_originals(changes.original, targets, blended)

    def _targets(self, labels: Tensor, moves: PixelSources | None = None, changes: Changes | None = None) -> Tensor:
        """Turn a batch's labels into targets, given how its images were augmented; labels of images do not change."""
        return labels

    def _pixel_sources(self, count: int, changes: Changes) -> PixelSources | None:
        """Return where the pixels of so many images come from; None where nothing moves."""
        if not self.augmentation.moves:
            return None
        sides = self.images.shape[1:3]
        unmoved = [_padded_range(side, self.preprocessing.padding, count, self.device) for side in sides]
        moved = self.augmentation.move(unmoved[0], unmoved[1], changes.draws)
        rows, columns = (
            restore_originals(changes.original, before, after).to(torch.int32)
            for before, after in zip(unmoved, moved, strict=True)
        )
        return rows.masked_fill_(rows < 0, sides[0]), columns.masked_fill_(columns < 0, sides[1])


def gather(source: Tensor, index: Tensor, places: PixelSources, beyond: int = 0) -> Tensor:
    """Gather (B, H', W', ...) from stored bytes.

    Args:
        source: (N, H, W, ...), stored bytes.
        index: (B,) of the images among them.
        places: (B, H') rows and (B, W') columns of each.
        beyond: The value beyond the border.
    """
    rows, columns = places
    # One more row and column hold the value beyond the border.
    framed = F.pad(source.index_select(0, index), (*(0, 0) * (source.dim() - 3), 0, 1, 0, 1), value=beyond)
    height, width, *more = framed.shape[1:]
    flat = framed.view(-1) if more in ([], [1]) else framed.view(-1, *more)  # one byte each: three times as fast
    dtype = torch.int32 if framed.numel() < 2**31 else torch.int64  # the smaller, the faster
    first = torch.arange(0, len(index) * height, height, dtype=dtype, device=index.device)
    pixels = ((rows + first[:, None]) * width)[:, :, None] + columns[:, None, :]
    return flat.index_select(0, pixels.view(-1)).view(*pixels.shape, *more)


def _padded_range(side: int, padding: int, count: int, device: torch.device) -> Tensor:
    """Return (count, side + 2 padding): the stored row (or column) of each padded one, -1 where it is black."""
    places = torch.arange(-padding, side + padding, device=device)
    return places.masked_fill((places < 0) | (places >= side), -1).expand(count, -1)


def restore_originals(original: Tensor | None, before: Tensor, after: Tensor) -> Tensor:
    """Undo what was done to the original images where copies are added to them."""
    if original is None or after is before:
        return after
    return torch.where(original.view(-1, *(1,) * (before.dim() - 1)), before, after)
