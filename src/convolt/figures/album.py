"""The pictures of a run: which there are, what each shows, and the numbers that go with it."""

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from convolt.data.module import ImageDataModule
from convolt.figures import activations, classes, confusion, curves
from convolt.figures.grid import Pixels, draw_rows
from convolt.figures.style import Sheet, to_bytes
from convolt.metrics.class_report import Report, format_percent, report_csv
from convolt.models.find_layers import find_default_layers, find_first_convolution
from convolt.runs.predictions import Predicted, PredictedMasks
from convolt.system.files import write_bytes, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPLITS = {"train": "training", "val": "validation", "test": "test"}
ACTIVATION_ROWS = 20
"""Classes of the sheet of activations."""

SHEET_COLUMNS = 10
"""Images of a row of the sheets that show the data."""


Predictions = TypeVar("Predictions", bound=Predicted | PredictedMasks)

ALBUMS = {
    "ClassificationTask": "convolt.figures.image_album.ImageAlbum",
    "SegmentationTask": "convolt.figures.mask_album.MaskAlbum",
}
"""The pictures of a task."""


@dataclass(frozen=True)
class Picture:
    """A figure and its numbers.

    Attributes:
        figure: The figure; None where there is nothing to show, such as no mistakes.
        data: Content of the files beside it, by their ending: "csv" or "json".
    """

    figure: "Figure | Sheet | None"
    data: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path, name: str) -> Path | None:
        """Write the files into a folder; return the PNG file, where there is one."""
        for form, text in self.data.items():
            write_text(folder / f"{name}.{form}", text)
        if self.figure is None:
            return None
        file = folder / f"{name}.png"
        write_bytes(file, to_bytes(self.figure))
        return file


