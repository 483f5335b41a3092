"""The trackers of a run, as the section `logger` says."""

from collections.abc import Callable

from pytorch_lightning.loggers import Logger
from pytorch_lightning.loggers.logger import DummyLogger

from convolt.config.settings import Settings
from convolt.runs.directory import RunDirectory
from convolt.training.trackers.described import DescribedRun
from convolt.training.trackers.local import CsvTracker, TensorBoardTracker


def make_loggers(
    settings: Settings, directory: RunDirectory, say: Callable[[str], None], *, epochs_done: int, rank: int
) -> list[Logger]:
    """Make a Trainer's loggers.

    Args:
        settings: The run's.
        directory: The run's.
        say: Shows a line to the user.
        epochs_done: Epochs trained before the run was resumed.
        rank: Of this process among those of the run; the first one tells all, and the others nothing.
    """
    chosen = settings.logger
    if rank > 0:
        return [DummyLogger() for _ in chosen.model_fields_set]
    loggers: list[Logger] = []
    if chosen.tensorboard is not None:
        loggers.append(TensorBoardTracker(directory.path, epochs_done))
    if chosen.csv is not None:
        loggers.append(CsvTracker(directory.path))
    run = DescribedRun.of(directory, settings)
    if chosen.wandb is not None:
        from convolt.training.trackers.wandb import WandbTracker

        loggers.append(WandbTracker(chosen.wandb, run, say))
    if chosen.mlflow is not None:
        from convolt.training.trackers.mlflow import MlflowTracker

        loggers.append(MlflowTracker(chosen.mlflow, run, say))
    return loggers
