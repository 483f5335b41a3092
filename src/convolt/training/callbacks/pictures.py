"""Draws a run: at its end and, on request, after every so many epochs."""

import gc
import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from torch import nn

from convolt.config.settings import PictureSettings
from convolt.data.module import ImageDataModule
from convolt.figures import fonts, tensorboard
from convolt.figures.album import ALBUMS, Picture
from convolt.metrics.class_report import report_markdown
from convolt.models.find_layers import eval_mode
from convolt.runs.files import RunFiles
from convolt.runs.history import read_rows
from convolt.system.progress import Progress
from convolt.tasks.task import for_task
from convolt.training.callbacks.predictions import PredictionCollector
from convolt.training.callbacks.validated_weights import ValidatedWeights
from convolt.training.trackers.local import TensorBoardTracker
from convolt.training.trackers.tracker import trackers_among

log = logging.getLogger(__name__)


class Pictures(Checkpoint):
    """Saves figures below `RUN_DIR/figures` and shows them to the trackers.

    Drawing does not change the run: it draws no random numbers and restores modes and gradients. What cannot be drawn
    is noted in run.log and does not fail the run.

    It is a `Checkpoint` because Lightning calls those last, when the recorder has the epoch's row.

    Args:
        settings: The section `pictures`.
        folder: The run's directory.
        run: Names the run in the titles.
        data: The run's data module.
        collector: Has the predictions of the split that was just evaluated.
        say: Shows a line to the user.
    """

    strict = False
    """Whether an error in a drawing is raised instead of noted; tests set it."""

    def __init__(
        self,
        settings: PictureSettings,
        folder: Path,
        run: str,
        data: ImageDataModule,
        collector: PredictionCollector[Any],
        say: Callable[[str], None],
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.run = run
        self.data = data
        self.collector = collector
        self.say = say

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the validation images' predictions, in epochs for which they were collected."""
        predicted = self.collector.found.pop("val", None)
        if predicted is not None and trainer.is_global_zero:
            validated = (c.swapped_in(pl_module) for c in trainer.callbacks if isinstance(c, ValidatedWeights))  # type: ignore[attr-defined]
            with next(validated, nullcontext()):
                self._draw(trainer, pl_module, predicted, step=trainer.current_epoch + 1, tested=None)

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, tested: int) -> float:
        """Draw everything of a tested run.

        Args:
            trainer: The run's.
            pl_module: The run's task, with the tested weights.
            tested: The epoch that they come from.

        Returns:
            Seconds that it took.
        """
        started = time.perf_counter()
        predicted = self.collector.found.get("test")
        if self.settings.enabled and predicted is not None and trainer.is_global_zero:
            gc.disable()  # a pass over all of torch's objects costs more than what drawing leaves
            try:
                self._draw(trainer, pl_module, predicted, step=tested, tested=tested)
            finally:
                gc.enable()
        return round(time.perf_counter() - started, 3)

    def _draw(
        self, trainer: pl.Trainer, module: pl.LightningModule, predicted: Any, *, step: int, tested: int | None
    ) -> None:
        network, settings, final = module.network, self.settings, tested is not None
        assert isinstance(network, nn.Module)
        trackers = trackers_among(trainer.loggers)
        album = for_task(type(module), ALBUMS)(
            self.run if final else f"{self.run}, epoch {step}",
            network,
            self.data,
            predicted,
            read_rows(RunFiles(self.folder).history_file),
            tested_epoch=tested,
            layers=None if settings.layers == "auto" else settings.layers,
            tsne=settings.tsne,
        )
        folder = self.folder / "figures" if final else self.folder / "figures" / f"epoch-{step:04d}"
        prefix = "figures" if final else "validation"

        def save(name: str, make: Callable[[], Picture]) -> None:
            file = make().write(folder, name)
            if file is not None:
                for tracker in trackers:
                    tracker.log_picture(f"{prefix}/{name}", file, step)

        def classes() -> None:
            for tracker in trackers:
                tracker.log_text(f"{prefix}/classes", report_markdown(album.class_report), step)

        def projector() -> None:
            labels = [album.classes[label] for label in predicted.targets[predicted.places]]
            tensorboard.write_projector(self.folder, predicted.features, labels, album.pixels(predicted.places))

        steps: dict[str, Callable[[], None]] = {str(folder): lambda: folder.mkdir(parents=True, exist_ok=True)}
        if trackers:
            steps["classes as text"] = classes
        pictures = album.light_pictures() if settings.light else album.pictures(final=final)
        steps |= {name: partial(save, name, make) for name, make in pictures.items()}
        if final and len(predicted.features):
            steps["projector"] = projector
        board = next((each for each in trackers if isinstance(each, TensorBoardTracker)), None)
        if final and settings.graph and not settings.light and board is not None:
            steps["graph"] = lambda: tensorboard.add_graph(board.experiment, network, album.example)
        with eval_mode(network), Progress("drawing", len(steps)) as progress:
            failed = []
            for name, draw in steps.items():
                try:
                    draw()
                except Exception as error:
                    if self.strict:
                        raise
                    log.warning("%s was not drawn: %s: %s", name, type(error).__name__, error, exc_info=True)
                    failed.append(name)
                progress.advance()
        if note := fonts.missing_characters_note():
            self.say(note)
        if failed:
            self.say(f"not drawn: {', '.join(failed)} (run.log says why)")
