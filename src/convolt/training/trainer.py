"""The Lightning Trainer of a run: hardware, callbacks and loggers as the config says."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy

from convolt.runs.checkpoints import SafeCheckpointIO
from convolt.runs.directory import RunDirectory
from convolt.tasks.lean import NoProfiler
from convolt.tasks.schedulers import mode_of
from convolt.training import hardware
from convolt.training.callbacks.checkpoints import KeepCheckpoints, StopEarly
from convolt.training.callbacks.profile import Profile
from convolt.training.callbacks.recorder import Recorder
from convolt.training.callbacks.screen import Screen
from convolt.training.callbacks.validated_weights import ValidatedWeights
from convolt.training.machine import Machine

C = TypeVar("C", bound=Callback)

_COLLECTIVE = timedelta(minutes=30)
"""What one process may wait for another: as long as drawing pictures or reading a dataset takes on the first one."""


def make_trainer(
    cfg: DictConfig,
    directory: RunDirectory,
    screen: Screen,
    pictures: Sequence[Callback],
    own_callbacks: Mapping[str, Callback],
    *,
    validates: bool,
    epochs_done: int,
    facts: Mapping[str, Any] | None = None,
) -> pl.Trainer:
    """Make the Trainer.

    Args:
        cfg: The run's settings.
        directory: Where everything goes.
        screen: Where it is shown.
        pictures: What keeps predictions and draws.
        own_callbacks: The user's own, by name.
        validates: Whether there are validation images.
        epochs_done: Epochs trained before a continuation; TensorBoard forgets what came later.
        facts: What a continuation must know, see `KeepCheckpoints`.
    """
    settings = cfg.trainer
    machine = Machine.of(settings)
    batches = cfg.debug.limit_batches
    trainer = pl.Trainer(
        accelerator=machine.device.type,
        devices=list(settings.devices) if OmegaConf.is_list(settings.devices) else settings.devices,
        strategy=_strategy(settings),
        max_epochs=epochs(cfg),
        accumulate_grad_batches=settings.accumulate_grad_batches,
        gradient_clip_val=settings.gradient_clip_val,
        limit_train_batches=batches,
        limit_val_batches=batches if validates else 0,
        limit_test_batches=batches,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=directory.path,
        profiler=NoProfiler(),
        logger=TensorBoardLogger(
            directory.path,
            name="",
            version="",
            default_hp_metric=False,
            purge_step=epochs_done + 1 if epochs_done else None,
        ),
        callbacks=[
            *_callbacks(cfg, directory, screen, validates=validates, facts=facts, own=bool(own_callbacks)),
            *pictures,
            *own_callbacks.values(),
            *([ValidatedWeights()] if own_callbacks else []),
        ],
        # Processes are ours to start (`convolt.training.ddp`), also in a job of SLURM, torchrun or MPI.
        **machine.precision_arguments(SafeCheckpointIO(), LightningEnvironment()),
    )
    _leave_signals_to_us(trainer)
    return trainer


def _leave_signals_to_us(trainer: pl.Trainer) -> None:
    """Keep Lightning from asking all processes at every step whether one was told to end, which waits for the device.

    `convolt.system.signals` and `convolt.training.ddp` see to signals: a process that is told ends the others.
    """
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


def epochs(cfg: DictConfig) -> int:
    """Return the number of epochs after the debug preset's caps."""
    if cfg.debug.epochs is not None:
        return int(cfg.debug.epochs)
    return int(min(cfg.trainer.max_epochs, cfg.debug.max_epochs or cfg.trainer.max_epochs))


def callback(trainer: pl.Trainer, kind: type[C]) -> C:
    """Return the trainer's callback of a kind."""
    return next(each for each in getattr(trainer, "callbacks", ()) if isinstance(each, kind))


def _callbacks(
    cfg: DictConfig,
    directory: RunDirectory,
    screen: Screen,
    *,
    validates: bool,
    facts: Mapping[str, Any] | None = None,
    own: bool = False,
) -> list[Callback]:
    stopping = cfg.trainer.early_stopping
    callbacks: list[Callback] = [screen]
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
    if cfg.debug.overfit_images is not None:
        callbacks.append(
            StopEarly(
                "val/accuracy", mode="max", patience=10**9, stopping_threshold=0.99999, check_on_train_epoch_end=True
            )
        )
    if cfg.debug.profile:
        callbacks.append(Profile(directory.path / "profile", screen))
    best = cfg.trainer.checkpoint.monitor
    return [
        *callbacks,
        Recorder(directory, screen.row),
        KeepCheckpoints(
            directory.checkpoints,
            best if validates or best.startswith("train/") else None,
            facts,
            own_callbacks=own,
        ),
    ]


def _strategy(settings: DictConfig) -> Any:
    """Return Lightning's name of what one device does, or DDP for several."""
    if hardware.processes(settings) == 1:
        return "auto"
    unused = settings.strategy == "ddp_find_unused_parameters_true"
    return DDPStrategy(find_unused_parameters=unused, gradient_as_bucket_view=True, timeout=_COLLECTIVE)
