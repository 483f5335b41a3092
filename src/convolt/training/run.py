"""One run, from its settings to its result."""

import json
import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from convolt.config.overrides import typed_keys
from convolt.config.schema import check_without_validation
from convolt.data.module import ImageDataModule
from convolt.errors import UserError
from convolt.metrics.rates import per_class_rates
from convolt.models.inspect import NetworkSummary
from convolt.runs.changes import describe_change
from convolt.runs.checkpoints import BEST, load_weights
from convolt.runs.config_hash import NOT_HASHED
from convolt.runs.directory import RunDirectory
from convolt.runs.files import PREDICTIONS, PREPROCESSING, Change
from convolt.system import allocation
from convolt.system.files import write_json
from convolt.system.memory import peak_memory, reset_peak_memory
from convolt.system.signals import interrupt_on_signals
from convolt.system.terminal import dispensable_output, quiet
from convolt.tasks.task import Task
from convolt.training import ddp, hardware, init_from, resume
from convolt.training.build import (
    facts_of,
    largest_batch,
    make_callbacks,
    make_data,
    make_network,
    make_pictures,
    make_task,
    short,
)
from convolt.training.callbacks.checkpoints import KeepCheckpoints
from convolt.training.callbacks.recorder import Recorder
from convolt.training.callbacks.screen import Screen
from convolt.training.callbacks.validated_weights import ValidatedWeights
from convolt.training.compilation import should_compile
from convolt.training.failures import explain_failures
from convolt.training.machine import Machine
from convolt.training.trainer import callback, epochs, make_trainer

_GONE = object()


def run(
    cfg: DictConfig, run_dir: Path | str, batch_size: int | None = None, change: Change | None = None
) -> dict[str, Any]:
    """Train a network as the settings say, test it once, and write down everything.

    A directory with the result of the same settings is left as it is; one that was cut off goes on from its last
    checkpoint; one of other settings is moved aside.

    Args:
        cfg: The settings, checked (`convolt.config.schema.check`).
        run_dir: The run's directory; all that a run leaves is below it.
        batch_size: What `trainer.find_batch_size` found before, where it is not to look again.
        change: What the settings change of those that the run had so far; see `convolt.training.extend`.

    Returns:
        What `result.json` holds.

    Raises:
        UserError: When the settings cannot be run, or the directory cannot be used.
        RunError: When the run failed for a reason that a line tells: no memory, no disk, an infinite loss.
    """
    ddp.process_rank()
    run_dir = Path(run_dir)
    screen = Screen()
    directory = RunDirectory(run_dir, cfg, change)
    with dispensable_output(), directory, interrupt_on_signals(), quiet():
        done = directory.result(directory.hash)
        if done and not cfg.force:
            directory.mark_finished(done)
            screen.say(f"finished before with the same settings: {run_dir}; force=true runs it anew")
            return done
        with explain_failures("training", cfg, run_dir):
            aside = directory.move_aside(force=cfg.force)
            if aside:
                screen.say(f"what was in {run_dir} is of other settings, or forced to run anew: moved to {aside.name}")
            try:
                with ddp.ddp_workers(cfg, directory, batch_size, hardware.processes(cfg.trainer)):
                    result = _train_and_test(cfg, directory, screen, batch_size)
            except UserError:
                if aside and directory.move_back(aside):
                    screen.say(f"moved back from {aside.name}: nothing has begun")
                raise
            result = directory.finish(result)
        screen.result(result, run_dir)
        return result


def run_ddp_worker(cfg: DictConfig, run_dir: Path, batch_size: int | None = None, change: Change | None = None) -> None:
    """Train as one of the further processes of a run, which write nothing; see `convolt.training.ddp`.

    Args:
        cfg: The settings of the run.
        run_dir: Its directory, held by the first process.
        batch_size: See `run`.
        change: See `run`.
    """
    with quiet():
        _train_and_test(cfg, RunDirectory(run_dir, cfg, change), Screen(shown=False), batch_size)


