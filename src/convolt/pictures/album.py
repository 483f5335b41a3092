"""All pictures of a run: which there are, what each shows, and the numbers that go with it."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convolt.callbacks.predictions import Predicted
from convolt.data.module import ImageDataModule
from convolt.pictures import activations, classes, confusion, curves, gradcam, predictions, projection, samples
from convolt.pictures.grid import Pixels
from convolt.pictures.layers import default_layers, evidence_layer, first_convolution
from convolt.pictures.reliability import draw_reliability, reliability
from convolt.pictures.style import Sheet
from convolt.results.classification import classification_report, report_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPLITS = {"train": "training", "val": "validation", "test": "test"}
GRID = 40
"""Images of the sheets of right and of wrong predictions."""

EVIDENCE = 12
"""Images of each sheet of Grad-CAM."""

ROWS = 20
"""Classes of the sheet of activations."""


@dataclass(frozen=True)
class Picture:
    """A figure and its numbers.

    Attributes:
        figure: The figure; None where there is nothing to show, such as no mistakes.
        data: Content of the files beside it, by their ending: "csv" or "json".
    """

    figure: "Figure | Sheet | None"
    data: Mapping[str, str] = field(default_factory=dict)


class Album:
    """The pictures of one network at one time. Each is made when it is asked for.

    Args:
        run: Names the run in every title.
        network: In evaluation, on its device.
        data: The run's.
        predicted: What the network said about a split.
        rows: The epochs so far.
        tested: The epoch whose weights were tested; None before the end.
        layers: Whose activations are shown; None: chosen.
        tsne: Whether the map has a second half.
    """

    def __init__(
        self,
        run: str,
        network: nn.Module,
        data: ImageDataModule,
        predicted: Predicted,
        rows: Sequence[Mapping[str, float]],
        *,
        tested: int | None = None,
        layers: Sequence[str] | None = None,
        tsne: bool = True,
    ) -> None:
        self.run = run
        self.network = network
        self.data = data
        self.predicted = predicted
        self.rows = rows
        self.tested = tested
        self.layers = layers
        self.tsne = tsne
        self.classes = list(data.classes)
        self.indices = data.indices[predicted.split]
        self.parameter = next(network.parameters())

    def pictures(self, *, final: bool) -> dict[str, Callable[[], Picture]]:
        """Return what makes each picture, by the name of its file; the last ones show the data and need no network."""
        made: dict[str, Callable[[], Picture]] = {
            "confusion_matrix": self.confusion_matrix,
            "confusion_counts": self.confusion_counts,
            "classes": self.class_figures,
            "mistakes": self.mistakes,
            "right": self.right,
            "reliability": self.reliability,
            "curves": self.curves,
            "activations": self.activations,
            "filters": self.filters,
            "gradcam_mistakes": lambda: self.evidence(wrong=True),
            "gradcam_right": lambda: self.evidence(wrong=False),
        }
        if len(self.predicted.features) >= 4:
            made["map"] = self.map
        if final:
            made |= {"samples": self.samples, "augmented": self.augmented}
        return made

    @cached_property
    def report(self) -> dict[str, Any]:
        """The classification report."""
        return classification_report(self.matrix, self.classes)

    @cached_property
    def matrix(self) -> NDArray[np.int64]:
        """(K, K) counts by true and predicted class."""
        count = len(self.classes)
        guesses = self.predicted.probabilities.argmax(1)
        return np.bincount(self.predicted.targets * count + guesses, minlength=count**2).reshape(count, count)

    @cached_property
    def example(self) -> Tensor:
        """(1, C, H, W), an input of the network."""
        return self.inputs(np.zeros(1, np.int64))

    def inputs(self, places: NDArray[np.int64]) -> Tensor:
        """Return (B, C, H, W) as the network takes them, of places among the predicted images."""
        images = self.data.inputs(self.predicted.split, places, self.parameter.device)
        return images.to(self.parameter.dtype)

    def shown(self, places: NDArray[np.int64]) -> list[Pixels]:
        """Return images as the network sees them, before their colours are standardised."""
        return self.data.pixels(self.inputs(places))

    def title(self, what: str, with_accuracy: bool = True) -> str:
        """Return two lines that name the run and what is shown."""
        accuracy = f", accuracy {100 * self.report['accuracy']:.2f}%" if with_accuracy else ""
        return f"{self.run}\n{what}{accuracy}"

    @property
    def of_split(self) -> str:
        """Which images."""
        return f"of {len(self.predicted.targets):,} {SPLITS[self.predicted.split]} images"

    def confusion_matrix(self) -> Picture:
        """Shares of each true class."""
        title = self.title(f"confusion matrix {self.of_split}, by true class")
        head = ["true \\ predicted", *self.classes]
        rows = ([name, *row] for name, row in zip(self.classes, self.matrix.tolist(), strict=True))
        return Picture(confusion.draw_rates(self.matrix, self.classes, title), {"csv": table(head, rows)})

    def confusion_counts(self) -> Picture:
        """Counts."""
        return Picture(
            confusion.draw_counts(self.matrix, self.classes, self.title(f"confusion matrix {self.of_split}, counts"))
        )

    def class_figures(self) -> Picture:
        """Precision, recall and F1 of each class."""
        macro = f"macro F1 {100 * self.report['macro_average']['f1']:.2f}%"
        title = self.title(f"classes {self.of_split}: {macro}")
        return Picture(classes.draw_classes(self.report, title), {"csv": report_csv(self.report)})

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
        data = reliability(self.predicted.probabilities, self.predicted.targets)
        error = f"expected calibration error {100 * data['calibration_error']:.2f}%"
        title = self.title(f"reliability {self.of_split}\n{error}")
        return Picture(draw_reliability(data, title), {"json": json.dumps(data, indent=1) + "\n"})

    def curves(self) -> Picture:
        """Loss, accuracy and learning rate by epoch."""
        names = ["epoch", "train/loss", "val/loss", "train/accuracy", "val/accuracy", "learning_rate"]
        rows = ([int(row["epoch"]), *(row.get(name, "") for name in names[1:])] for row in self.rows)
        title = f"{self.run}\nloss, accuracy and learning rate by epoch"
        return Picture(curves.draw_curves(self.rows, title, self.tested), {"csv": table(names, rows)})

    def activations(self) -> Picture:
        """What layers answer to an image of each class."""
        first = [int(found[0]) for found in self._first_of_each_class() if len(found)]
        # Of very many classes, some from the first to the last.
        chosen = np.array(first)[np.linspace(0, len(first) - 1, min(ROWS, len(first))).round().astype(int)]
        layers = list(self.layers) if self.layers is not None else default_layers(self.network, self.example)
        maps = activations.activations(self.network, self.inputs(chosen), layers)
        names = [self.classes[label] for label in self.predicted.targets[chosen]]
        head = ["class", "index", "layer", "mean", "standard_deviation", "share_of_zeros"]
        rows = (
            (name, int(self.indices[place]), layer, float(v.mean()), float(v.std()), float((v == 0).mean()))
            for layer, values in maps.items()
            for name, place, v in zip(names, chosen, values, strict=True)
        )
        data = {"csv": table(head, rows)}
        if not maps:
            return Picture(None, data)
        title = self.title(f"activations of one {SPLITS[self.predicted.split]} image of each class", False)
        return Picture(activations.draw_activations(self.shown(chosen), names, maps, title), data)

    def filters(self) -> Picture:
        """The first convolution's weights."""
        name = first_convolution(self.network, [n for n, _ in self.network.named_modules() if n])
        if name is None:
            return Picture(None)
        weights = activations.first_filters(self.network, name)
        shape = " x ".join(map(str, weights.shape[2:]))
        title = self.title(f"filters of the first convolution: {name}, {len(weights)} of {shape}", False)
        data = {"layer": name, "shape": weights.shape, "weights": np.round(weights, 5).tolist()}
        return Picture(activations.draw_filters(weights, title), {"json": json.dumps(data) + "\n"})

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
        rounds = [self.data.pixels(self.data.augmented(places, epoch)) for epoch in range(min(4, len(self.rows)))]
        indices = self.data.indices["train"][places]
        data = {"csv": table(["column", "index"], enumerate(indices.tolist()))}
        names = ", ".join(type(one).__name__ for one in self.data.augmentation.transforms) or "none"
        title = f"{self.data.dataset.name}, training images\naugmentation: {names}"
        return Picture(samples.draw_augmented(raw, rounds, title), data)

    def _first_of_each_class(self) -> list[NDArray[np.int64]]:
        return samples.first_of_each_class(self.predicted.targets, len(self.classes), 1)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Write CSV."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()
