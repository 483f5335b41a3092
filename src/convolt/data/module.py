"""The LightningDataModule that wraps every dataset of images with labels."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from convolt.data.augment import Augmentation
from convolt.data.labels import add_label_noise, normalize_name, select
from convolt.data.loader import BatchLoader, Preprocessing
from convolt.data.prepare import prepare
from convolt.data.prepared import Labels, PreparedDataset, open_prepared
from convolt.data.sources.base import Source
from convolt.data.split import stratified_split, stratified_subset
from convolt.data.stage import stage as stage_dataset
from convolt.errors import UserError, some
from convolt.system.memory import available_bytes

log = logging.getLogger(__name__)

Indices = NDArray[np.int64]


class ImageDataModule(pl.LightningDataModule):
    """A prepared dataset, split, subset and standardized as the config says.

    Args:
        source: Where the images come from.
        root: Folder of the prepared datasets.
        batch_size: Training images of a batch.
        eval_batch_size: Validation and test images of a batch; None: the larger of batch_size and 256.
        val_fraction: Stratified part of the training images that validates, in [0, 1); 0: none.
        split_seed: Seed of that choice, of `train_size`'s and of `label_noise`'s.
        train_size: Training images that are used, stratified; None: all.
        label_noise: Share of the training labels that are replaced by another class, in [0, 1].
        classes: Names of the classes that are kept; None: all.
        superclasses: Names of the superclasses whose classes are kept; None: all.
        labels: fine, or coarse for the superclasses as classes.
        image_size: Side of a network's input in pixels; None: as stored and padded.
        padding: Black pixels added on every side of the stored images before they are resized.
        mean: Mean of each channel as a fraction of white; None: of the training images.
        std: Standard deviation of each channel, likewise.
        device: Where the images are kept: auto (the training device, where they fit), cpu or cuda.
        augmentation: What is done to training images.
        seed: The run's seed: order and augmentation.
        overfit_images: Train, validate and test on so many of the training images; None: as usual.
        stage: Copy the prepared dataset to this node's own disk first, once.
    """

    loader = BatchLoader
    no_label = -1  # of stored images that are left out

    def __init__(
        self,
        source: Source,
        root: str | Path,
        *,
        batch_size: int = 128,
        eval_batch_size: int | None = None,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        train_size: int | None = None,
        label_noise: float = 0.0,
        classes: Sequence[str] | None = None,
        superclasses: Sequence[str] | None = None,
        labels: str = "fine",
        image_size: int | None = None,
        padding: int = 0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        device: str = "auto",
        augmentation: Augmentation | None = None,
        seed: int = 0,
        overfit_images: int | None = None,
        stage: bool = False,
    ) -> None:
        super().__init__()
        if not {"name", "write"} <= set(dir(source)):  # a name may depend on the files of a folder: it is not read yet
            raise UserError(
                f"data.source is of type {type(source).__name__}: a class with a `name` and `write(folder, downloads)` "
                "is wanted, such as convolt.data.sources.Digits"
            )
        self.source = source
        self.root = Path(root)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or max(batch_size, 256)
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.train_size = train_size
        self.label_noise = label_noise
        self.keep_classes = classes
        self.keep_superclasses = superclasses
        self.coarse = labels == "coarse"
        self.requested_size = image_size
        self.padding = padding
        self.requested_mean = mean
        self.requested_std = std
        self.keep_on = device
        self.augmentation = augmentation or Augmentation()
        self.seed = seed
        self.overfit_images = overfit_images
        self.stage = stage
        self.tests = True  # set before `setup`: a run that never tests does not open the test images either
        self.chunk: int | None = 1  # see `BatchLoader`
        self.needed_beside = 0  # bytes that training takes on the device besides; set once the network is known
        self._resident_sizes: dict[tuple[int, torch.device], int] = {}
        self._resident: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def prepare_data(self) -> None:
        """Make the prepared dataset, where it does not stand yet."""
        prepare(self.source, self.root, with_test=self.tests)

    def setup(self, stage: str | None = None) -> None:
        """Open the prepared dataset and choose the images of every split; a second call does nothing."""
        if hasattr(self, "dataset"):
            return
        prepared = prepare(self.source, self.root, with_test=self.tests)
        self.dataset: PreparedDataset = stage_dataset(prepared) if self.stage else prepared
        for line in self.dataset.remarks:
            log.warning("%s", line)
        self._labels: dict[str, NDArray[np.int64]] = {}
        self.indices: dict[str, Indices] = {}
        self._choose("train", self.dataset.train_labels)
        if self.dataset.test_labels is not None:
            self._choose("test", self.dataset.test_labels)
        train = self.indices["train"]
        if self.dataset.val_labels is not None:
            self._choose("val", self.dataset.val_labels)
        else:
            kept, held_out = stratified_split(self._strata(train), self.val_fraction, self.split_seed)
            train, self.indices["val"], self._labels["val"] = train[kept], train[held_out], self._labels["train"]
        if self.train_size is not None:
            train = train[stratified_subset(self._strata(train), self.train_size, self.split_seed)]
        if self.label_noise:
            labels = self._labels["train"].copy()  # validation shares the array
            labels[train] = add_label_noise(labels[train], self.label_noise, self.num_classes, self.split_seed)
            self._labels["train"] = labels
        self.indices["train"] = train
        if self.overfit_images is not None:
            few = min(self.overfit_images, len(train))
            train = train[stratified_subset(self._strata(train), few, self.split_seed)]
            splits = ("train", "val", "test") if self.tests else ("train", "val")
            self.indices, self._labels = dict.fromkeys(splits, train), dict.fromkeys(splits, self._labels["train"])

    def _choose(self, split: str, labels: Labels) -> None:
        """Choose the images of the kept classes, and name every stored image's class among them."""
        if labels.ndim != 1:
            raise UserError(
                f"{self.dataset.folder} has a label for every pixel, and here images have one each: use data=masks"
            )
        chosen, new_labels, self.classes = select(
            np.asarray(labels, np.int64),
            self.dataset.classes,
            keep_classes=self.keep_classes,
            keep_superclasses=self.keep_superclasses,
            superclasses=self.dataset.superclasses,
            coarse=self.coarse,
        )
        self.indices[split] = chosen
        self._labels[split] = np.full(len(labels), self.no_label, np.int64)
        self._labels[split][chosen] = new_labels

    def _strata(self, train: Indices) -> Indices:
        """Return of stored training images (N,) the classes that keep their shares in every part."""
        return self._labels["train"][train]

    def _stored(self, split: str) -> NDArray[np.uint8]:
        """Return the stored images from which a split is taken."""
        if self.overfit_images is not None or (split == "val" and self.dataset.val_images is None):
            split = "train"
        images: NDArray[np.uint8] = getattr(self.dataset, f"{split}_images")
        return images

    @property
    def num_classes(self) -> int:
        """Number of classes that are kept."""
        return len(self.classes)

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return int(self.dataset.train_images.shape[3])

    @property
    def image_size(self) -> int:
        """Side of a network's input in pixels."""
        return self.requested_size or self.dataset.train_images.shape[1] + 2 * self.padding

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Shape of the target of one image: () for a label."""
        return ()

    @property
    def digest(self) -> str:
        """SHA-256 of the stored arrays."""
        return self.dataset.digest

    def describe_resizing(self) -> str:
        """Describe how stored images become a network's input; "" where nothing is done."""
        stored = self.dataset.train_images.shape[1]
        padded = stored + 2 * self.padding
        done = [f"padded to {padded}x{padded}"] if self.padding else []
        done += [f"resized to {self.image_size}x{self.image_size}"] if self.image_size != padded else []
        return f"{stored}x{stored} {' and '.join(done)}" if done else ""

    def test_on_all(self) -> None:
        """Take all stored images, and not those of the dataset's test part alone, as the test images."""
        assert self.dataset.test_images is not None
        assert self.dataset.test_labels is not None
        images = np.concatenate([self.dataset.train_images, self.dataset.test_images])
        labels = np.concatenate([self.dataset.train_labels, self.dataset.test_labels])
        self.dataset = replace(self.dataset, test_images=images, test_labels=labels)
        self._choose("test", labels)

    def verify_unchanged(self) -> None:
        """Check that the stored arrays are still those that were opened.

        Raises:
            UserError: Where something is missing or has changed.
        """
        if open_prepared(self.dataset.folder, with_test=self.tests).digest != self.digest:
            raise UserError(f"the dataset {self.dataset.folder} was replaced while it was in use: start again")

    def resident_bytes(self, device: torch.device) -> int:
        """Return the bytes of images and labels that will be kept on a device beside the network; none on the CPU."""
        return sum({id(self._stored(split)): self._resident_size(split, device) for split in self.indices}.values())

    def preprocessing(self, device: torch.device | str = "cpu") -> Preprocessing:
        """Return what turns stored bytes into a network's input.

        Raises:
            UserError: When `mean` or `std` do not have one number a channel, or a standard deviation is not above 0.
        """
        mean = self.requested_mean or self.dataset.mean
        std = self.requested_std or self.dataset.std
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != self.channels:
                raise UserError(
                    f"data.{name} has {len(values)} numbers, but {self.dataset.name} has {self.channels} channels"
                )
        # A channel without any contrast is not divided.
        return Preprocessing(self.padding, self.image_size, mean, [value or 1.0 for value in std], device)

    def record(self) -> dict[str, Any]:
        """Return the classes and all that turns an image of the stored size into a network's input, for JSON."""
        preprocessing = self.preprocessing()
        return {
            "dataset": self.dataset.name,
            "classes": list(self.classes),
            "channels": self.channels,
            "stored_size": int(self.dataset.train_images.shape[1]),
            "padding": self.padding,
            "image_size": self.image_size,
            # As float32: the numbers that the network is trained with.
            "mean": preprocessing.mean.flatten().tolist(),
            "std": preprocessing.std.flatten().tolist(),
        }

    def labels(self, split: str) -> NDArray[np.int64]:
        """Return (N,) the classes of a split's images, in order."""
        return self._labels[split][self.indices[split]]

    def inputs(self, split: str, places: Indices, device: torch.device | str) -> Tensor:
        """Return some of a split's images as a network takes them, without augmentation.

        Args:
            split: train, val or test.
            places: (B,) among the images of the split.
            device: Of the result.

        Returns:
            (B, C, H, W).
        """
        stored = torch.from_numpy(self._stored(split)[self.indices[split][places]])
        return self.preprocessing(device)(stored.to(device))

    def augmented(self, places: Indices, epoch: int) -> tuple[Tensor, Tensor]:
        """Return training images (B, C, H, W) and their targets as an epoch's augmentation changed them.

        Images are mixed among themselves; where copies are added to them, these are their first copies.
        """
        copies = len(self.indices["train"]) if self.augmentation.copies else 0
        return self._loader("train", torch.device("cpu")).augmented(torch.from_numpy(places) + copies, epoch)

    def pixels(self, images: Tensor) -> list[NDArray[np.float32]]:
        """Turn (B, C, H, W) of a network's input back into B images (H, W, 1 or 3) in [0, 1], to be shown.

        Of two channels the first is shown, of four the first three.
        """
        preprocessing = self.preprocessing(images.device)
        shown = (images.detach().float() * preprocessing.std + preprocessing.mean).clamp(0, 1)
        shown = shown[:, :3] if shown.shape[1] >= 3 else shown[:, :1]
        return list(shown.permute(0, 2, 3, 1).cpu().numpy())

    def evaluation_loader(self, split: str, device: torch.device) -> BatchLoader:
        """Return the batches of any split, in order and without augmentation."""
        return self._loader(split, device, evaluating=True)

    def renumber_classes(self, classes: Sequence[str]) -> None:
        """Number the classes as a network knows them.

        Args:
            classes: Their names in the network's order.

        Raises:
            UserError: When the names are not those of this dataset.
        """
        if tuple(classes) == tuple(self.classes):
            return
        wanted, present = [*map(normalize_name, classes)], [*map(normalize_name, self.classes)]
        missing = [name for name in wanted if name not in present]
        unknown = [name for name in present if name not in wanted]
        if missing or unknown:
            parts = [f"lacks {some(map(repr, missing))}"] if missing else []
            parts += [f"has {some(map(repr, unknown))}, which the network does not know"] if unknown else []
            hint = "; data.classes=[...] chooses classes" if unknown and not missing else ""
            name, count = self.dataset.name, len(classes)
            raise UserError(f"{name} does not have the network's {count} classes: it {' and '.join(parts)}{hint}")
        for split, labels in self._labels.items():
            new_labels = np.full(max(256, len(present) + 1), self.no_label, labels.dtype)  # -1 is the last of them
            new_labels[: len(present)] = [wanted.index(name) for name in present]
            self._labels[split] = new_labels[labels]
        self.classes = tuple(classes)

    def train_dataloader(self) -> BatchLoader:
        """Return the training batches: another order and augmentation each epoch."""
        return self._loader("train")

    def val_dataloader(self) -> BatchLoader:
        """Return the validation batches, in order."""
        return self._loader("val")

    def test_dataloader(self) -> BatchLoader:
        """Return the test batches, in order."""
        return self._loader("test")

    def _loader(self, split: str, device: torch.device | None = None, *, evaluating: bool = False) -> BatchLoader:
        if device is None:
            device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        images, labels = self._tensors(split, device)
        training = split == "train" and not evaluating
        return self.loader(
            images,
            labels,
            torch.from_numpy(self.indices[split]),
            self.preprocessing(device),
            self.batch_size if training else self.eval_batch_size,
            device,
            seed=self.seed,
            epoch=(lambda: self.trainer.current_epoch if self.trainer else 0) if training else None,
            augmentation=self.augmentation if training else Augmentation(),
            num_classes=self.num_classes,
            # Each process evaluates all images, so that the numbers do not depend on how many processes there are.
            rank=self.trainer.global_rank if training and self.trainer else 0,
            world_size=self.trainer.world_size if training and self.trainer else 1,
            chunk=self.chunk,
        )

    def _tensors(self, split: str, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return a split's stored images and labels, on the training device where they fit and are wanted there."""
        stored = self._stored(split)
        images, labels = torch.from_numpy(stored), torch.from_numpy(self._labels[split])
        if not self._resident_size(split, device):
            return images, labels
        key = (id(stored), device)
        if key not in self._resident:
            self._resident[key] = images.to(device), labels.to(device)
        return self._resident[key]

    def _resident_size(self, split: str, device: torch.device) -> int:
        """Return the bytes that a split's arrays take on a device, 0 where not kept there; decided once an array."""
        images = self._stored(split)
        key = (id(images), device)
        if key not in self._resident_sizes:
            size = images.nbytes + self._labels[split].nbytes
            self._resident_sizes[key] = size if device.type != "cpu" and self._fits(size, device) else 0
        return self._resident_sizes[key]

    def _fits(self, size: int, device: torch.device) -> bool:
        """Return whether so many more bytes fit on a device: where `data.device` says so, or twice as many stay free.

        Bytes that training will need do not count as free, though they may not be allocated yet.
        """
        if self.keep_on != "auto":
            return self.keep_on != "cpu"
        resident = sum(tensor.nbytes for tensors in self._resident.values() for tensor in tensors)
        free = (available_bytes(device) or 0) + resident - self.needed_beside
        return device.type == "cuda" and size + sum(self._resident_sizes.values()) < free / 3