def _train_and_test(cfg: DictConfig, directory: RunDirectory, screen: Screen, batch_size: int | None) -> dict[str, Any]:
    """Build data, network and task, train, and test the chosen checkpoint."""
    cfg = cfg.copy()
    with explain_failures("preparation", cfg, directory.path):
        data = make_data(cfg)
    network, summary = make_network(cfg, data)
    validates = len(data.indices["val"]) > 0
    if not validates:
        check_without_validation(cfg)
    found = resume.find_checkpoint(
        directory.checkpoints,
        directory.own_hashes(),
        needs_best=cfg.trainer.test == "best",
        needed=directory.change is not None,
        say=screen.say,
        tidy=ddp.process_rank() == 0,
    )
    origin = init_from.origin(found.facts) if found else init_from.start(cfg, network, data.classes, screen.say)
    Machine.of(cfg.trainer).apply()
    if found and cfg.trainer.find_batch_size:
        batch_size = found.facts.get("batch_size")
    data.batch_size = _images_of_a_step(cfg, network, summary, data, batch_size)
    before = bool(found and found.facts.get("compiled"))
    compiled = should_compile(cfg.trainer.compile, Machine.of(cfg.trainer).device.type, resumed=before)
    facts = facts_of(cfg, directory, data, compiled=compiled) | origin
    if found:
        resume.check_resumable(found, facts, screen.say)
    pictures = make_pictures(cfg, data, network, directory, screen)
    own = make_callbacks(cfg)
    trainer = make_trainer(
        cfg,
        directory,
        screen,
        [pictures.keep, pictures],
        own,
        validates=validates,
        epochs_done=found.epochs if found else 0,
        facts=facts,
    )
    task = make_task(cfg, network, summary, data, trainer, compiled=compiled)
    if trainer.is_global_zero:
        directory.begin()
        write_json(directory.path / PREPROCESSING, data.record() | _reading(cfg.data))
    screen.settings(*_settings(cfg, data, summary, trainer), data.dataset.remarks)
    if cfg.summary:
        screen.layers(summary)
    if found:
        screen.say(f"goes on after epoch {found.epochs}{describe_change(directory.change)}")
        if trainer.is_global_zero:
            resume.restore_best(directory.checkpoints, found)

    device = str(trainer.strategy.root_device)
    with explain_failures("training", cfg, directory.path, device), allocation.retain_freed_memory():
        trainer.fit(task, datamodule=data, ckpt_path=found.path if found else None)

    tested, best = _load_tested(cfg, directory, trainer, task)
    with explain_failures("evaluation", cfg, directory.path, device):
        trainer.test(task, datamodule=data, verbose=False)
    data.verify_unchanged()

    result = _result(cfg, data, summary, trainer, task, tested, "best" if best else "last") | origin
    if trainer.is_global_zero:
        pictures.keep.found["test"].save(directory.path / PREDICTIONS, data.indices["test"])
        result["pictures_seconds"] = pictures.finish(trainer, task, tested)
        at_test = {name: value for name, value in result["metrics"].items() if name.startswith("test/")}
        trainer.loggers[0].log_hyperparams(_hyperparameters(cfg), at_test, tested)
        trainer.loggers[0].finalize("success")
    return result


def _load_tested(cfg: DictConfig, directory: RunDirectory, trainer: pl.Trainer, task: Task) -> tuple[int, bool]:
    """Put the weights that are tested into the task.

    Returns:
        The epoch that they come from, and whether they are the best (or the last).
    """
    epoch = callback(trainer, KeepCheckpoints).best_epoch
    best = cfg.trainer.test == "best" and epoch is not None
    tested = epoch + 1 if best and epoch is not None else len(callback(trainer, Recorder).rows)
    if best or cfg.callbacks:  # what a user's callback leaves in the network is not always what was validated
        load_weights(task, directory.checkpoints / BEST if best else directory.epoch_checkpoint(tested), tested)
    if cfg.callbacks:
        callback(trainer, ValidatedWeights).hold(task)
    return tested, best


def _images_of_a_step(
    cfg: DictConfig, network: nn.Module, summary: NetworkSummary, data: ImageDataModule, batch_size: int | None
) -> int:
    """Return the images of a step over all processes, those found by trial included."""
    if cfg.trainer.find_batch_size:
        cfg.data.batch_size = data.batch_size = batch_size or largest_batch(cfg, network, summary, data)
    reset_peak_memory(Machine.of(cfg.trainer).device)  # that of the trials
    return ddp.share_batches(cfg)


