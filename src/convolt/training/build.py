"""What a run is put together from, as its settings say: data, network, task, pictures."""

import math
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning.callbacks import Callback, StochasticWeightAveraging
from torch import nn
from torch.optim import Optimizer

from convolt.config.compose import CONF, CONFIG_NAME
from convolt.config.instantiate import build, describe_error, target
from convolt.config.schema import NETWORK_KEYS, SEARCHES_ONE_DEVICE, PictureSettings
from convolt.data.augment import Augmentation
from convolt.data.module import ImageDataModule
from convolt.errors import UserError
from convolt.models.inspect import NetworkSummary, check_targets, inspect
from convolt.models.layers import check_layers
from convolt.runs.directory import RunDirectory
from convolt.tasks.task import Task, for_task
from convolt.training import compilation, hardware
from convolt.training.batch_size import find_batch_size
from convolt.training.callbacks.pictures import Pictures
from convolt.training.callbacks.predictions import COLLECTORS
from convolt.training.callbacks.screen import Screen
from convolt.training.machine import Machine
from convolt.training.trainer import epochs

_COPIES_OF_WEIGHTS = 4
"""Weights, their gradients and the two moments of Adam."""

_COPIES_OF_ACTIVATIONS = 2
"""What each layer puts out is kept for the backward pass, and has a gradient in it."""


def make_data(cfg: DictConfig) -> ImageDataModule:
    """Build the data module, and fill in what the config leaves to the dataset."""
    if cfg.debug.batch_size is not None:
        cfg.data.batch_size = cfg.debug.batch_size
    augmentation = build(cfg.augmentation, "augmentation", Augmentation)
    make = build(cfg.data, "data", ImageDataModule, known_only=True, _partial_=True)
    try:
        data: ImageDataModule = make(
            augmentation=None if cfg.debug.overfit_images else augmentation,
            seed=cfg.seed,
            overfit_images=cfg.debug.overfit_images,
        )
    except TypeError as error:
        raise UserError(f"data: {cfg.data._target_} fails: {describe_error(error)}") from error
    data.setup()
    data.preprocessing()  # refuses what does not fit to the images before anything is written
    with open_dict(cfg):
        cfg.data.num_classes, cfg.data.channels, cfg.data.image_size = data.num_classes, data.channels, data.image_size
    return data


def facts_of(cfg: DictConfig, directory: RunDirectory, data: ImageDataModule, *, compiled: bool) -> dict[str, Any]:
    """Return what a continuation must know and cannot read from the settings; it stands in every checkpoint."""
    machine = Machine.of(cfg.trainer)
    return {
        "config_hash": directory.hash,
        "dataset": data.dataset.name,
        "dataset_hash": data.digest,
        "batch_size": cfg.data.batch_size,
        "device": hardware.device_name(machine.device),
        "precision": machine.precision,
        "threads": machine.threads,
        "processes": hardware.processes(cfg.trainer),
        "compiled": compiled,
        "step_images": data.batch_size,
        "mixes": data.augmentation.mixes,
    }


def training_bytes(cfg: DictConfig, network: nn.Module, summary: NetworkSummary, batch_size: int) -> int:
    """Return about what a network takes on a device while it trains: weights, gradients, moments and activations."""
    wide = 8 if cfg.trainer.precision == "64-true" else 4
    weights = sum(parameter.numel() for parameter in network.parameters())
    kept = sum(math.prod(layer.output_shape) for layer in summary.layers if layer.output_shape)
    own = batch_size // max(1, hardware.processes(cfg.trainer))
    return wide * (_COPIES_OF_WEIGHTS * weights + _COPIES_OF_ACTIVATIONS * kept * own)


def largest_batch(cfg: DictConfig, network: nn.Module, summary: NetworkSummary, data: ImageDataModule) -> int:
    """Find the largest batch that fits; whatever is random stays as it was.

    Raises:
        UserError: When several devices train together, or not even two images fit.
    """
    if hardware.processes(cfg.trainer) > 1:  # trainer.devices=auto found several
        raise UserError(SEARCHES_ONE_DEVICE)
    device = Machine.of(cfg.trainer).device
    data.needed_beside = training_bytes(cfg, network, summary, 2)
    return find_batch_size(
        network,
        _optimizer(cfg),
        (data.channels, data.image_size, data.image_size),
        data.num_classes,
        device,
        hardware.precision(cfg.trainer.precision, device.type),
        most=len(data.indices["train"]),
        reserved=data.resident_bytes(device),
    )


def make_network(cfg: DictConfig, data: ImageDataModule) -> tuple[nn.Module, NetworkSummary]:
    """Build the network from the seed, and see that it takes the images."""
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    network: nn.Module = build(cfg.model, "model", nn.Module, optional=_as_everywhere(cfg))
    name = str(cfg.model.get("name") or cfg.choices.get("model", type(network).__name__))
    summary = inspect(network, data.channels, data.image_size, name)
    chosen = f"data={cfg.choices.get('data', '')}"
    check_targets(f"model={name}", summary.output_shape, chosen, data.target_shape, data.num_classes)
    return network, summary


