"""Datasets with a label for every pixel: the data module, and minibatches in which masks move with their images."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from convolt.data.loader import BatchLoader, Changes, PixelSources, gather, restore_originals
from convolt.data.module import ImageDataModule, Indices
from convolt.data.prepared import Labels
from convolt.data.sources.base import IGNORED
from convolt.errors import UserError


class MaskLoader(BatchLoader):
    """Minibatches of images and masks: `labels` are (N, H, W), uint8, and targets (B, H', W'), int64.

    Whatever moves the pixels of an image moves its mask alike, to the nearest place; what lies beyond the border of an
    image, its padding too, is ignored (255).
    """

    def _targets(self, labels: Tensor, moves: PixelSources | None = None, changes: Changes | None = None) -> Tensor:
        """Bring masks (B, H, W) to where the pixels of their images are."""
        border = self.preprocessing.padding
        if moves is not None:
            masks = gather(labels, torch.arange(len(labels), device=labels.device), moves, IGNORED)
        else:
            masks = F.pad(labels, (border,) * 4, value=IGNORED) if border else labels
        if changes is not None:
            masks = restore_originals(changes.original, masks, self.augmentation.change_masks(masks, changes.draws))
        size = [self.preprocessing.image_size] * 2
        if list(masks.shape[1:]) != size:
            masks = F.interpolate(masks[:, None].float(), size, mode="nearest-exact")[:, 0]
        return masks.long()


class MaskDataModule(ImageDataModule):
    """A prepared dataset of images and masks, split and standardized as the config says.

    Splits and subsets are random, not stratified: an image has many classes. See `ImageDataModule` for the arguments,
    of which label_noise, classes, superclasses and labels are about whole images and must keep their defaults.
    """

    loader = MaskLoader
    no_label = IGNORED

    def setup(self, stage: str | None = None) -> None:
        """Open the prepared dataset and choose the images of every split; a second call does nothing.

        Raises:
            UserError: For a setting that is about labels of whole images.
        """
        given = {
            "label_noise": self.label_noise > 0,
            "classes": self.keep_classes is not None,
            "superclasses": self.keep_superclasses is not None,
            "labels": self.coarse,
        }
        for name in (name for name, is_given in given.items() if is_given):
            raise UserError(f"data.{name} is for labels of whole images, and these have a label for every pixel")
        if self.augmentation.mixes:
            raise UserError(
                "augmentation=mixup and augmentation=cutmix blend labels of whole images, and these have a label for "
                "every pixel: choose others, such as augmentation=[flip,affine,color]"
            )
        super().setup(stage)

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Shape of the target of one image: (H, W), a label a pixel."""
        return (self.image_size, self.image_size)

    def _choose(self, split: str, labels: Labels) -> None:
        """Choose all images."""
        if labels.ndim != 3:
            raise UserError(f"{self.dataset.folder} has a label for every image, and not for every pixel")
        self.classes = self.dataset.classes
        self.indices[split] = np.arange(len(labels), dtype=np.int64)
        self._labels[split] = labels  # type: ignore[assignment]

    def _strata(self, train: Indices) -> Indices:
        """Return (N,) zeros: no image is of one class."""
        return np.zeros(len(train), np.int64)

    def targets(self, split: str, places: Indices) -> NDArray[np.uint8]:
        """Return (B, H, W), the masks of some of a split's images at the size of a network's input.

        Args:
            split: train, val or test.
            places: (B,) among the images of the split.
        """
        stored = torch.from_numpy(np.asarray(self._labels[split][self.indices[split][places]]))
        return self._loader(split, torch.device("cpu"))._targets(stored).to(torch.uint8).numpy()
