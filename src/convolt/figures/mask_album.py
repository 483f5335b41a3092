"""The pictures of a run that labels every pixel."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from convolt.data.masks import MaskDataModule
from convolt.data.sources.base import IGNORED
from convolt.figures.album import Album, Picture, csv_table
from convolt.figures.grid import Pixels, draw_grid, draw_rows, to_color
from convolt.figures.palette import add_legend, color_mask, draw_errors, overlay
from convolt.metrics.class_report import Report, format_percent, segmentation_report
from convolt.runs.predictions import PredictedMasks

RANKED_IMAGES = 12
"""Images of the sheets of the best and of the worst masks."""


class MaskAlbum(Album[PredictedMasks]):
    """The pictures of one network at one time (see `Album`)."""

    evaluation_pictures: ClassVar[tuple[str, ...]] = (*Album.evaluation_pictures, "best", "worst")
    report_on: ClassVar[Callable[..., Report]] = staticmethod(segmentation_report)
    bar_rates: ClassVar[tuple[str, ...]] = ("iou", "dice", "recall")
    counted_unit: ClassVar[str] = "pixels"
    title_rate: ClassVar[tuple[str, str]] = ("dice", "Dice")
    curve_metric: ClassVar[tuple[str, str]] = ("mean_iou", "mean IoU")
    training_data: ClassVar[str] = "training images with their masks"
    data: MaskDataModule

    def task_pictures(self) -> dict[str, Callable[[], Picture]]:
        """Return what draws the pictures of predictions."""
        return {"worst": lambda: self.draw_ranked(worst=True), "best": lambda: self.draw_ranked(worst=False)}

    def make_title(self, what: str, with_accuracy: bool = True) -> str:
        """Return two lines that name the run and what is shown."""
        iou = f", mean IoU {format_percent(self.class_report['macro_average']['iou'])}" if with_accuracy else ""
        return f"{self.run}\n{what}{iou}"

    def draw_ranked(self, *, worst: bool) -> Picture:
        """Draw the images with the lowest, or the highest, mean IoU: image, truth, prediction and errors."""
        p, scores = self.predicted, self.predicted.mean_iou()
        order = np.argsort(scores if worst else -scores, kind="stable")
        places = order[np.isfinite(scores[order])][:RANKED_IMAGES]
        matrices = p.matrices
        head = ["index", "mean_iou", "accuracy", *(f"iou_{name}" for name in self.classes)]
        rows = []
        for place in places:
            matrix = matrices[place]
            each = segmentation_report(matrix, self.classes)
            ious = ["" if row["iou"] is None else row["iou"] for row in each["per_class"]]
            rows.append([int(self.indices[place]), float(scores[place]), each["accuracy"], *ious])
        data = {"csv": csv_table(head, rows)}
        if not len(places):
            return Picture(None, data)
        tiles: list[Pixels] = []
        captions: list[str] = []
        for place, image in zip(places, self.pixels(places), strict=True):
            mask, target = p.masks[place], p.targets[place]
            tiles += [to_color(image), overlay(image, target), overlay(image, mask), draw_errors(mask, target)]
            captions += [f"image {self.indices[place]}", "truth", f"IoU {100 * scores[place]:.1f}%", "wrong: black"]
        what = f"{'lowest' if worst else 'highest'} mean IoU {self.split_phrase}"
        sheet = draw_grid(tiles, self.make_title(what), columns=8, captions=captions, side=120, gap=8)
        labels = np.unique(np.concatenate([p.masks[places], p.targets[places]]))
        return Picture(add_legend(sheet, self._label_names(labels)), data)

    def _label_names(self, labels: Sequence[int] | NDArray[np.uint8]) -> list[tuple[int, str]]:
        """Return labels with their names."""
        return [(int(k), "ignored" if k == IGNORED else self.classes[int(k)]) for k in labels]

    def first_of_each_class(self) -> list[NDArray[np.int64]]:
        """Return for each class the place of the image with most pixels of it, or nothing."""
        pixels = self.predicted.matrices.sum(2)
        return [np.array([column.argmax()] if column.any() else [], np.int64) for column in pixels.T]

    def draw_samples(self) -> Picture:
        """Draw training images with their masks."""
        places = self.first_training_images()
        masks = self.data.targets("train", places)
        rows = {
            "image": [to_color(image) for image in self.data.pixels(self.data.inputs("train", places, "cpu"))],
            "mask": [color_mask(mask) for mask in masks],
            "overlay": self.training_images(places, None),
        }
        count = len(self.data.indices["train"])
        title = f"{self.data.dataset.name}: {count:,} training images, {len(self.classes)} classes"
        sheet = draw_rows(rows, f"{title}\nsamples, as the network takes them")
        return Picture(add_legend(sheet, self._label_names(np.unique(masks))), self.columns_csv(places))

    def training_images(self, places: NDArray[np.int64], epoch: int | None) -> list[Pixels]:
        """Return training images under their masks (see `Album`)."""
        if epoch is None:
            images, masks = self.data.inputs("train", places, "cpu"), self.data.targets("train", places)
        else:
            images, targets = self.data.augmented(places, epoch)
            masks = targets.to(torch.uint8).numpy()
        return [overlay(image, mask) for image, mask in zip(self.data.pixels(images), masks, strict=True)]
