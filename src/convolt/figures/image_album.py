"""The pictures of a run that labels whole images."""

import json
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from convolt.figures import gradcam, predictions, projection, samples
from convolt.figures.album import SPLITS, Album, Picture, table
from convolt.figures.reliability import draw_reliability, reliability
from convolt.metrics.class_report import classification_report
from convolt.models.layers import evidence_layer
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

    def of_data(self) -> dict[str, Callable[[], Picture]]:
        """Return what makes the pictures of training images."""
        return {"samples": self.samples, "augmented": self.augmented}

    @cached_property
    def report(self) -> dict[str, Any]:
        """The classification report."""
        return classification_report(self.matrix, self.classes)

    def mistakes(self) -> Picture:
        """The most confident mistakes."""
        places = predictions.mistakes(self.predicted.probabilities, self.predicted.targets, GRID)
        total = len(self.predicted.targets) - int(self.matrix.trace())
        return self._sheet(places, f"most confident of {total:,} mistakes {self.of_split}")

    def right(self) -> Picture:
        """Right predictions of every class."""
        places = predictions.hits(self.predicted.probabilities, self.predicted.targets, GRID)
        return self._sheet(places, f"most confident right predictions of each class, {self.of_split}")

    def _sheet(self, places: NDArray[np.int64], what: str) -> Picture:
        p = self.predicted
        data = {"csv": self._listed(places)}
        if not len(places):
            return Picture(None, data)
        title = self.title(what)
        return Picture(
            predictions.draw_predictions(self.shown(places), places, p.probabilities, p.targets, self.classes, title),
            data,
        )

    def _listed(self, places: NDArray[np.int64]) -> str:
        """Write images with what they were taken for, as CSV; the index is that in the stored array of the split."""
        p, guesses = self.predicted, self.predicted.probabilities.argmax(1)
        head = ["index", "true", "predicted", "confidence", "probability_of_true"]
        rows = (
            (
                int(self.indices[k]),
                self.classes[p.targets[k]],
                self.classes[guesses[k]],
                float(p.probabilities[k, guesses[k]]),
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
        choose = predictions.mistakes if wrong else predictions.hits
        p, layer = self.predicted, evidence_layer(self.network, self.example)
        places = choose(p.probabilities, p.targets, EVIDENCE)
        if layer is None or not len(places):
            return Picture(None)
        images, guesses = self.inputs(places), p.probabilities.argmax(1)
        found = []
        for labels in (guesses[places], p.targets[places]) if wrong else (guesses[places],):
            found.append(gradcam.grad_cam(self.network, images, torch.from_numpy(labels).to(images.device), layer))
        captions = [
            predictions.caption(
                self.classes[p.targets[k]], self.classes[guesses[k]], float(p.probabilities[k, guesses[k]])
            ).replace("\n", ", ")
            for k in places
        ]
        what = "mistakes" if wrong else "right predictions"
        title = self.title(f"Grad-CAM of {what} {self.of_split}, at {layer}", False)
        maps = list(zip(*found, strict=True))
        return Picture(
            gradcam.draw_grad_cam(self.data.pixels(images), maps, captions, title), {"csv": self._listed(places)}
        )

    def map(self) -> Picture:
        """Images by what the last hidden layer makes of them."""
        p = self.predicted
        flat, share = projection.pca(p.features, 2)
        flat = np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
        halves = {f"PCA, {100 * share.sum():.0f}% of the variance": flat}
        columns = {"pca": flat}
        if self.tsne:
            columns["tsne"] = projection.tsne(p.features)
            halves["t-SNE"] = columns["tsne"]
        labels = p.targets[p.places]
        head = ["index", "class", "predicted", *(f"{name}_{axis}" for name in columns for axis in (1, 2))]
        guesses = p.probabilities.argmax(1)[p.places]
        rows = (
            (int(self.indices[k]), self.classes[label], self.classes[guess], *(float(x) for x in points))
            for k, label, guess, points in zip(
                p.places, labels, guesses, np.hstack(list(columns.values())), strict=True
            )
        )
        size = f"{len(labels):,} {SPLITS[p.split]} images"
        title = self.title(f"the last hidden layer's {p.features.shape[1]} numbers of {size}, by true class")
        return Picture(projection.draw_projection(halves, labels, self.classes, title), {"csv": table(head, rows)})

    def samples(self) -> Picture:
        """Training images of every class."""
        count = 10 if len(self.classes) <= samples.MANY else 3
        labels = self.data.labels("train")
        places = samples.first_of_each_class(labels, len(self.classes), count)
        images = self.data.pixels(self.data.inputs("train", np.concatenate(places), "cpu"))
        by_class, start = [], 0
        for found in places:
            by_class.append(images[start : start + len(found)])
            start += len(found)
        indices = self.data.indices["train"]
        rows = ((name, int(indices[k])) for name, found in zip(self.classes, places, strict=True) for k in found)
        title = f"{self.data.dataset.name}: {len(labels):,} training images, {len(self.classes)} classes"
        return Picture(
            samples.draw_samples(by_class, self.classes, f"{title}\nsamples of every class, as the network takes them"),
            {"csv": table(["class", "index"], rows)},
        )

    def augmented(self) -> Picture:
        """Training images, raw and as the network saw them in the first epochs."""
        places = np.arange(min(10, len(self.data.indices["train"])))
        raw = self.data.pixels(self.data.inputs("train", places, "cpu"))
        rounds = [self.data.pixels(self.data.augmented(places, epoch)[0]) for epoch in range(min(4, len(self.rows)))]
        indices = self.data.indices["train"][places]
        data = {"csv": table(["column", "index"], enumerate(indices.tolist()))}
        names = ", ".join(type(one).__name__ for one in self.data.augmentation.transforms) or "none"
        title = f"{self.data.dataset.name}, training images\naugmentation: {names}"
        return Picture(samples.draw_augmented(raw, rounds, title), data)

    def first_of_each_class(self) -> list[NDArray[np.int64]]:
        """Return for each class the place of its first image, or nothing."""
        return samples.first_of_each_class(self.predicted.targets, len(self.classes), 1)
