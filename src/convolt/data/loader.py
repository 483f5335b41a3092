"""Whole minibatches from arrays of bytes: chosen, moved, augmented and standardised together, on the training device.

There are no worker processes: indexing whole batches of bytes is faster than handing images between processes; images
that do not fit on the device are read by a thread, a few batches ahead. The order and every random parameter follow
from (seed, epoch) alone, which makes an epoch repeatable after a crash.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from convolt.data.augment import Augmentation, Draws
from convolt.data.prefetch import ahead
from convolt.seeding import Stream, generator

Batch = tuple[Tensor, Tensor]
"""Images (B, C, H, W), float, standardised; targets.

Targets are (B,), int64, or (B, K), probabilities, where images are mixed, or (B, H, W), int64, a label a pixel.
"""

Places = tuple[Tensor, Tensor]
"""The stored row (B, H) and column (B, W) that each padded one shows; -1 is beyond the border."""

Stored = tuple[Tensor, Tensor, Tensor]
"""Stored bytes on the training device, (B,) labels, and (B,) where among the bytes the batch's images are."""


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
        self.mean = torch.tensor(mean, dtype=torch.float32, device=device).view(1, -1, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float32, device=device).view(1, -1, 1, 1)

    def pad(self, stored: Tensor) -> Tensor:
        """Add the black border to stored bytes (B, H, W, C)."""
        return F.pad(stored, (0, 0, *(self.padding,) * 4)) if self.padding else stored

    def resize(self, images: Tensor) -> Tensor:
        """Resize (B, C, H, W) to the image size, where it is another."""
        size = [self.image_size, self.image_size]
        if list(images.shape[2:]) == size:
            return images
        return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)

    def standardise(self, images: Tensor) -> Tensor:
        """Subtract the mean from (B, C, H, W) in [0, 1] and divide by the standard deviation."""
        return (images - self.mean).div_(self.std)

    def __call__(self, stored: Tensor) -> Tensor:
        """Turn stored bytes (B, H, W, C) into a network's input (B, C, H, W), without augmentation."""
        return self.standardise(self.resize(to_unit(self.pad(stored))))


