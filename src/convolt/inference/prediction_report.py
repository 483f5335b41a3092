"""What `predict.py` reports of images: the likeliest classes of each."""

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from convolt.errors import printable

if TYPE_CHECKING:
    from convolt.inference.trained import TrainedRun


@dataclass(frozen=True)
class FilePrediction:
    """The prediction of a file.

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
        output: The folder for files, where there are any; None: below the run's.
    """

    def __init__(self, run: "TrainedRun", top: int, output: Path | None) -> None:
        self.run = run
        self.top = top
        self.output = output
        self.skipped: list[FilePrediction] = []

    def add(self, prediction: FilePrediction) -> None:
        """Take an prediction."""
        if prediction.probabilities is None:
            self.skipped.append(prediction)
        else:
            self._add(prediction.file, prediction.probabilities)

    @abstractmethod
    def _add(self, file: Path, probabilities: NDArray[np.float32]) -> None:
        """Take the prediction of an image."""

    @abstractmethod
    def predictions(self) -> list[dict[str, Any]]:
        """Return an entry for each image, for JSON."""

    @abstractmethod
    def table(self) -> Table:
        """Return the table for the terminal."""

    def document(self) -> dict[str, Any]:
        """Return all of it, for JSON."""
        return {
            "run": printable(self.run.folder),
            "classes": self.run.input_spec.classes,
            "predictions": self.predictions(),
            "skipped": [
                {"file": printable(prediction.file), "error": printable(prediction.error)}
                for prediction in self.skipped
            ],
        }

    def show(self) -> None:
        """Print the table, where it has rows."""
        width: dict[str, Any] = {} if sys.stdout.isatty() or "COLUMNS" in os.environ else {"width": 100}
        table = self.table()
        if table.rows:
            Console(highlight=False, **width).print(table)


class ClassPredictionReport(PredictionReport):
    """The likeliest classes of each image."""

    def __init__(self, run: "TrainedRun", top: int, output: Path | None) -> None:
        super().__init__(run, top, output)
        self._ranked: list[tuple[Path, list[tuple[str, float]]]] = []

    def _add(self, file: Path, probabilities: NDArray[np.float32]) -> None:
        self._ranked.append((file, ranked(probabilities, self.run.input_spec.classes, self.top)))

    def predictions(self) -> list[dict[str, Any]]:
        """Return the classes of each image with their probabilities."""
        return [
            {"file": printable(file), "top": [{"class": name, "probability": p} for name, p in best]}
            for file, best in self._ranked
        ]

    def table(self) -> Table:
        """Return a table of the same."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("image", overflow="fold")
        table.add_column("class", overflow="fold")
        table.add_column("probability", justify="right", no_wrap=True)
        for file, best in self._ranked:
            table.add_row(
                Text(printable(file)),
                Text("\n".join(name for name, _ in best)),
                "\n".join(f"{100 * p:.2f}%" for _, p in best),
                end_section=True,
            )
        return table


def ranked(probabilities: NDArray[np.float32], classes: Sequence[str], top: int) -> list[tuple[str, float]]:
    """Return the likeliest classes with their probabilities, the likeliest first."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [(classes[label], float(probabilities[label])) for label in order]
