"""Draws a run: at its end, and after every so many epochs where that is asked for."""

import gc
import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from torch import nn

from convolt.config.settings import PictureSettings
from convolt.data.module import ImageDataModule
from convolt.figures import fonts, tensorboard
from convolt.figures.album import ALBUMS, Picture
from convolt.figures.style import size_of, to_bytes
from convolt.metrics.class_report import report_markdown
from convolt.models.layers import eval_mode
from convolt.runs.history import read_rows
from convolt.system.files import atomic_write, write_text
from convolt.system.progress import Progress
from convolt.tasks.task import for_task
from convolt.training.callbacks.predictions import PredictionCollector
from convolt.training.callbacks.validated_weights import ValidatedWeights

log = logging.getLogger(__name__)


class Pictures(Checkpoint):
    """Saves figures below `RUN_DIR/figures` and shows them in TensorBoard.

    Nothing that is drawn changes the run: no random numbers are taken, modes and gradients stay as they are. What
    cannot be drawn is noted in run.log and does not fail the run.

    It is a `Checkpoint` because Lightning calls those last, when the recorder has the epoch's row.

    Args:
        settings: What is wanted.
        folder: The run's directory.
        run: Names the run in the titles.
        data: The run's data module.
        keep: Has the predictions of the split that was just evaluated.
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
        keep: PredictionCollector[Any],
        say: Callable[[str], None],
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.run = run
        self.data = data
        self.keep = keep
        self.say = say

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the validation images' predictions, where this epoch's are asked for."""
        predicted = self.keep.found.pop("val", None)
        if predicted is not None and trainer.is_global_zero:
            validated = (c.put_in(pl_module) for c in trainer.callbacks if isinstance(c, ValidatedWeights))  # type: ignore[attr-defined]
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
        predicted = self.keep.found.get("test")
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
        writer = getattr(trainer.loggers[0], "experiment", None) if trainer.loggers else None
        album = for_task(type(module), ALBUMS)(
            self.run if final else f"{self.run}, epoch {step}",
            network,
            self.data,
            predicted,
            read_rows(self.folder / "metrics.csv"),
            tested=tested,
            layers=None if settings.layers == "auto" else settings.layers,
            tsne=settings.tsne,
        )
        folder = self.folder / "figures" if final else self.folder / "figures" / f"epoch-{step:04d}"
        prefix = "figures" if final else "validation"
        failed: list[str] = []

        def attempt(name: str, work: Callable[[], None]) -> None:
            try:
                work()
            except Exception as error:
                if self.strict:
                    raise
                log.warning("%s was not drawn: %s: %s", name, type(error).__name__, error, exc_info=True)
                failed.append(name)

        def save(name: str, make: Callable[[], Picture]) -> None:
            picture = make()
            for form, text in picture.data.items():
                write_text(folder / f"{name}.{form}", text)
            if picture.figure is None:
                return
            png = to_bytes(picture.figure)
            with atomic_write(folder / f"{name}.png") as beside:
                beside.write_bytes(png)
            if writer is not None:
                tensorboard.add_picture(writer, f"{prefix}/{name}", png, size_of(picture.figure), step)

        def text() -> None:
            if writer is not None:
                writer.add_text(f"{prefix}/classes", report_markdown(album.report), step)

        def projector() -> None:
            labels = [album.classes[label] for label in predicted.targets[predicted.places]]
            tensorboard.write_projector(self.folder, predicted.features, labels, album.shown(predicted.places))

        def graph() -> None:
            if writer is not None:
                tensorboard.add_graph(writer, network, album.example)

        pictures = album.pictures(final=final)
        with eval_mode(network), Progress("drawing", len(pictures) + 2) as progress:
            attempt(str(folder), lambda: folder.mkdir(parents=True, exist_ok=True))
            attempt("classes as text", text)
            for name, make in pictures.items():
                attempt(name, lambda name=name, make=make: save(name, make))  # type: ignore[misc]
                progress.advance()
            if final and len(predicted.features):
                attempt("projector", projector)
            progress.advance()
            if final and settings.graph:
                attempt("graph", graph)
            progress.advance()
        lacking = fonts.take_missing()
        if lacking:
            self.say(lacking)
        if failed:
            self.say(f"not drawn: {', '.join(failed)} (run.log says why)")