def _result(
    cfg: DictConfig,
    data: ImageDataModule,
    summary: NetworkSummary,
    trainer: pl.Trainer,
    task: Task,
    tested: int,
    checkpoint: str,
) -> dict[str, Any]:
    """Gather what `result.json` holds; `tested` is the epoch of the tested checkpoint, which is `best` or `last`."""
    rows = callback(trainer, Recorder).rows
    matrix = task.measured["confusion_matrix"].cpu().numpy()
    trained = {k: v for k, v in rows[tested - 1].items() if k.startswith(("train/", "val/"))}
    at_test = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("test/")}
    rates = sorted(row["images_per_second"] for row in rows)
    return {
        "metrics": trained | at_test,
        "per_class": per_class_rates(matrix, data.classes, task.class_rates),
        "confusion_matrix": matrix.tolist(),
        "checkpoint": checkpoint,
        "tested_epoch": tested,
        "epochs": len(rows),
        "monitor": callback(trainer, KeepCheckpoints).monitor,
        "headline": f"test/{task.headline}",
        "parameters": summary.parameters,
        "trainable_parameters": summary.trainable_parameters,
        "macs": summary.macs,
        "images_per_second": rates[len(rates) // 2],
        "peak_memory_bytes": peak_memory(str(trainer.strategy.root_device)),
        "dataset": data.dataset.name,
        "dataset_hash": data.digest,
        "images": {split: len(indices) for split, indices in data.indices.items()},
        "skipped": {"count": len(data.dataset.skipped), "files": list(data.dataset.skipped)},
        "notes": list(data.dataset.notes),
        "val_fraction": cfg.data.val_fraction,
        "compiled": task.compiled_forward is not None,
        "batch_size": cfg.data.batch_size,
        "effective_batch_size": data.batch_size * cfg.trainer.accumulate_grad_batches,
        "learning_rate": cfg.optim.lr,
        "learning_rate_rule": cfg.trainer.get("learning_rate_rule", "none"),
        "choices": OmegaConf.to_container(cfg.choices),
        "seed": cfg.seed,
        "device": hardware.device_name(trainer.strategy.root_device),
        "devices": trainer.world_size,
        "precision": str(trainer.precision),
        **Machine.of(cfg.trainer).record(),
        "threads": torch.get_num_threads(),
        "slots": int(os.environ.get("CONVOLT_SLOTS", "1")),
    }


def _reading(data: DictConfig) -> dict[str, Any]:
    """Return how files are read for a run: what `predict.py` must do alike."""
    white = data.get("white")
    return {"resize": data.get("resize", "crop")} | ({"white": white} if white is not None else {})


def _settings(
    cfg: DictConfig, data: ImageDataModule, summary: NetworkSummary, trainer: pl.Trainer
) -> tuple[str, dict[str, str]]:
    """Return the title and the lines that a run shows before it begins."""
    choices = {group: short(option) for group, option in cfg.choices.items()}
    sizes = " + ".join(f"{len(data.indices[split]):,} {split}" for split in ("train", "val", "test"))
    resizing = data.resizing()
    shape = f"{data.channels}x{data.image_size}x{data.image_size}" + (f" ({resizing})" if resizing else "")
    return "convolt", {
        "model": f"{choices.get('model', '')}  {summary.parameters:,} parameters, "
        f"{summary.macs / 1e6:,.2f} M multiply-adds",
        "data": f"{data.dataset.name}  {sizes} images, {data.num_classes} classes, {shape}",
        "optim": f"{choices.get('optim', '')}  lr {cfg.optim.lr:g}, batch {data.batch_size}, {epochs(cfg)} epochs, "
        f"scheduler {choices.get('scheduler', '')}",
        "options": f"augmentation {choices.get('augmentation', '')}, batchnorm {choices.get('batchnorm', '')}, "
        f"seed {cfg.seed}",
        "device": f"{hardware.device_name(trainer.strategy.root_device)}, {trainer.precision}, "
        f"{torch.get_num_threads()} threads" + (f", {trainer.world_size} processes" if trainer.world_size > 1 else ""),
    }


def _hyperparameters(cfg: DictConfig) -> dict[str, bool | float | str]:
    """Return what TensorBoard's hparams page compares: choices, the usual numbers, and whatever was typed.

    Of what was typed, the keys alone are taken, and their values from the config: numbers as numbers.
    """
    usual = {
        "lr": cfg.optim.lr,
        "weight_decay": cfg.optim.weight_decay,
        "batch_size": cfg.data.batch_size,
        "epochs": epochs(cfg),
        "seed": cfg.seed,
    }
    shown = {*cfg.choices, *NOT_HASHED, "seed", "optim.lr", "optim.weight_decay", "data.batch_size"}
    keys = [key for key in typed_keys(cfg.overrides) if key not in shown and key.partition(".")[0] not in NOT_HASHED]
    values = {key: OmegaConf.select(cfg, key, default=_GONE) for key in keys}
    typed = {key: _hyperparameter(value) for key, value in values.items() if value is not _GONE}
    choices = {group: short(option) for group, option in cfg.choices.items() if group not in ("trainer", "debug")}
    return choices | usual | typed


def _hyperparameter(value: Any) -> bool | float | str:
    """Return a value as TensorBoard takes it: lists, sections and null as text."""
    if isinstance(value, bool | int | float | str):
        return value
    plain = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    return json.dumps(plain, ensure_ascii=False, default=str)
