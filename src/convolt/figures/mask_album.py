"""The pictures of a run that labels every pixel."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from convolt.data.masks import MaskDataModule
from convolt.data.sources.base import IGNORED
from convolt.figures.album import Album, Picture, table
from convolt.figures.grid import Pixels, draw_grid
from convolt.figures.palette import colored, errors, overlay, with_legend
from convolt.figures.style import Sheet
from convolt.metrics.class_report import percent, segmentation_report
from convolt.runs.predictions import PredictedMasks

SHOWN = 12
"""Images of the sheets of the best and of the worst masks."""

SAMPLES = 10
"""Training images of the sheets that show the data."""


class MaskAlbum(Album[PredictedMasks]):
    """The pictures of one network at one time (see `Album`)."""

    evaluated: ClassVar[tuple[str, ...]] = (*Album.evaluated, "best", "worst")
    bars: ClassVar[tuple[str, ...]] = ("iou", "dice", "recall")
    counted: ClassVar[str] = "pixels"
    headline: ClassVar[tuple[str, str]] = ("dice", "Dice")
    curve: ClassVar[tuple[str, str]] = ("mean_iou", "mean IoU")

    def own(self) -> dict[str, Callable[[], Picture]]:
        """Return what makes the pictures of predictions."""
        return {"worst": lambda: self.ranked(worst=True), "best": lambda: self.ranked(worst=False)}

    def of_data(self) -> dict[str, Callable[[], Picture]]:
        """Return what makes the pictures of training images."""
        return {"samples": self.samples, "augmented": self.augmented}

    @cached_property
    def report(self) -> dict[str, Any]:
        """The report on the classes."""
        return segmentation_report(self.matrix, self.classes)

    def title(self, what: str, with_accuracy: bool = True) -> str:
        """Return two lines that name the run and what is shown."""
        iou = f", mean IoU {percent(self.report['macro_average']['iou'])}" if with_accuracy else ""
        return f"{self.run}\n{what}{iou}"

    def ranked(self, *, worst: bool) -> Picture:
        """The images with the lowest, or the highest, mean IoU: image, truth, prediction and errors."""
        p, scores = self.predicted, self.predicted.mean_iou()
        order = np.argsort(scores if worst else -scores, kind="stable")
        places = order[np.isfinite(scores[order])][:SHOWN]
        matrices = p.matrices
        head = ["index", "mean_iou", "accuracy", *(f"iou_{name}" for name in self.classes)]
        rows = []
        for place in places:
            matrix = matrices[place]
            each = segmentation_report(matrix, self.classes)
            ious = ["" if row["iou"] is None else row["iou"] for row in each["per_class"]]
            rows.append([int(self.indices[place]), float(scores[place]), each["accuracy"], *ious])
        data = {"csv": table(head, rows)}
        if not len(places):
            return Picture(None, data)
        tiles: list[Pixels] = []
        captions: list[str] = []
        for place, image in zip(places, self.shown(places), strict=True):
            mask, target = p.masks[place], p.targets[place]
            tiles += [
                np.broadcast_to(image, (*mask.shape, 3)),
                overlay(image, target),
                overlay(image, mask),
                errors(mask, target),
            ]
            captions += [
                f"image {int(self.indices[place])}",
                "truth",
                f"IoU {100 * scores[place]:.1f}%",
                "wrong: black",
            ]
        what = f"{'lowest' if worst else 'highest'} mean IoU {self.of_split}"
        sheet = draw_grid(tiles, self.title(what), columns=8, captions=captions, side=120, gap=8)
        there = np.unique(np.concatenate([p.masks[places], p.targets[places]]))
        return Picture(with_legend(sheet, self._named(there)), data)

    def _named(self, labels: Sequence[int] | NDArray[np.uint8]) -> list[tuple[int, str]]:
        """Return labels with their names."""
        return [(int(k), "ignored" if k == IGNORED else self.classes[int(k)]) for k in labels]

    def first_of_each_class(self) -> list[NDArray[np.int64]]:
        """Return for each class the place of the image with most pixels of it, or nothing."""
        pixels = self.predicted.matrices.sum(2)
        return [np.array([column.argmax()] if column.any() else [], np.int64) for column in pixels.T]

    @property
    def masked(self) -> MaskDataModule:
        """The run's data."""
        assert isinstance(self.data, MaskDataModule)
        return self.data

    def samples(self) -> Picture:
        """Training images with their masks."""
        places = np.arange(min(SAMPLES, len(self.data.indices["train"])))
        images = self.data.pixels(self.data.inputs("train", places, "cpu"))
        masks = self.masked.targets("train", places)
        count = len(self.data.indices["train"])
        title = f"{self.data.dataset.name}: {count:,} training images, {len(self.classes)} classes"
        sheet = _rows(
            {
                "image": images,
                "mask": [colored(mask) for mask in masks],
                "overlay": [overlay(image, mask) for image, mask in zip(images, masks, strict=True)],
            },
            f"{title}\nsamples, as the network takes them",
        )
        indices = self.data.indices["train"][places]
        data = {"csv": table(["column", "index"], enumerate(indices.tolist()))}
        return Picture(with_legend(sheet, self._named(np.unique(masks))), data)

    def augmented(self) -> Picture:
        """Training images with their masks, raw and as the network saw them in the first epochs."""
        places = np.arange(min(SAMPLES, len(self.data.indices["train"])))
        raw = self.data.pixels(self.data.inputs("train", places, "cpu"))
        rows = {"raw": self._over(raw, self.masked.targets("train", places))}
        for epoch in range(min(4, len(self.rows))):
            images, targets = self.data.augmented(places, epoch)
            rows[f"epoch {epoch + 1}"] = self._over(self.data.pixels(images), targets.to(torch.uint8).numpy())
        names = ", ".join(type(one).__name__ for one in self.data.augmentation.transforms) or "none"
        title = f"{self.data.dataset.name}, training images with their masks\naugmentation: {names}"
        indices = self.data.indices["train"][places]
        return Picture(_rows(rows, title), {"csv": table(["column", "index"], enumerate(indices.tolist()))})

    @staticmethod
    def _over(images: Sequence[Pixels], masks: NDArray[np.uint8]) -> list[Pixels]:
        return [overlay(image, mask) for image, mask in zip(images, masks, strict=True)]


def _rows(rows: dict[str, list[Pixels]], title: str) -> Sheet:
    """Draw rows of images, each with its name."""
    flat = [np.broadcast_to(image, (*image.shape[:2], 3)) for images in rows.values() for image in images]
    columns = max(len(images) for images in rows.values())
    return draw_grid(flat, title, columns=columns, row_labels=list(rows), side=96)
