"""The Lightning Trainer of a run, with its callbacks and loggers."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import DDPStrategy

from convolt.runs.checkpoints import SafeCheckpointIO
from convolt.runs.directory import RunDirectory
from convolt.tasks.schedulers import mode_of
from convolt.training.build import Experiment
from convolt.training.callbacks.keep_checkpoints import KeepCheckpoints
from convolt.training.callbacks.profile import Profile
from convolt.training.callbacks.recorder import Recorder
from convolt.training.callbacks.screen import Screen
from convolt.training.callbacks.stop_early import StopEarly
from convolt.training.callbacks.validated_weights import ValidatedWeights
from convolt.training.chunked import ChunkedOptimization
from convolt.training.trackers.make import make_loggers

C = TypeVar("C", bound=Callback)

_COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""How long one process waits for another: drawing pictures or reading a dataset may take that long on the first."""


def make_trainer(
    experiment: Experiment,
    directory: RunDirectory,
    screen: Screen,
    pictures: Sequence[Callback],
    own_callbacks: Sequence[Callback],
    *,
    epochs_done: int,
    facts: Mapping[str, Any],
) -> pl.Trainer:
    """Make the Trainer.

    Args:
        experiment: What is trained.
        directory: Where everything goes.
        screen: Where it is shown.
        pictures: What collects predictions and draws.
        own_callbacks: The user's own.
        epochs_done: Epochs trained before the run was resumed.
        facts: What a resumed run must know, see `KeepCheckpoints`.
    """
    settings, machine = experiment.settings, experiment.machine
    batches = settings.debug.limit_batches
    unused = settings.trainer.strategy == "ddp_find_unused_parameters_true"
    ddp = DDPStrategy(find_unused_parameters=unused, gradient_as_bucket_view=True, timeout=_COLLECTIVE_TIMEOUT)
    trainer = pl.Trainer(
        strategy=ddp if machine.processes > 1 else "auto",
        max_epochs=settings.epochs,
        accumulate_grad_batches=settings.trainer.accumulate_grad_batches,
        gradient_clip_val=settings.trainer.gradient_clip_val,
        limit_train_batches=batches,
        limit_val_batches=batches if experiment.validates else 0,
        limit_test_batches=batches,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=directory.path,
        logger=make_loggers(settings, directory, screen.say, epochs_done=epochs_done, rank=machine.rank),
        callbacks=[
            *_callbacks(experiment, directory, screen, facts, own=bool(own_callbacks)),
            *pictures,
            *own_callbacks,
            *([ValidatedWeights()] if own_callbacks else []),
        ],
        # Processes are ours to start (`convolt.training.ddp`), also in a job of SLURM, torchrun or MPI.
        **machine.trainer_arguments(SafeCheckpointIO(), LightningEnvironment()),
    )
    trainer.fit_loop.epoch_loop.automatic_optimization = ChunkedOptimization(trainer, screen.show_step)
    _leave_signals_to_us(trainer)
    return trainer


def _leave_signals_to_us(trainer: pl.Trainer) -> None:
    """Keep Lightning from asking all processes at every step whether one received SIGTERM, which waits for the device.

    `convolt.system.signals` and `convolt.training.ddp` handle signals: a process that receives one ends the others.
    """
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


def callback(trainer: pl.Trainer, kind: type[C]) -> C:
    """Return the trainer's callback of a kind."""
    return next(each for each in getattr(trainer, "callbacks", ()) if isinstance(each, kind))


def _callbacks(
    experiment: Experiment, directory: RunDirectory, screen: Screen, facts: Mapping[str, Any], *, own: bool
) -> list[Callback]:
    """Make the callbacks of every run; `own` tells whether the user adds some."""
    settings = experiment.settings
    callbacks: list[Callback] = [screen]
    stopping = settings.trainer.early_stopping
    if stopping.patience is not None:
        callbacks.append(
            StopEarly(
                stopping.monitor,
                mode=mode_of(stopping.monitor),
                patience=stopping.patience,
                min_delta=stopping.min_delta,
                check_on_train_epoch_end=True,
                check_finite=False,
            )
        )
    if settings.debug.overfit_images is not None:
        callbacks.append(
            StopEarly(
                "val/accuracy", mode="max", patience=10**9, stopping_threshold=0.99999, check_on_train_epoch_end=True
            )
        )
    if settings.debug.profile:
        callbacks.append(Profile(directory.path / "profile", screen))
    best = settings.trainer.checkpoint.monitor
    monitor = best if experiment.validates or best.startswith("train/") else None
    return [
        *callbacks,
        Recorder(directory, screen.row),
        KeepCheckpoints(directory.checkpoints, monitor, facts, own_callbacks=own),
    ]