@dataclass(eq=False)
class Album(ABC, Generic[Predictions]):
    """The pictures of one network at one time. Each is drawn when its function is called.

    Attributes:
        run: Names the run in every title.
        network: In evaluation, on its device.
        data: The run's.
        predicted: What the network predicts for a split.
        epochs: The rows of metrics.csv so far.
        tested_epoch: The epoch whose weights were tested; None before the end.
        layers: Whose activations are shown; None for the first convolution and the end of each stage.
        tsne: Whether the map shows t-SNE beside the principal components.
    """

    evaluation_pictures: ClassVar[tuple[str, ...]] = ("confusion_matrix", "confusion_counts", "classes")
    """The pictures of an evaluation."""

    bar_rates: ClassVar[tuple[str, ...]] = ("precision", "recall", "f1")
    """The figures of each class that are drawn as bars."""

    counted_unit: ClassVar[str] = "images"
    """What the confusion matrix counts."""

    curve_metric: ClassVar[tuple[str, str]] = ("accuracy", "accuracy")
    """The metric whose curve is drawn beside the loss, and its name there."""

    title_rate: ClassVar[tuple[str, str]] = ("f1", "F1")
    """The rate whose mean over classes is in a title, and its name there."""

    training_data: ClassVar[str] = "training images"
    """What a title calls the training data."""

    report_on: ClassVar[Callable[..., Report]]
    """Makes the report on the classes from a confusion matrix and the classes' names."""

    run: str
    network: nn.Module
    data: ImageDataModule
    predicted: Predictions
    epochs: Sequence[Mapping[str, float]]
    _: KW_ONLY
    tested_epoch: int | None = None
    layers: Sequence[str] | None = None
    tsne: bool = False

    def __post_init__(self) -> None:
        """Look up what every picture uses."""
        self.matrix = self.predicted.confusion_matrix
        self.classes = list(self.data.classes)
        self.indices = self.data.indices[self.predicted.split]
        self.parameter = next(self.network.parameters())

    @abstractmethod
    def task_pictures(self) -> dict[str, Callable[[], Picture]]:
        """Return what draws the pictures of this kind of task, by the name of its file."""

    @abstractmethod
    def draw_samples(self) -> Picture:
        """Draw training images as the network takes them."""

    @abstractmethod
    def training_images(self, places: NDArray[np.int64], epoch: int | None) -> list[Pixels]:
        """Return training images as they are augmented in an epoch, from 0; None: as they are stored."""

    @cached_property
    def class_report(self) -> Report:
        """The rates of each class and their averages (see `metrics.class_report`)."""
        return self.report_on(self.matrix, self.classes)

    @abstractmethod
    def first_of_each_class(self) -> list[NDArray[np.int64]]:
        """Return for each class the place of a predicted image of it, or nothing."""

    def pictures(self, *, final: bool) -> dict[str, Callable[[], Picture]]:
        """Return what draws each picture, by the name of its file; at the end also those of the data alone."""
        pictures: dict[str, Callable[[], Picture]] = {
            "confusion_matrix": self.draw_confusion_matrix,
            "confusion_counts": self.draw_confusion_counts,
            "classes": self.draw_class_rates,
            "curves": self.draw_curves,
            "activations": self.draw_activations,
            "filters": self.draw_filters,
        }
        of_data = {"samples": self.draw_samples, "augmented": self.draw_augmented}
        return pictures | self.task_pictures() | (of_data if final else {})

    def light_pictures(self) -> dict[str, Callable[[], Picture]]:
        """Return what draws the pictures that say how good the network is: those of an evaluation, and the curves."""
        wanted = {*self.evaluation_pictures, "curves"}
        return {name: draw for name, draw in self.pictures(final=False).items() if name in wanted}

    @cached_property
    def example(self) -> Tensor:
        """(1, C, H, W), an input of the network."""
        return self.inputs(np.zeros(1, np.int64))

    def inputs(self, places: NDArray[np.int64]) -> Tensor:
        """Return (B, C, H, W) as the network takes them, of places among the predicted images."""
        images = self.data.inputs(self.predicted.split, places, self.parameter.device)
        return images.to(self.parameter.dtype)

    def pixels(self, places: NDArray[np.int64]) -> list[Pixels]:
        """Return images as the network gets them, before their colors are standardized."""
        return self.data.pixels(self.inputs(places))

    def make_title(self, what: str, with_accuracy: bool = True) -> str:
        """Return two lines that name the run and what is shown."""
        accuracy = f", accuracy {format_percent(self.class_report['accuracy'])}" if with_accuracy else ""
        return f"{self.run}\n{what}{accuracy}"

    @property
    def split_phrase(self) -> str:
        """Which images a title is about, e.g. "of 10,000 test images"."""
        return f"of {len(self.predicted.targets):,} {SPLITS[self.predicted.split]} images"

    def draw_confusion_matrix(self) -> Picture:
        """Draw the shares of each true class."""
        title = self.make_title(f"confusion matrix {self.split_phrase}, by true class")
        head = ["true \\ predicted", *self.classes]
        rows = ([name, *row] for name, row in zip(self.classes, self.matrix.tolist(), strict=True))
        return Picture(confusion.draw_rates(self.matrix, self.classes, title), {"csv": csv_table(head, rows)})

    def draw_confusion_counts(self) -> Picture:
        """Draw the counts."""
        title = self.make_title(f"confusion matrix {self.split_phrase}, counts")
        return Picture(confusion.draw_counts(self.matrix, self.classes, title, self.counted_unit))

    def draw_class_rates(self) -> Picture:
        """Draw the rates of each class."""
        name, shown = self.title_rate
        macro = f"macro {shown} {format_percent(self.class_report['macro_average'][name])}"
        title = self.make_title(f"classes {self.split_phrase}: {macro}")
        figure = classes.draw_classes(self.class_report, title, self.bar_rates)
        return Picture(figure, {"csv": report_csv(self.class_report)})

    def draw_curves(self) -> Picture:
        """Draw loss, a metric and learning rate by epoch."""
        metric, shown = self.curve_metric
        names = ["epoch", "train/loss", "val/loss", f"train/{metric}", f"val/{metric}", "learning_rate"]
        rows = ([int(row["epoch"]), *(row.get(name, "") for name in names[1:])] for row in self.epochs)
        title = f"{self.run}\nloss, {shown} and learning rate by epoch"
        figure = curves.draw_curves(self.epochs, title, self.tested_epoch, self.curve_metric)
        return Picture(figure, {"csv": csv_table(names, rows)})

    def draw_activations(self) -> Picture:
        """Draw what layers put out for an image of each class."""
        found = self.first_of_each_class()
        first = [int(places[0]) for places in found if len(places)]
        # Of very many classes, some from the first to the last.
        chosen = np.array(first)[np.linspace(0, len(first) - 1, min(ACTIVATION_ROWS, len(first))).round().astype(int)]
        layers = list(self.layers) if self.layers is not None else find_default_layers(self.network, self.example)
        maps = activations.record_activations(self.network, self.inputs(chosen), layers)
        by_place = {int(p[0]): name for name, p in zip(self.classes, found, strict=True) if len(p)}
        names = [by_place[place] for place in chosen.tolist()]
        head = ["class", "index", "layer", "mean", "standard_deviation", "share_of_zeros"]
        rows = (
            (name, int(self.indices[place]), layer, float(v.mean()), float(v.std()), float((v == 0).mean()))
            for layer, values in maps.items()
            for name, place, v in zip(names, chosen, values, strict=True)
        )
        data = {"csv": csv_table(head, rows)}
        if not maps:
            return Picture(None, data)
        title = self.make_title(f"activations of one {SPLITS[self.predicted.split]} image of each class", False)
        return Picture(activations.draw_activations(self.pixels(chosen), names, maps, title), data)

    def draw_filters(self) -> Picture:
        """Draw the first convolution's weights."""
        name = find_first_convolution(self.network, [n for n, _ in self.network.named_modules() if n])
        if name is None:
            return Picture(None)
        weight: Any = self.network.get_submodule(name).weight
        weights = weight.detach().float().cpu().numpy()
        shape = " x ".join(map(str, weights.shape[2:]))
        title = self.make_title(f"filters of the first convolution: {name}, {len(weights)} of {shape}", False)
        data = {"layer": name, "shape": weights.shape, "weights": np.round(weights, 5).tolist()}
        return Picture(activations.draw_filters(weights, title), {"json": json.dumps(data) + "\n"})

    def draw_augmented(self) -> Picture:
        """Draw training images, raw and as the network got them in the first epochs."""
        places = self.first_training_images()
        epochs = range(min(4, len(self.epochs)))
        rows = {"raw": self.training_images(places, None)}
        rows |= {f"epoch {epoch + 1}": self.training_images(places, epoch) for epoch in epochs}
        names = ", ".join(type(one).__name__ for one in self.data.augmentation.transforms) or "none"
        title = f"{self.data.dataset.name}, {self.training_data}\naugmentation: {names}"
        return Picture(draw_rows(rows, title), self.columns_csv(places))

    def first_training_images(self) -> NDArray[np.int64]:
        """Return the places of the first training images."""
        return np.arange(min(SHEET_COLUMNS, len(self.data.indices["train"])))

    def columns_csv(self, places: NDArray[np.int64]) -> dict[str, str]:
        """Return which training image is in which column of a sheet."""
        return {"csv": csv_table(["column", "index"], enumerate(self.data.indices["train"][places].tolist()))}


def csv_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Write CSV."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()
