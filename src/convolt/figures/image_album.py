"""The pictures of a run that labels whole images."""

import json
from collections.abc import Callable
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from convolt.figures.album import SPLITS, Album, Picture, table
from convolt.figures.gradcam import draw_grad_cam, grad_cam
from convolt.figures.grid import Pixels, draw_grid
from convolt.figures.predictions import caption_of, hits, mistakes
from convolt.figures.projection import draw_projection, pca, tsne
from convolt.figures.reliability import draw_reliability, reliability
from convolt.figures.samples import MANY, draw_samples
from convolt.metrics.class_report import classification_report
from convolt.models.layers import gradcam_layer
from convolt.runs.predictions import Predicted

GRID = 40
"""Images of the sheets of right and of wrong predictions."""

EVIDENCE = 12
"""Images of each sheet of Grad-CAM."""


class ImageAlbum(Album[Predicted]):
    """The pictures of one network at one time (see `Album`)."""

    evaluated: ClassVar[tuple[str, ...]] = (*Album.evaluated, "mistakes", "reliability")

    def own(self) -> dict[str, Callable[[], Picture]]:
        """Return what makes the pictures of predictions."""
        made: dict[str, Callable[[], Picture]] = {
            "mistakes": self.mistakes,
            "right": self.right,
            "reliability": self.reliability,
            "gradcam_mistakes": lambda: self.evidence(wrong=True),
            "gradcam_right": lambda: self.evidence(wrong=False),
        }
        if len(self.predicted.features) >= 4:
            made["map"] = self.map
        return made

    @cached_property
    def report(self) -> dict[str, Any]:
        """The classification report."""
        return classification_report(self.matrix, self.classes)

    def mistakes(self) -> Picture:
        """The most confident mistakes."""
        places = mistakes(self.predicted.probabilities, self.predicted.targets, GRID)
        total = len(self.predicted.targets) - int(self.matrix.trace())
        return self._sheet(places, f"most confident of {total:,} mistakes {self.of_split}")

    def right(self) -> Picture:
        """Right predictions of every class."""
        places = hits(self.predicted.probabilities, self.predicted.targets, GRID)
        return self._sheet(places, f"most confident right predictions of each class, {self.of_split}")

    def _sheet(self, places: NDArray[np.int64], what: str) -> Picture:
        data = {"csv": self._listed(places)}
        if not len(places):
            return Picture(None, data)
        columns, captions = min(8, max(4, len(places))), self._captions(places)
        return Picture(
            draw_grid(self.shown(places), self.title(what), columns=columns, captions=captions, side=120, gap=12), data
        )

    def _captions(self, places: NDArray[np.int64]) -> list[str]:
        """Return each image's true class, predicted class and confidence."""
        p, predicted = self.predicted, self.predicted.probabilities.argmax(1)
        return [
            caption_of(self.classes[p.targets[k]], self.classes[predicted[k]], float(p.probabilities[k].max()))
            for k in places
        ]

    def _listed(self, places: NDArray[np.int64]) -> str:
        """Return images with their predictions as CSV; the index is that in the stored array of the split."""
        p, predicted = self.predicted, self.predicted.probabilities.argmax(1)
        head = ["index", "true", "predicted", "confidence", "probability_of_true"]
        rows = (
            (
                int(self.indices[k]),
                self.classes[p.targets[k]],
                self.classes[predicted[k]],
                float(p.probabilities[k].max()),
                float(p.probabilities[k, p.targets[k]]),
            )
            for k in places
        )
        return table(head, rows)

    def reliability(self) -> Picture:
        """Accuracy by confidence."""
        data = reliability(self.predicted.probabilities, self.predicted.targets, self.predicted.calibration_error)
        error = f"expected calibration error {100 * data['calibration_error']:.2f}%"
        title = self.title(f"reliability {self.of_split}\n{error}")
        return Picture(draw_reliability(data, title), {"json": json.dumps(data, indent=1) + "\n"})

    def evidence(self, *, wrong: bool) -> Picture:
        """Grad-CAM of mistakes, or of right predictions."""
        choose = mistakes if wrong else hits
        p, layer = self.predicted, gradcam_layer(self.network, self.example)
        places = choose(p.probabilities, p.targets, EVIDENCE)
        if layer is None or not len(places):
            return Picture(None)
        images, predicted = self.inputs(places), p.probabilities.argmax(1)
        labels = [predicted[places], p.targets[places]] if wrong else [predicted[places]]
        found = [grad_cam(self.network, images, torch.from_numpy(each).to(images.device), layer) for each in labels]
        what = "mistakes" if wrong else "right predictions"
        title = self.title(f"Grad-CAM of {what} {self.of_split}, at {layer}", False)
        maps = list(zip(*found, strict=True))
        captions = [caption.replace("\n", ", ") for caption in self._captions(places)]
        sheet = draw_grad_cam(self.data.pixels(images), maps, captions, title)
        return Picture(sheet, {"csv": self._listed(places)})

    def map(self) -> Picture:
        """Images by their features in the last hidden layer."""
        p = self.predicted
        flat, share = pca(p.features, 2)
        flat = np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
        columns = {"pca": flat} | ({"tsne": tsne(p.features)} if self.tsne else {})
        titles = (f"PCA, {100 * share.sum():.0f}% of the variance", "t-SNE")
        labels = p.targets[p.places]
        head = ["index", "class", "predicted", *(f"{name}_{axis}" for name in columns for axis in (1, 2))]
        guesses = p.probabilities.argmax(1)[p.places]
        rows = (
            (int(self.indices[k]), self.classes[label], self.classes[guess], *(float(x) for x in points))
            for k, label, guess, points in zip(p.places, labels, guesses, np.hstack([*columns.values()]), strict=True)
        )
        size = f"{len(labels):,} {SPLITS[p.split]} images"
        title = self.title(f"the last hidden layer's {p.features.shape[1]} numbers of {size}, by true class")
        maps = dict(zip(titles, columns.values(), strict=False))
        return Picture(draw_projection(maps, labels, self.classes, title), {"csv": table(head, rows)})

    def samples(self) -> Picture:
        """Training images of every class."""
        count = 10 if len(self.classes) <= MANY else 3
        labels = self.data.labels("train")
        places = _first_of_each_class(labels, len(self.classes), count)
        images = iter(self.data.pixels(self.data.inputs("train", np.concatenate(places), "cpu")))
        by_class = [list(islice(images, len(found))) for found in places]
        indices = self.data.indices["train"]
        rows = ((name, int(indices[k])) for name, found in zip(self.classes, places, strict=True) for k in found)
        title = f"{self.data.dataset.name}: {len(labels):,} training images, {len(self.classes)} classes"
        sheet = draw_samples(by_class, self.classes, f"{title}\nsamples of every class, as the network takes them")
        return Picture(sheet, {"csv": table(["class", "index"], rows)})

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
