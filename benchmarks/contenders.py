"""Who trains side by side in peers.py: ours, plain PyTorch loops, the usual pipeline, Lightning as it comes.

All train the same network on the same images by momentum, in the same precision; each returns what its steps took.
"""

import contextlib
import io
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchmetrics.classification import MulticlassAccuracy

from convolt.config.instantiate import build
from convolt.config.settings import Settings
from convolt.system.terminal import silence_libraries
from convolt.training.callbacks.recorder import Recorder
from convolt.training.machine import Machine
from convolt.training.run import run

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))

from plain_loop import move

Batches = Iterator[tuple[Tensor, Tensor]]

LEAST_SECONDS = 0.5
"""On a GPU a plain loop repeats its epoch for so long."""

QUIET_SECONDS = 0.02
"""Where no thread computes for so long, the one that writes a checkpoint has ended."""


@dataclass(frozen=True)
class Spent:
    """What training on some images took: seconds by the clock, and of processors, child processes included."""

    images: int
    clock: float
    processor: float


class Stopwatch:
    """Measures from its making on."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.began = self._read()

    def _read(self) -> tuple[float, float]:
        if self.device == "cuda":
            torch.cuda.synchronize()
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.perf_counter(), time.process_time() + children.ru_utime + children.ru_stime

    def spent(self, images: int) -> Spent:
        """Return what was spent on so many images."""
        clock, processor = (now - before for now, before in zip(self._read(), self.began, strict=True))
        return Spent(images, clock, processor)


class Tiny(nn.Module):
    """A network whose step is all Python."""

    def __init__(self, in_channels: int, num_classes: int, image_size: int, **_: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels * image_size**2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.linear(images.flatten(1))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Course:
    """What all train: the settings of ours, in a folder with the images.

    Attributes:
        cfg: The composed settings.
        folder: Where the images lie in `arrays`, and where everything is written.
        warm_up: Steps that are not measured, of all but ours, whose first epoch is not.
    """

    cfg: Any
    folder: Path
    warm_up: int = 1

    @cached_property
    def machine(self) -> Machine:
        """What they compute on, and how."""
        return Machine.of(Settings.of(self.cfg).trainer)

    @property
    def device(self) -> str:
        """Its kind."""
        return self.machine.device.type

    @property
    def batch_size(self) -> int:
        """Images of a batch."""
        return int(self.cfg.data.batch_size)

    @cached_property
    def stored(self) -> tuple[Tensor, Tensor]:
        """The images, padded, (N, H, W, C), as bytes, and the labels."""
        images, labels = (torch.from_numpy(np.load(self.folder / f"arrays/{what}_train.npy")) for what in "xy")
        return F.pad(images, (0, 0, *(self.cfg.data.padding,) * 4)), labels

    def network(self, *, as_ours: bool) -> nn.Module:
        """Make the network on the device; in the memory format of ours, or in that of PyTorch."""
        network: nn.Module = build(self.cfg.model, "model")
        return (self.machine.prepare(network) if as_ours else network).to(self.device)

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """Make the optimizer."""
        return torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, fused=self.machine.fused)

    def train(self, network: nn.Module, batches: Batches, optimizer: torch.optim.Optimizer) -> int:
        """Train on the batches in a plain loop; return the number of images."""
        seen = 0
        for images, targets in batches:
            with self.machine.autocast():
                loss = F.cross_entropy(network(images), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            seen += len(images)
        return seen


def measure_epochs(course: Course, epoch: Callable[[], Batches], network: nn.Module) -> Spent:
    """Measure a plain loop over the batches of an epoch, on a GPU over those of several."""
    optimizer = course.optimizer(network)
    first = epoch()
    course.train(network, (next(first) for _ in range(course.warm_up)), optimizer)
    del first
    watch, seen = Stopwatch(course.device), 0
    while True:
        seen += course.train(network, epoch(), optimizer)
        spent = watch.spent(seen)
        if course.device == "cpu" or spent.clock > LEAST_SECONDS:
            return spent


def limit(course: Course) -> Spent:
    """Train in a plain loop over standardized tensors on the device: nothing is shuffled, moved or measured."""
    course.machine.apply()
    images, labels = (part.to(course.device) for part in course.stored)
    inputs = images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    if course.machine.channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    batches = list(zip(inputs.split(course.batch_size), labels.split(course.batch_size), strict=True))
    return measure_epochs(course, lambda: iter(batches), course.network(as_ours=True))


def moved_batches(course: Course) -> Batches:
    """Shuffle, crop and flip as examples/plain_loop.py does, batch by batch, on the CPU."""
    images, labels = course.stored
    count = len(images)
    shift, flip = torch.randint(-4, 5, (count, 2)), torch.rand(count) < 0.5
    scale, offset = torch.tensor(1 / 127.5), torch.tensor(-1.0)
    for batch in torch.randperm(count).split(course.batch_size):
        inputs = torch.addcmul(offset, move(images, batch, shift, flip).float(), scale).permute(0, 3, 1, 2)
        yield inputs.to(course.device), labels[batch].to(course.device)


def plain(course: Course) -> Spent:
    """Train in the loop of examples/plain_loop.py."""
    course.machine.apply()
    return measure_epochs(course, lambda: moved_batches(course), course.network(as_ours=True))


class Clocked:
    """Measures the last epoch from its start until its metrics are computed and logged, and no checkpoint."""

    last: ClassVar[Spent]
    _watch: Stopwatch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start when no thread writes any more."""
        super().on_train_epoch_start(trainer, pl_module)  # type: ignore[misc]
        before = -1.0
        while (now := time.process_time()) - before > QUIET_SECONDS / 10:
            before = now
            time.sleep(QUIET_SECONDS)
        self._watch = Stopwatch(pl_module.device.type)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop."""
        super().on_train_epoch_end(trainer, pl_module)  # type: ignore[misc]
        Clocked.last = self._watch.spent(0)


class ClockedRecorder(Clocked, Recorder):
    """Ours' last hook before the checkpoint of an epoch."""