class BatchLoader:
    """The minibatches of a split, as Lightning iterates over them.

    Args:
        images: (N, H, W, C), uint8, on the device where they are kept.
        labels: (N,), int64, of the chosen images alone matter; likewise.
        indices: (M,) of the images that belong to the split, in order.
        preprocessing: How bytes become input.
        batch_size: Images of a batch over all processes; the last one may be smaller.
        device: Where batches are wanted.
        seed: Run's seed; with `epoch` it fixes the order and the augmentation.
        epoch: Returns the current epoch; None keeps the images in order and as they are (evaluation).
        augmentation: What is done to training images.
        num_classes: Number of classes K, for targets of mixed images.
        rank: Place of this process among those that train together.
        world_size: Number of those processes; each has its part of every batch, so that the batches and the images of
            an epoch are the same for any number of them. Not for evaluation: each process evaluates all images.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        indices: Tensor,
        preprocessing: Preprocessing,
        batch_size: int,
        device: torch.device,
        *,
        seed: int = 0,
        epoch: Callable[[], int] | None = None,
        augmentation: Augmentation | None = None,
        num_classes: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.images = images
        self.labels = labels
        self.indices = indices.to(images.device)
        self.preprocessing = preprocessing
        self.batch_size = batch_size
        self.device = device
        self.seed = seed
        self.epoch = epoch
        self.augmentation = augmentation or Augmentation()
        self.num_classes = num_classes
        self.rank = rank
        self.world_size = world_size

    @property
    def num_images(self) -> int:
        """Images of an epoch over all processes, augmented copies included."""
        return len(self.indices) * (1 + (self.augmentation.copies if self.epoch else 0))

    def __len__(self) -> int:
        """Return the number of batches; a last training batch of one image is left out, for batch norm's sake."""
        full, rest = divmod(self.num_images, self.batch_size)
        return full + (rest > 1 or (rest == 1 and (self.epoch is None or full == 0)))

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches. Nothing is drawn before the first is asked for, when the epoch is known."""
        if self.epoch is None:
            for source, labels, index in self._fetched(torch.split(self.indices, self.batch_size)):
                yield self.preprocessing(source.index_select(0, index)), self._targets(labels)
            return
        epoch = self.epoch()
        total = len(self.indices) * (1 + self.augmentation.copies)
        draws = self.augmentation.draw(self.seed, epoch, total, self.device)
        places = self._order(epoch, total).to(self.images.device)
        batches = [self._part(chosen) for chosen in torch.split(places, self.batch_size)[: len(self)]]
        fetched = self._fetched(self.indices[part % len(self.indices)] for part in batches)
        for part, stored in zip(batches, fetched, strict=True):
            yield self._augmented(part, stored, draws)

    def share(self, batch: int) -> tuple[int, int]:
        """Return how many images of a training batch are this process's own, and how many all processes have.

        Only these count: a process that would have fewer than two in the epoch's last batch, which batch norm needs, is
        given others' as well, behind its own.
        """
        total = min(self.batch_size, self.num_images - batch * self.batch_size)
        return len(range(self.rank, total, self.world_size)), total

    def _part(self, places: Tensor) -> Tensor:
        """Return this process's part of a batch's (B,) places."""
        if self.world_size == 1:
            return places
        own = places[self.rank :: self.world_size]
        return torch.cat([own, places[: 2 - len(own)]]) if len(own) < 2 else own

    def augmented(self, places: Tensor, epoch: int) -> Batch:
        """Return the images of (B,) places as they were in an epoch, mixed among themselves, and their targets."""
        total = len(self.indices) * (1 + self.augmentation.copies)
        draws = self.augmentation.draw(self.seed, epoch, total, self.device)
        places = places.to(self.images.device)
        (stored,) = self._fetched([self.indices[places % len(self.indices)]])
        return self._augmented(places, stored, draws)

    def _order(self, epoch: int, total: int) -> Tensor:
        """Draw the order of an epoch: places among the split's images, the copies behind the originals."""
        return torch.from_numpy(generator(self.seed, epoch, Stream.ORDER).permutation(total))

    def _fetched(self, batches: Iterable[Tensor]) -> Iterator[Stored]:
        """Bring the images of (B,) indices each to the training device, batch by batch.

        Images that are kept elsewhere are read, gathered and pinned by a thread while the device computes.
        """
        if self.images.device == self.device:
            for indices in batches:
                yield self.images, self.labels[indices], indices
            return
        for stored, labels in ahead(self._gathered, batches):
            moved = stored.to(self.device, non_blocking=True)
            yield moved, labels.to(self.device, non_blocking=True), torch.arange(len(moved), device=self.device)

    def _gathered(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Gather the stored images and labels of (B,) indices where a copy to the device can start from."""
        stored, labels = self.images[indices], self.labels[indices]
        return (stored.pin_memory(), labels.pin_memory()) if self.device.type == "cuda" else (stored, labels)

    def _augmented(self, places: Tensor, stored: Stored, epoch_draws: list[Draws]) -> Batch:
        """Make the training batch of (B,) places, whose images were fetched."""
        augmentation, preprocessing = self.augmentation, self.preprocessing
        source, labels, index = stored
        places = places.to(self.device, non_blocking=True)
        draws = [{name: values[places] for name, values in draws.items()} for draws in epoch_draws]
        original = places < len(self.indices) if augmentation.copies else None

        moves = self._moves(source, index, draws, original)
        images = to_unit(
            self.preprocessing.pad(source.index_select(0, index)) if moves is None else gathered(source, index, moves)
        )
        images = keep(original, images, augmentation.change(images, draws))
        images = preprocessing.standardise(preprocessing.resize(images))
        images = keep(original, images, augmentation.erase(images, draws))
        labels = self._targets(labels, moves, draws, original)
        if not augmentation.mixes:
            return images, labels
        targets = F.one_hot(labels, self.num_classes).to(images.dtype)
        mixed, blended = augmentation.mix(images, targets, draws)
        return keep(original, images, mixed), keep(original, targets, blended)

    def _targets(
        self, labels: Tensor, moves: Places | None = None, draws: Sequence[Draws] = (), original: Tensor | None = None
    ) -> Tensor:
        """Turn a batch's labels into targets, given how its images were augmented; labels of images stay."""
        return labels

    def _moves(self, source: Tensor, index: Tensor, draws: list[Draws], original: Tensor | None) -> Places | None:
        """Return where the pixels of (B,) images come from with all pixel moves at once; None where nothing moves."""
        if not self.augmentation.moves:
            return None
        rows = _padded_range(source.shape[1], self.preprocessing.padding, index)
        columns = _padded_range(source.shape[2], self.preprocessing.padding, index)
        moved_rows, moved_columns = self.augmentation.move(rows, columns, draws)
        return keep(original, rows, moved_rows), keep(original, columns, moved_columns)


def gathered(source: Tensor, index: Tensor, places: Places, beyond: int = 0) -> Tensor:
    """Gather (B, H', W', ...) from stored bytes.

    Args:
        source: (N, H, W, ...), stored bytes.
        index: (B,) of the images among them.
        places: (B, H') rows and (B, W') columns of each.
        beyond: What stands beyond the border.
    """
    rows, columns = places
    height, width, *more = source.shape[1:]
    chosen = source.index_select(0, index)
    count = len(index) * height * width
    number = torch.int32 if 3 * count < 2**31 else torch.int64  # the smaller, the faster
    # One pixel more, which is what stands beyond the border.
    flat = torch.cat([chosen.view(count, *more), chosen.new_full((1, *more), beyond)])
    flat = flat.view(-1) if more == [1] else flat  # one byte each: three times as fast
    first = torch.arange(0, count, height * width, dtype=number, device=index.device)
    in_image = (rows * width).to(number).masked_fill_(rows < 0, count)
    pixels = (first[:, None] + in_image)[:, :, None] + columns.to(number).masked_fill_(columns < 0, count)[:, None, :]
    return flat.index_select(0, pixels.clamp_(max=count).view(-1)).view(*pixels.shape, *more)


def to_unit(images: Tensor) -> Tensor:
    """Turn (B, H, W, C) bytes into (B, C, H, W) in [0, 1]; in memory the channels stay last."""
    return images.permute(0, 3, 1, 2).float().div_(255)


def _padded_range(side: int, padding: int, index: Tensor) -> Tensor:
    """Return (B, side + 2 padding): the stored row (or column) of each padded one, -1 where it is black."""
    places = torch.arange(-padding, side + padding, device=index.device)
    return places.masked_fill((places < 0) | (places >= side), -1).expand(len(index), -1)


def keep(original: Tensor | None, before: Tensor, after: Tensor) -> Tensor:
    """Undo what was done to the original images where copies are added to them."""
    if original is None or after is before:
        return after
    return torch.where(original.view(-1, *(1,) * (before.dim() - 1)), before, after)