def _as_everywhere(cfg: DictConfig) -> list[str]:
    """Return the keys of the network that are as the common page has them: no network needs to take those."""
    page = OmegaConf.load(CONF / f"{CONFIG_NAME}.yaml")
    usual: Any = OmegaConf.merge(cfg, {"batchnorm": page.batchnorm, "model": page.model})
    chosen, common = (each.model for each in (cfg, usual))
    return [key for key in NETWORK_KEYS if chosen.get(key) == common.get(key)]


def _optimizer(cfg: DictConfig, **more: Any) -> Any:
    """Return what makes the optimizer; one that knows no weight decay need not take that there is none."""
    optional = () if cfg.optim.weight_decay else ("weight_decay",)
    return build(cfg.optim, "optim", Optimizer, partial=True, optional=optional, **more)


def make_pictures(
    cfg: DictConfig, data: ImageDataModule, network: nn.Module, directory: RunDirectory, screen: Screen
) -> Pictures:
    """Make what draws the run, and what keeps the predictions for it."""
    settings = PictureSettings.model_validate(OmegaConf.to_container(cfg.get("pictures") or OmegaConf.create()))
    if settings.layers != "auto":
        check_layers(network, settings.layers)
    every = settings.every_n_epochs if settings.enabled else None
    keep = for_task(target(cfg.task, "task", Task), COLLECTORS)(
        settings.map_images if settings.enabled else 0, lambda epoch: every is not None and epoch % every == 0
    )
    names = {group: short(option) for group, option in cfg.choices.items()}
    run = f"{names.get('model', '')} on {data.dataset.name}, {names.get('optim', '')}, seed {cfg.seed}"
    return Pictures(settings, directory.path, run, data, keep, screen.say)


def make_callbacks(cfg: DictConfig) -> dict[str, Callback]:
    """Build the user's own callbacks, by name.

    Raises:
        UserError: When one of them changes the weights after the last validation.
    """
    made: dict[str, Callback] = {
        name: build(node, f"callbacks.{name}", Callback) for name, node in cfg.callbacks.items()
    }
    for name, one in made.items():
        if isinstance(one, StochasticWeightAveraging):
            raise UserError(
                f"callbacks.{name}: {type(one).__name__} puts its averages in after the last validation, so that they "
                "could be neither chosen nor tested as they were validated: take pytorch_lightning.callbacks."
                "WeightAveraging or EMAWeightAveraging, which validate theirs"
            )
    return made


def make_task(
    cfg: DictConfig,
    network: nn.Module,
    summary: NetworkSummary,
    data: ImageDataModule,
    trainer: pl.Trainer,
    *,
    compiled: bool,
) -> Task:
    """Wrap the network, and compile its training pass if `compiled`."""
    device = trainer.strategy.root_device.type
    network = Machine.of(cfg.trainer).prepare(network)
    data.needed_beside = training_bytes(cfg, network, summary, data.batch_size)
    if trainer.world_size > 1 and cfg.trainer.get("sync_batchnorm"):
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    task: Task = build(cfg.task, "task", Task, _partial_=True)(
        network=network,
        num_classes=data.num_classes,
        optimizer=_optimizer(cfg, **hardware.fused(cfg.trainer.fused, cfg.optim, device)),
        schedule=build(
            cfg.scheduler,
            "scheduler",
            partial=True,
            optional=() if cfg.scheduler.warmup_epochs else ("warmup_epochs",),
        ),
        seed=cfg.seed,
        several_processes=trainer.world_size > 1,
    )
    images = len(data.indices["train"]) * (1 + data.augmentation.copies)
    _check_optimizer(cfg, task, max(1, images // (data.batch_size * cfg.trainer.accumulate_grad_batches)))
    if compiled:
        task.compiled_forward = compilation.compile_forward(
            network,
            summary.macs * data.batch_size,
            device,
            lenient=cfg.trainer.compile == "auto",
            accumulates=cfg.trainer.accumulate_grad_batches > 1,
        )
    return task


def _check_optimizer(cfg: DictConfig, task: Task, steps_per_epoch: int) -> None:
    """Make optimizer and schedules once, before anything is written; they are made again where the weights train.

    Raises:
        UserError: Where they cannot be made of this network, or are none.
    """
    try:
        optimizer = task.optimizer(task._parameter_groups())
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"optim: {cfg.optim._target_} fails: {describe_error(error)}") from error
    if not isinstance(optimizer, Optimizer):
        raise UserError(
            f"optim: {cfg.optim._target_} makes something of type {type(optimizer).__name__}, no Optimizer of torch"
        )
    assert task.schedule is not None
    wanted = f"scheduler: {cfg.scheduler._target_} is called with (optimizer, epochs, steps_per_epoch)"
    try:
        schedules = task.schedule(optimizer, epochs(cfg), steps_per_epoch)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{wanted} and fails: {describe_error(error)}") from error
    if not isinstance(schedules, list) or not all(isinstance(one, dict) and "scheduler" in one for one in schedules):
        raise UserError(
            f"{wanted} and returns something of type {type(schedules).__name__}: return a list of dicts, "
            '{"scheduler": ..., "interval": "step" or "epoch"}'
        )


def short(option: Any) -> str:
    """Return the name of a group's chosen option, or of several."""
    return "+".join(option) if OmegaConf.is_list(option) else str(option)