class Clock(Clocked, Checkpoint):
    """Lightning's: a `Checkpoint`, so that it is called after the module."""


class Terminal(io.StringIO):
    """Looks like a terminal, on which bars are shown."""

    def isatty(self) -> bool:
        """Return that it is one."""
        return True

    def write(self, text: str, /) -> int:
        """Forget the text."""
        return len(text)


@contextlib.contextmanager
def on_terminal() -> Iterator[None]:
    """Show nothing, but compute all that is shown."""
    with contextlib.redirect_stdout(Terminal()), contextlib.redirect_stderr(Terminal()):
        yield


def ours(course: Course) -> Spent:
    """Train by `convolt.training.run.run` with all metrics, logs, checkpoints and the bar; its first epoch warms up."""
    with on_terminal(), patch("convolt.training.trainer.Recorder", ClockedRecorder):
        run(course.cfg, course.folder / "runs" / str(time.time_ns()))
    return Spent(len(course.stored[0]), Clocked.last.clock, Clocked.last.processor)


class AsTaught(pl.LightningModule):
    """A module as Lightning's pages have it: automatic optimization, metrics updated and logged at every step."""

    def __init__(self, course: Course) -> None:
        super().__init__()
        self.course = course
        self.network = course.network(as_ours=False)
        self.accuracy = MulticlassAccuracy(course.cfg.data.num_classes, average="micro")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss; log it and the accuracy."""
        images, targets = batch
        logits = self.network(images)
        loss = F.cross_entropy(logits, targets)
        self.accuracy(logits, targets)
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/accuracy", self.accuracy, prog_bar=True, on_step=True, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the optimizer."""
        return self.course.optimizer(self.network)


class Epochs(pl.LightningDataModule):
    """The batches of the plain loop: a few in the first epoch, which warms up, all in the second."""

    def __init__(self, course: Course) -> None:
        super().__init__()
        self.course = course

    def train_dataloader(self) -> Any:
        """Return the batches of the epoch that begins."""
        course = self.course
        length = -(-len(course.stored[0]) // course.batch_size)
        if self.trainer and self.trainer.current_epoch == 0:
            length = course.warm_up

        class Loader:
            def __len__(self) -> int:
                return length

            def __iter__(self) -> Batches:
                batches = moved_batches(course)
                return (next(batches) for _ in range(length))

        return Loader()


def lightning(course: Course) -> Spent:
    """Train by a Lightning Trainer with its defaults: bar, TensorBoard, checkpoint."""
    course.machine.apply()
    arguments = course.machine.trainer_arguments()
    with on_terminal(), silence_libraries():
        trainer = pl.Trainer(
            max_epochs=2,
            default_root_dir=course.folder,
            callbacks=[Clock(), ModelCheckpoint()],
            reload_dataloaders_every_n_epochs=1,
            **arguments,
        )
        trainer.fit(AsTaught(course), datamodule=Epochs(course))
    return Spent(len(course.stored[0]), Clocked.last.clock, Clocked.last.processor)


class SingleImages(Dataset[Any]):
    """One transformed image at a time."""

    def __init__(self, course: Course) -> None:
        from torchvision import transforms

        images, self.labels = course.stored
        self.images = images.numpy()
        side, channels = images.shape[2:]
        self.transform = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.RandomCrop(side, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize([0.5] * channels, [0.5] * channels),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


def usual(course: Course) -> Spent:
    """Train in a plain loop over a DataLoader of single images, with a worker for each further thread.

    The start and the end of the workers count, since their processor time is known when they have ended; on a GPU there
    are up to eight, for 51,200 images at most.
    """
    course.machine.apply()
    gpu = course.device == "cuda"
    workers = min(8, max(2, course.machine.threads)) if gpu else course.machine.threads - 1
    images = SingleImages(course)
    few = Subset(images, range(min(len(images), 51_200))) if gpu else images
    make = {"batch_size": course.batch_size, "shuffle": True, "pin_memory": gpu}
    network = course.network(as_ours=False)
    optimizer = course.optimizer(network)

    def batches(loader: DataLoader[Any]) -> Batches:
        for inputs, labels in loader:
            yield inputs.to(course.device, non_blocking=True), labels.to(course.device, non_blocking=True)

    warm_up = Subset(images, range(course.warm_up * course.batch_size))
    course.train(network, batches(DataLoader(warm_up, **make)), optimizer)
    watch = Stopwatch(course.device)
    seen = course.train(network, batches(DataLoader(few, num_workers=workers, **make)), optimizer)
    return watch.spent(seen)


CONTENDERS: dict[str, Callable[[Course], Spent]] = {
    "limit": limit, "ours": ours, "plain": plain, "usual": usual, "lightning": lightning
}  # fmt: skip


ALLOWED: set[int] = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
"""The cores that this process was given."""


def pin(threads: int) -> None:
    """Keep this process and those that it starts on so many cores, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(ALLOWED)[-threads:])
    torch.set_num_threads(threads)
