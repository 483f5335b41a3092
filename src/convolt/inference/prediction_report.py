"""What `predict.py` reports of images: the most likely classes of each."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from convolt.errors import printable
from convolt.system.terminal import table_width

if TYPE_CHECKING:
    from convolt.inference.trained import TrainedRun


@dataclass(frozen=True)
class FilePrediction:
    """The prediction of a file, or why there is none.

    Attributes:
        file: The file.
        probabilities: (K,), or (K, H, W) where every pixel has its own; None where the file is no image.
        error: Why not.
    """

    file: Path
    probabilities: NDArray[np.float32] | None
    error: str = ""


REPORTS = {
    "ClassificationTask": "convolt.inference.prediction_report.ClassPredictionReport",
    "SegmentationTask": "convolt.inference.mask_report.MaskPredictionReport",
}
"""What `predict.py` reports of images, by task."""


class PredictionReport(ABC):
    """Takes the predictions of images one by one, and reports them.

    Args:
        run: The run.
        top: Number of classes shown of each image.
        output: The folder for files, where there are any; None: RUN_DIR/predictions.
    """

    score: ClassVar[str] = "probability"
    """What the number of a class is called in JSON."""

    columns: ClassVar[tuple[str, ...]] = ("image", "class", "probability")
    """Of the table: the image, its classes and their numbers, and the files that are shown."""

    def __init__(self, run: "TrainedRun", top: int, output: Path | None) -> None:
        self.run = run
        self.top = top
        self.folder = output or run.folder / "predictions"
        self.skipped: list[FilePrediction] = []
        self._rows: list[tuple[Path, list[tuple[str, float]], dict[str, Path]]] = []

    def add(self, prediction: FilePrediction) -> None:
        """Add the prediction of a file."""
        if prediction.probabilities is None:
            self.skipped.append(prediction)
        else:
            self._add(prediction.file, prediction.probabilities)

    @abstractmethod
    def _add(self, file: Path, probabilities: NDArray[np.float32]) -> None:
        """Take the prediction of an image."""

    def document(self) -> dict[str, Any]:
        """Return all of it, for JSON."""
        predictions = [
            {
                "file": printable(file),
                "top": [{"class": name, self.score: share} for name, share in best],
                **{kind: printable(path) for kind, path in images.items()},
            }
            for file, best, images in self._rows
        ]
        return {
            "run": printable(self.run.folder),
            "classes": self.run.input_spec.classes,
            "predictions": predictions,
            "skipped": [{"file": printable(each.file), "error": printable(each.error)} for each in self.skipped],
        }

    def show(self) -> None:
        """Print the table, where it has rows."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        number: dict[str, Any] = {"justify": "right", "no_wrap": True}
        for place, name in enumerate(self.columns):
            table.add_column(name, **(number if place == 2 else {"overflow": "fold"}))
        for file, best, images in self._rows:
            table.add_row(
                Text(printable(file)),
                Text("\n".join(name for name, _ in best)),
                "\n".join(f"{100 * share:.2f}%" for _, share in best),
                *(Text(printable(images[kind])) for kind in self.columns[3:]),
                end_section=True,
            )
        if self._rows:
            Console(highlight=False, width=table_width()).print(table)


class ClassPredictionReport(PredictionReport):
    """The most likely classes of each image."""

    def _add(self, file: Path, probabilities: NDArray[np.float32]) -> None:
        order = np.argsort(-probabilities, kind="stable")[: self.top]
        best = [(self.run.input_spec.classes[label], float(probabilities[label])) for label in order]
        self._rows.append((file, best, {}))
