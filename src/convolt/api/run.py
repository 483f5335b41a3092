"""A run as an object: what it left in its directory, and its network in use."""

import os
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convolt.api.shown import SavedPicture, saved_pictures
from convolt.errors import UserError
from convolt.reports.collect import read_run
from convolt.runs.files import PREDICTIONS, Json, RunFiles
from convolt.runs.history import read_rows
from convolt.system.imports import fast_imports

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import nn

    from convolt.api.use import Pictures
    from convolt.config.settings import Settings
    from convolt.inference.trained import TrainedRun

SPLITS = ("train", "val", "test")


class Run:
    """A run, finished or not. Its files are read when something is asked of it.

    Args:
        directory: The run's directory.

    Attributes:
        directory: Where its files are.
    """

    def __init__(self, directory: str | os.PathLike[str], *, _keep: object = None) -> None:
        self.directory = Path(directory)
        self._files = RunFiles(self.directory)
        self._keep = _keep  # of a bundle: the folder to which it was unpacked, as long as this is in use
        if not self._files.is_run():
            raise UserError(f"{self.directory}: there is no run in it")

    @property
    def status(self) -> str:
        """How far it is: finished, running, interrupted, cut off (killed), failed."""
        return read_run(self.directory).state

    @property
    def result(self) -> Json:
        """What `result.json` holds: metrics, rates of each class, versions, times; empty before the end."""
        return self._files.result()

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the tested weights by name, such as "test/accuracy"; empty before the end."""
        return dict(self.result.get("metrics", {}))

    @cached_property
    def settings(self) -> "Settings":
        """All settings: `run.settings.optim.lr`."""
        from convolt.config.settings import Settings
        from convolt.runs.stored_settings import stored_settings

        return Settings.of(stored_settings(self.directory, "load"))

    @property
    def history(self) -> "pd.DataFrame":
        """The numbers of each epoch, by epoch: losses, metrics, learning rate, images a second."""
        import pandas as pd

        frame = pd.DataFrame(read_rows(self._files.history_file))
        return frame.astype({"epoch": int}).set_index("epoch") if len(frame) else frame

    @property
    def per_class(self) -> "pd.DataFrame":
        """The rates of each class on the test images, by class: precision, recall, and so on."""
        import pandas as pd

        frame = pd.DataFrame(self.result.get("per_class") or [])
        return frame.set_index("class") if len(frame) else frame

    @property
    def figures(self) -> dict[str, SavedPicture]:
        """The pictures that the run drew, by name, such as "mistakes"; notebooks show them."""
        return saved_pictures(self.directory / "figures")

    def predictions(self, *, probabilities: bool = False) -> "pd.DataFrame":
        """Return what the tested weights predict for each test image.

        Args:
            probabilities: Add a column for each class.

        Returns:
            By image: `index`, its place among the stored test images; `label` and `predicted`, classes by name;
            `confidence`, the probability of the predicted one, where it was kept (a bundle has none).

        Raises:
            UserError: When the run kept none: it has not been tested, or labels pixels.
        """
        import numpy as np
        import pandas as pd

        from convolt.runs.predicted_classes import read_predicted_classes, read_probabilities

        try:
            found = read_predicted_classes(self.directory)
        except ValueError as error:
            raise UserError(str(error)) from None
        if found is None:
            why = "labels pixels" if (self.directory / PREDICTIONS).is_file() else "has kept none: it was not tested"
            raise UserError(f"{self.directory}: predictions of whole images are asked for, and this run {why}")
        names = np.array(self._classes, dtype=object)
        frame = pd.DataFrame(
            {"index": found.indices, "label": names[found.targets], "predicted": names[found.predicted]}
        )
        if (shares := read_probabilities(self.directory)) is not None:
            frame["confidence"] = shares.max(1)
            if probabilities:
                frame = pd.concat([frame, pd.DataFrame(shares, columns=self._classes)], axis=1)
        elif probabilities:
            raise UserError(f"{self.directory}: a bundle keeps no probabilities; the run's own directory has them")
        return frame

    def predict(self, images: "Pictures", *, probabilities: bool = False) -> "pd.DataFrame":
        """Predict the classes of other images, brought to what the run was trained on as `predict.py` does it.

        Args:
            images: A file, a folder, a Pillow image, bytes (H, W) or (H, W, 3), or several of these; bytes (N, H, W)
                or (N, H, W, C) are several.
            probabilities: Add a column for each class.

        Returns:
            A row for each image: `image`, its file or number; `predicted`; `confidence`; `error`, why a file could not
            be read, else empty.

        Raises:
            UserError: When there is no such file or no trained network, or it labels pixels.
        """
        from convolt.api.use import predict

        return predict(self._trained, images, probabilities=probabilities)

    def evaluate(self, *overrides: str) -> dict[str, float | None]:
        """Measure the tested weights again, or on other images.

        Args:
            overrides: As `evaluate.py` takes them: "split=val", "data=fashion_mnist", "data.path=FOLDER".

        Returns:
            Metrics by name, with the split before it, such as "test/accuracy".

        Raises:
            UserError: When the overrides make no sense, or the images are not such as the network knows.
        """
        from convolt.api.use import evaluate

        return evaluate(self._trained, overrides)

    def network(self) -> "nn.Module":
        """Return the network with the tested weights, in evaluation, on the CPU.

        It takes images (B, C, H, W) as `preprocess` makes them of bytes, and returns logits (B, classes).

        Raises:
            UserError: When the run has not finished, or its weights are gone.
        """
        return self._trained.task().network

    def preprocess(self, images: Any) -> Any:
        """Return what `network()` takes, (B, C, H, W) floats.

        Args:
            images: (B, S, S, C) bytes of the stored size, as an array or tensor.
        """
        import torch

        return self._trained.input_spec.preprocessing()(torch.as_tensor(images))

    def curves(self) -> "Figure":
        """Draw loss, accuracy (or mean IoU) and learning rate by epoch."""
        from convolt.figures.curves import draw_curves

        rows = read_rows(self._files.history_file)
        if not rows:
            raise UserError(f"{self.directory}: no epoch has ended yet")
        mean_iou = ("mean_iou", "mean IoU") if "train/mean_iou" in rows[0] else ("accuracy", "accuracy")
        title = f"{self._title}\nloss, {mean_iou[1]} and learning rate by epoch"
        return draw_curves(rows, title, self.result.get("tested_epoch"), mean_iou)

    def confusion_matrix(self) -> "Figure":
        """Draw the share of each true class that was taken for each class, of the test images."""
        import numpy as np

        from convolt.figures.confusion import draw_rates

        matrix = self.result.get("confusion_matrix")
        if matrix is None:
            raise UserError(f"{self.directory}: the run has not been tested ({self.status})")
        return draw_rates(np.array(matrix), self._classes, f"{self._title}\nconfusion matrix, by true class")

    @property
    def _classes(self) -> list[str]:
        names: list[str] = self._files.preprocessing().get("classes", [])
        return names or [str(each["class"]) for each in self.result.get("per_class") or []]

    @property
    def _state(self) -> str:
        return self.status + (", diverged" if self.result.get("diverged") else "")

    @property
    def _title(self) -> str:
        choice = self.settings.choice
        return f"{choice('model')} on {choice('data')}, {choice('optim')}, seed {self.settings.seed}"

    @cached_property
    def _trained(self) -> "TrainedRun":
        with fast_imports(freeze=False):
            from convolt.inference.trained import TrainedRun

        return TrainedRun(self.directory)

    def __repr__(self) -> str:
        result = self.result
        value = result.get("metrics", {}).get(result.get("headline"))
        outcome = f", {result['headline']} {value:.4f}" if value is not None else ""
        return f"Run({str(self.directory)!r}, {self._state}{outcome})"

    def _repr_html_(self) -> str:
        """Return the title, the state, and a table of the metrics."""
        metrics = self.metrics
        splits = [split for split in SPLITS if any(name.startswith(f"{split}/") for name in metrics)]
        head = "".join(f"<th>{split}</th>" for split in splits)
        rows = ""
        for name in dict.fromkeys(name.partition("/")[2] for name in metrics):
            values = (metrics.get(f"{split}/{name}") for split in splits)
            cells = "".join(f"<td>{'' if value is None else f'{value:.4f}'}</td>" for value in values)
            rows += f'<tr><th style="text-align: left">{escape(name.replace("_", " "))}</th>{cells}</tr>'
        table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""
        place = f"<code>{escape(str(self.directory))}</code>"
        return f"<p><b>{escape(self._title)}</b>, {self._state}<br>{place}</p>{table}"
