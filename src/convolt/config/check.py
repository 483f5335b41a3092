"""Checks of a config before torch is imported.

The sections that the framework reads itself are typed (`convolt.config.settings`). What a `_target_` takes (a network's
depth, a transform's degrees) is checked against the config as it stands without the user's values: a number stays a
number, whole where it was whole, and 0 or more; the rest is for the target to check.
"""

import math
from importlib.util import find_spec
from typing import Any

from omegaconf import DictConfig, OmegaConf

from convolt.config.instantiate import target_name
from convolt.config.settings import ABSENT, LoggerSettings, Settings, flatten, format_value
from convolt.errors import UserError, did_you_mean, list_options

NETWORK_KEYS = ("in_channels", "num_classes", "image_size", "batchnorm", "activation", "init")
"""The keys of `model` on the common page: every network of ours takes them, one of yours those that it wants."""

METRICS = ("accuracy", "precision", "recall", "f1", "top5_accuracy", "calibration_error")
"""Metrics beside the loss that early stopping, plateaus and checkpoints can watch, where the task names no others."""

SEARCHES_ONE_DEVICE = "trainer.find_batch_size=true looks at one device: set data.batch_size for several"


def check(cfg: DictConfig, reference: DictConfig | None = None) -> Settings:
    """Check types, ranges and what must fit together.

    Args:
        cfg: The composed config.
        reference: The same options without the user's values; None leaves the targets' own keys unchecked.

    Raises:
        UserError: Names the first key that is wrong, its value and what would be right.
    """
    settings = Settings.of(cfg)
    for section in ("model", "batchnorm", "data", "optim", "scheduler", "augmentation", "task"):
        target_name(cfg[section], section)
    if reference is not None:
        _check_target_keys(cfg, OmegaConf.to_container(reference, resolve=True))
    _check_together(settings)
    return settings


def _check_target_keys(cfg: DictConfig, reference: Any) -> None:
    """Check the numbers of targets against those that stand there without the user's values."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    for key in plain["data"]:
        if key not in reference["data"]:
            raise UserError(f"data.{key}: there is no such key{did_you_mean(key, reference['data'])}")
    defaults = flatten(reference)
    for key, value in flatten(plain).items():
        section, _, name = key.partition(".")
        if name not in getattr(Settings.model_fields[section].annotation, "model_fields", ()):
            _check_number(key, value, defaults.get(key))


def _check_number(key: str, value: Any, default: Any) -> None:
    """Check a target's value against its default; where that is no number, the value may be anything."""
    expected = None
    if isinstance(default, bool):
        expected = None if isinstance(value, bool) else "true or false"
    elif isinstance(default, int | float) and not isinstance(value, dict):
        if isinstance(value, bool) or not isinstance(value, int | float):
            expected = f"a number, such as {default}"
        elif isinstance(default, int) and isinstance(value, float) and not value.is_integer():
            expected = f"a whole number, such as {default}"
        elif default >= 0 > value or math.isnan(value):
            expected = "0 or more"
    if expected:
        raise UserError(f"{key}={format_value(value)} will not do: it must be {expected}")


def _check_together(settings: Settings) -> None:
    """Check what is right by itself and wrong together."""
    trainer = settings.trainer
    watched = {
        "trainer.checkpoint.monitor": trainer.checkpoint.monitor,
        "trainer.early_stopping.monitor": trainer.early_stopping.monitor,
        "scheduler.monitor": settings.scheduler.monitor,
    }
    monitors = _list_metrics(settings, "val", "train")
    for key, metric in watched.items():
        if metric is not ABSENT and metric not in monitors:
            hint = did_you_mean(metric, monitors) or list_options(monitors)
            raise UserError(f"{key}={metric} is no metric that is measured every epoch{hint}")
    if not may_validate(settings):
        refuse_validation_monitors(settings)
    if trainer.find_batch_size and (trainer.devices not in (1, "auto") or "ddp" in trainer.strategy):
        raise UserError(SEARCHES_ONE_DEVICE)
    if trainer.learning_rate_rule == "linear" and trainer.batch_per == "run":
        raise UserError(
            "trainer.learning_rate_rule=linear: with trainer.batch_per=run the batch does not grow with the devices; "
            "set trainer.batch_per=device too"
        )
    if settings.init_from is not None and settings.model.pretrained:
        raise UserError("init_from and model.pretrained both say which weights to start from: leave one of them out")
    if {"mixup", "cutmix"} <= set(settings.augmentation.transforms):
        raise UserError("augmentation=mixup and augmentation=cutmix cannot both mix an image: choose one of them")


def check_trackers_installed(logger: LoggerSettings) -> None:
    """Raise a `UserError` where a chosen tracker's package is missing, which nothing imports yet."""
    for name in ("wandb", "mlflow"):
        if getattr(logger, name) is not None and find_spec(name) is None:
            raise UserError(f"logger={name} needs {name}: pip install 'convolt[loggers]'")


def check_judged_metric(settings: Settings, key: str, metric: str) -> None:
    """Raise a `UserError` where a key names a metric that the result of such a run will not have."""
    metrics = _list_metrics(settings, "test", "val", "train")
    if metric not in metrics:
        raise UserError(
            f"{key}={metric} is no metric of a result{did_you_mean(metric, metrics) or list_options(metrics)}"
        )


def _list_metrics(settings: Settings, *splits: str) -> list[str]:
    measured = ("loss", *(settings.task.metrics or METRICS))
    return [f"{split}/{metric}" for split in splits for metric in measured]


def may_validate(settings: Settings) -> bool:
    """Tell whether there may be validation images: held out, or brought along by images of one's own."""
    source = str((settings.data.source or {}).get("_target_", "")).rsplit(".", 1)[-1]
    return settings.data.val_fraction > 0 or source in ("Folder", "Arrays", "Masks")


def refuse_validation_monitors(settings: Settings) -> None:
    """Raise a `UserError` where early stopping or the scheduler watches a metric of validation images."""
    stopping = settings.trainer.early_stopping
    monitors = {
        "trainer.early_stopping": stopping.patience and stopping.monitor,
        "scheduler=plateau": settings.scheduler.monitor,
    }
    for watcher, metric in monitors.items():
        if metric and metric.startswith("val/"):
            raise UserError(
                f"{watcher} watches {metric}, but data.val_fraction=0 leaves no validation images: "
                "hold some out, or watch train/loss"
            )
