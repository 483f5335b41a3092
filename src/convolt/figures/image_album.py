"""The pictures of a run that labels whole images."""

import json
from collections.abc import Callable
from itertools import islice
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from convolt.figures.album import SPLITS, Album, Picture, csv_table
from convolt.figures.gradcam import draw_grad_cam, grad_cam
from convolt.figures.grid import Pixels, draw_grid
from convolt.figures.predictions import find_hits, find_mistakes, make_caption
from convolt.figures.projection import draw_projection, pca, tsne
from convolt.figures.reliability import bin_by_confidence, draw_reliability
from convolt.figures.samples import MAX_CLASS_ROWS, draw_samples
from convolt.metrics.class_report import Report, classification_report
from convolt.models.find_layers import find_gradcam_layer
from convolt.runs.predictions import Predicted

SHEET_IMAGES = 40
"""Images of the sheets of right and of wrong predictions."""

GRAD_CAM_IMAGES = 12
"""Images of each sheet of Grad-CAM."""


class ImageAlbum(Album[Predicted]):
    """The pictures of one network at one time (see `Album`)."""

    evaluation_pictures: ClassVar[tuple[str, ...]] = (*Album.evaluation_pictures, "mistakes", "reliability")
    report_on: ClassVar[Callable[..., Report]] = staticmethod(classification_report)

    def task_pictures(self) -> dict[str, Callable[[], Picture]]:
        """Return what draws the pictures of predictions."""
        pictures: dict[str, Callable[[], Picture]] = {
            "mistakes": self.draw_mistakes,
            "right": self.draw_right_predictions,
            "reliability": self.draw_reliability,
            "gradcam_mistakes": lambda: self.draw_grad_cam(wrong=True),
            "gradcam_right": lambda: self.draw_grad_cam(wrong=False),
        }
        if len(self.predicted.features) >= 4:
            pictures["map"] = self.draw_projection
        return pictures

    def draw_mistakes(self) -> Picture:
        """Draw the most confident mistakes."""
        places = find_mistakes(self.predicted.probabilities, self.predicted.targets, SHEET_IMAGES)
        total = len(self.predicted.targets) - int(self.matrix.trace())
        return self._draw_sheet(places, f"most confident of {total:,} mistakes {self.split_phrase}")

    def draw_right_predictions(self) -> Picture:
        """Draw right predictions of every class."""
        places = find_hits(self.predicted.probabilities, self.predicted.targets, SHEET_IMAGES)
        return self._draw_sheet(places, f"most confident right predictions of each class, {self.split_phrase}")

    def _draw_sheet(self, places: NDArray[np.int64], what: str) -> Picture:
        captions, data = self._describe_predictions(places)
        if not len(places):
            return Picture(None, data)
        columns, title = min(8, max(4, len(places))), self.make_title(what)
        sheet = draw_grid(self.pixels(places), title, columns=columns, captions=captions, side=120, gap=12)
        return Picture(sheet, data)

    def _describe_predictions(self, places: NDArray[np.int64]) -> tuple[list[str], dict[str, str]]:
        """Return images' captions, and their predictions as CSV; the index is that in the split's stored array."""
        rows = []
        for place, probabilities in zip(places, self.predicted.probabilities[places], strict=True):
            true, predicted = self.predicted.targets[place], probabilities.argmax()
            names = self.classes[true], self.classes[predicted]
            rows.append((int(self.indices[place]), *names, float(probabilities[predicted]), float(probabilities[true])))
        head = ["index", "true", "predicted", "confidence", "probability_of_true"]
        return [make_caption(*row[1:4]) for row in rows], {"csv": csv_table(head, rows)}

    def draw_reliability(self) -> Picture:
        """Draw accuracy by confidence."""
        data = bin_by_confidence(self.predicted.probabilities, self.predicted.targets, self.predicted.calibration_error)
        error = f"expected calibration error {100 * data['calibration_error']:.2f}%"
        title = self.make_title(f"reliability {self.split_phrase}\n{error}")
        return Picture(draw_reliability(data, title), {"json": json.dumps(data, indent=1) + "\n"})

    def draw_grad_cam(self, *, wrong: bool) -> Picture:
        """Draw Grad-CAM of mistakes, or of right predictions."""
        choose = find_mistakes if wrong else find_hits
        p, layer = self.predicted, find_gradcam_layer(self.network, self.example)
        places = choose(p.probabilities, p.targets, GRAD_CAM_IMAGES)
        if layer is None or not len(places):
            return Picture(None)
        images, captions, data = self.inputs(places), *self._describe_predictions(places)
        labels = [p.probabilities[places].argmax(1), *([p.targets[places]] if wrong else [])]
        found = [grad_cam(self.network, images, torch.from_numpy(each).to(images.device), layer) for each in labels]
        what = "mistakes" if wrong else "right predictions"
        title = self.make_title(f"Grad-CAM of {what} {self.split_phrase}, at {layer}", False)
        maps = list(zip(*found, strict=True))
        captions = [caption.replace("\n", ", ") for caption in captions]
        return Picture(draw_grad_cam(self.data.pixels(images), maps, captions, title), data)

    def draw_projection(self) -> Picture:
        """Draw images by their features in the last hidden layer."""
        p = self.predicted
        flat, share = pca(p.features, 2)
        flat = np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
        columns = {"pca": flat} | ({"tsne": tsne(p.features)} if self.tsne else {})
        titles = (f"PCA, {100 * share.sum():.0f}% of the variance", "t-SNE")
        labels = p.targets[p.places]
        head = ["index", "class", "predicted", *(f"{name}_{axis}" for name in columns for axis in (1, 2))]
        predicted = p.probabilities[p.places].argmax(1)
        rows = (
            (int(self.indices[k]), self.classes[label], self.classes[guess], *(float(x) for x in points))
            for k, label, guess, points in zip(p.places, labels, predicted, np.hstack([*columns.values()]), strict=True)
        )
        size = f"{len(labels):,} {SPLITS[p.split]} images"
        title = self.make_title(f"the last hidden layer's {p.features.shape[1]} numbers of {size}, by true class")
        maps = dict(zip(titles, columns.values(), strict=False))
        return Picture(draw_projection(maps, labels, self.classes, title), {"csv": csv_table(head, rows)})

    def draw_samples(self) -> Picture:
        """Draw training images of every class."""
        count = 10 if len(self.classes) <= MAX_CLASS_ROWS else 3
        labels = self.data.labels("train")
        places = _first_of_each_class(labels, len(self.classes), count)
        images = iter(self.data.pixels(self.data.inputs("train", np.concatenate(places), "cpu")))
        by_class = [list(islice(images, len(found))) for found in places]
        indices = self.data.indices["train"]
        rows = ((name, int(indices[k])) for name, found in zip(self.classes, places, strict=True) for k in found)
        title = f"{self.data.dataset.name}: {len(labels):,} training images, {len(self.classes)} classes"
        sheet = draw_samples(by_class, self.classes, f"{title}\nsamples of every class, as the network takes them")
        return Picture(sheet, {"csv": csv_table(["class", "index"], rows)})

    def training_images(self, places: NDArray[np.int64], epoch: int | None) -> list[Pixels]:
        """Return training images (see `Album`)."""
        if epoch is None:
            return self.data.pixels(self.data.inputs("train", places, "cpu"))
        return self.data.pixels(self.data.augmented(places, epoch)[0])

    def first_of_each_class(self) -> list[NDArray[np.int64]]:
        """Return for each class the place of its first image, or nothing."""
        return _first_of_each_class(self.predicted.targets, len(self.classes), 1)


def _first_of_each_class(labels: NDArray[np.int64], num_classes: int, count: int) -> list[NDArray[np.int64]]:
    """Return for each class the places of its first `count` images; fewer where it has fewer."""
    return [np.flatnonzero(labels == label)[:count] for label in range(num_classes)]
