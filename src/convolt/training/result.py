"""What a finished run reports: the numbers of `result.json`, and the hyperparameters by which trackers compare it."""

import json
import os
from typing import Any

import pytorch_lightning as pl
from omegaconf import OmegaConf

from convolt.config.overrides import typed_keys
from convolt.config.settings import Settings, flatten
from convolt.errors import DivergedError
from convolt.metrics.rates import per_class_rates
from convolt.runs.config_hash import NOT_HASHED
from convolt.runs.history import Row
from convolt.system.memory import peak_memory
from convolt.tasks.task import Task
from convolt.training.build import Experiment
from convolt.training.callbacks.keep_checkpoints import KeepCheckpoints
from convolt.training.callbacks.recorder import Recorder
from convolt.training.trainer import callback

_NOT_COMPARED = ("trainer", "debug", "logger")
"""Groups whose options no table of runs shows."""


def gather_result(
    experiment: Experiment, trainer: pl.Trainer, task: Task, tested_epoch: int | None, checkpoint: str | None
) -> dict[str, Any]:
    """Gather what `result.json` holds; of a run that does not test, the last epoch's numbers and none of test images.

    Args:
        experiment: What was trained.
        trainer: The Trainer that has trained and tested it.
        task: The tested task.
        tested_epoch: Epoch, from 1, of the checkpoint that was tested or would be; None where the run has diverged.
        checkpoint: Which one it is, best or last; None likewise.
    """
    settings, data, summary = experiment.settings, experiment.data, experiment.summary
    rows = callback(trainer, Recorder).rows
    monitor = callback(trainer, KeepCheckpoints).monitor
    trained = _epoch_metrics(rows[tested_epoch - 1]) if tested_epoch else {}
    at_test: dict[str, float] = {}
    more: dict[str, Any] = {}
    if settings.tests:
        at_test = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("test/")}
        matrix = task.measured["confusion_matrix"].cpu().numpy()
        more["per_class"] = per_class_rates(matrix, data.classes, task.class_rates)
        more["confusion_matrix"] = matrix.tolist()
    else:
        more["last_metrics"] = _epoch_metrics(rows[-1]) if tested_epoch else {}
    rates = sorted(row["images_per_second"] for row in rows)
    return {
        "metrics": trained | at_test,
        **more,
        "checkpoint": checkpoint,
        "tested_epoch": tested_epoch,
        "epochs": len(rows),
        "monitor": monitor,
        "headline": f"test/{task.headline}" if settings.tests else monitor or f"train/{task.headline}",
        "parameters": summary.parameters,
        "trainable_parameters": summary.trainable_parameters,
        "macs": summary.macs,
        "images_per_second": rates[len(rates) // 2] if rates else None,
        "training_seconds": round(callback(trainer, Recorder).training_seconds, 3),
        "peak_memory_bytes": peak_memory(str(experiment.machine.device)),
        "dataset": data.dataset.name,
        "dataset_hash": data.digest,
        "images": {split: len(indices) for split, indices in data.indices.items()},
        "skipped": {"count": len(data.dataset.skipped), "files": list(data.dataset.skipped)},
        "notes": list(data.dataset.notes),
        "val_fraction": settings.data.val_fraction,
        "compiled": task.compiled_forward is not None,
        "batch_size": settings.data.batch_size,
        "effective_batch_size": data.batch_size * settings.trainer.accumulate_grad_batches,
        "learning_rate": settings.optim.lr,
        "learning_rate_rule": settings.trainer.learning_rate_rule,
        "choices": {group: option for group, option in settings.choices.items() if group != "logger"},
        "seed": settings.seed,
        **experiment.machine.record(),
        "slots": int(os.environ.get("CONVOLT_SLOTS", "1")),
    }


def describe_divergence(error: DivergedError) -> dict[str, Any]:
    """Return what the result of a run that never tests holds besides, where its loss became infinite."""
    return {"diverged": True, "reason": str(error)}


def _epoch_metrics(row: Row) -> dict[str, float]:
    """Return the metrics of an epoch, without its times and rates."""
    return {name: value for name, value in row.items() if name.startswith(("train/", "val/"))}


def hyperparameters(settings: Settings) -> dict[str, bool | float | str]:
    """Return what TensorBoard's table of hparams compares: choices, the usual numbers, and whatever was typed.

    Of what was typed, the keys alone are taken, and their values from the config: numbers as numbers.
    """
    usual = {
        "lr": settings.optim.lr,
        "weight_decay": settings.optim.weight_decay,
        "batch_size": settings.data.batch_size,
        "epochs": settings.epochs,
        "seed": settings.seed,
    }
    shown = {*settings.choices, *NOT_HASHED, "seed", "optim.lr", "optim.weight_decay", "data.batch_size"}
    keys = [key for key in typed_keys(settings.overrides) if key not in shown]
    keys = [key for key in keys if key.partition(".")[0] not in NOT_HASHED]
    values = flatten(OmegaConf.to_container(settings.cfg, resolve=True))
    typed = {key: _as_tensorboard_takes_it(values[key]) for key in keys if key in values}
    choices = {group: settings.choice(group) for group in settings.choices if group not in _NOT_COMPARED}
    return choices | usual | typed


def _as_tensorboard_takes_it(value: Any) -> bool | float | str:
    """Return lists, sections and null as text."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value, ensure_ascii=False, default=str)
