"""What a run is built from, as its settings say: data, network, task, pictures."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any

import pytorch_lightning as pl
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import Callback, StochasticWeightAveraging
from torch import nn
from torch.optim import Optimizer

from convolt.config.check import NETWORK_KEYS, SEARCHES_ONE_DEVICE
from convolt.config.instantiate import build, describe_error, target
from convolt.config.settings import Settings, common_page
from convolt.data.augment import Augmentation
from convolt.data.module import ImageDataModule
from convolt.errors import UserError
from convolt.models.find_layers import check_layers
from convolt.models.summary import NetworkSummary, check_targets, summarize_network
from convolt.runs.directory import RunDirectory
from convolt.system.memory import reset_peak_memory
from convolt.tasks.task import Task, for_task
from convolt.training import compilation
from convolt.training.batch_size import find_batch_size
from convolt.training.callbacks.pictures import Pictures
from convolt.training.callbacks.predictions import COLLECTORS
from convolt.training.callbacks.screen import Screen
from convolt.training.chunked import batches_of_a_chunk
from convolt.training.machine import Machine

_COPIES_OF_WEIGHTS = 4
"""Weights, their gradients and the two moments of Adam."""

_COPIES_OF_ACTIVATIONS = 2
"""What each layer puts out is kept for the backward pass, and has a gradient in it."""


@dataclass
class Experiment:
    """What a run trains and tests: a network on images, on a machine; `compiled`: by a compiled training pass."""

    settings: Settings
    machine: Machine
    data: ImageDataModule
    network: nn.Module
    summary: NetworkSummary
    compiled: bool = False

    @property
    def validates(self) -> bool:
        """Whether there are validation images."""
        return len(self.data.indices["val"]) > 0

    def facts(self, config_hash: str) -> dict[str, Any]:
        """Return what a resumed run must know and cannot read from the settings; it stands in every checkpoint."""
        return {
            "config_hash": config_hash,
            "dataset": self.data.dataset.name,
            "dataset_hash": self.data.digest,
            "batch_size": self.settings.data.batch_size,
            "device": self.machine.device_name,
            "precision": self.machine.precision,
            "threads": self.machine.threads,
            "processes": self.machine.processes,
            "compiled": self.compiled,
            "step_images": self.data.batch_size,
            "mixes": self.data.augmentation.mixes,
        }

    def preprocessing(self) -> dict[str, Any]:
        """Return how images become the network's input, and how files are read: what `predict.py` must do alike."""
        white = self.settings.data.white
        reading = {"resize": self.settings.data.resize or "crop"} | ({"white": white} if white is not None else {})
        return self.data.record() | reading


def make_data(settings: Settings) -> tuple[ImageDataModule, Settings]:
    """Build the data module; return it with the settings in which what they leave to the dataset is filled in."""
    if settings.debug.batch_size is not None:
        settings = settings.replaced({"data.batch_size": settings.debug.batch_size})
    augmentation = build(settings.cfg.augmentation, "augmentation", Augmentation)
    make = build(settings.cfg.data, "data", ImageDataModule, known_only=True, _partial_=True)
    overfit_images = settings.debug.overfit_images
    augmentation = None if overfit_images else augmentation
    with _explain_errors(f"data: {settings.cfg.data._target_} fails", TypeError):
        data: ImageDataModule = make(augmentation=augmentation, seed=settings.seed, overfit_images=overfit_images)
    data.tests = settings.tests
    data.setup()
    data.preprocessing()  # refuses what does not fit to the images before anything is written
    filled_in = {name: getattr(data, name) for name in ("num_classes", "channels", "image_size")}
    return data, settings.replaced({f"data.{name}": value for name, value in filled_in.items()})


def make_network(settings: Settings, data: ImageDataModule) -> tuple[nn.Module, NetworkSummary]:
    """Build the network from the seed, and check that it takes the images."""
    network, summary, name = summarize_model(settings, data.channels, data.image_size)
    chosen = f"data={settings.choice('data')}"
    check_targets(f"model={name}", summary.output_shape, chosen, data.target_shape, data.num_classes)
    return network, summary


def summarize_model(settings: Settings, channels: int, image_size: int) -> tuple[nn.Module, NetworkSummary, str]:
    """Build the network from the seed; return it with its counts and its name."""
    pl.seed_everything(settings.seed, workers=True, verbose=False)
    network: nn.Module = build(settings.cfg.model, "model", nn.Module, optional=_default_network_keys(settings))
    name = str(settings.model.name or settings.choice("model") or type(network).__name__)
    return network, summarize_network(network, channels, image_size, name), name


def _default_network_keys(settings: Settings) -> list[str]:
    """Return the keys of the network that have the common page's values: no network needs to take those."""
    page = common_page()
    defaults: Any = OmegaConf.merge(settings.cfg, {"batchnorm": page.batchnorm, "model": page.model})
    return [key for key in NETWORK_KEYS if settings.cfg.model.get(key) == defaults.model.get(key)]


def set_batch_size(experiment: Experiment, found: int | None) -> None:
    """Set how many images all processes together take a step, and the learning rate for it.

    `trainer.batch_per=run`: `data.batch_size` images and the rate as typed, for any number of processes. With
    `device` each process takes so many; with `learning_rate_rule=linear` the rate grows alike (Goyal and others 2017).

    Args:
        experiment: Its data and settings are changed.
        found: What `trainer.find_batch_size` found before, where it is not to search again.

    Raises:
        UserError: When there are fewer than two images for each process.
    """
    settings, count = experiment.settings, experiment.machine.processes
    size = settings.data.batch_size
    if settings.trainer.find_batch_size:
        size = found or largest_batch(experiment)
        settings = settings.replaced({"data.batch_size": size})
    reset_peak_memory(experiment.machine.device)  # that of the trials
    step_images = size
    if settings.trainer.batch_per == "device":
        step_images = size * count
        if settings.trainer.learning_rate_rule == "linear":
            settings = settings.replaced({"optim.lr": settings.optim.lr * count})
    elif count > 1 and size < 2 * count:
        raise UserError(
            f"data.batch_size={size}: each of {count} devices needs two images a step; "
            f"set {2 * count} or more, or fewer trainer.devices"
        )
    experiment.settings, experiment.data.batch_size = settings, step_images


def largest_batch(experiment: Experiment) -> int:
    """Find the largest batch that fits; whatever is random stays as it was.

    Raises:
        UserError: When several devices train together, or not even two images fit.
    """
    data, machine = experiment.data, experiment.machine
    if machine.processes > 1:  # trainer.devices=auto found several
        raise UserError(SEARCHES_ONE_DEVICE)
    data.needed_beside = training_bytes(experiment, 2)
    return find_batch_size(
        experiment.network,
        _make_optimizer(experiment.settings),
        (data.channels, data.image_size, data.image_size),
        data.num_classes,
        machine.device,
        machine.precision,
        most=len(data.indices["train"]),
        reserved=data.resident_bytes(machine.device),
    )


def training_bytes(experiment: Experiment, step_images: int) -> int:
    """Return about what training takes on a device: weights, gradients, moments and activations."""
    images = step_images // experiment.machine.processes
    return estimate_training_bytes(experiment.summary, images, experiment.machine.precision)


def estimate_training_bytes(summary: NetworkSummary, images: int, precision: str) -> int:
    """Return about what a network takes that trains on so many images a step."""
    number_bytes = 8 if precision == "64-true" else 4
    return number_bytes * (
        _COPIES_OF_WEIGHTS * summary.parameters + _COPIES_OF_ACTIVATIONS * summary.activations * images
    )


def _make_optimizer(settings: Settings, fused: bool | None = None) -> Any:
    """Return what makes the optimizer; one that knows no weight decay need not take that there is none."""
    node = settings.cfg.optim
    fusible = fused is not None and "fused" not in node and "fused" in signature(target(node, "optim")).parameters
    optional = () if settings.optim.weight_decay else ("weight_decay",)
    more: dict[str, Any] = {"fused": fused} if fusible else {}
    return build(node, "optim", Optimizer, partial=True, optional=optional, **more)


def make_pictures(experiment: Experiment, directory: RunDirectory, screen: Screen) -> Pictures:
    """Make what draws the run, and what collects the predictions for it."""
    settings, pictures = experiment.settings, experiment.settings.pictures
    if pictures.layers != "auto":
        check_layers(experiment.network, pictures.layers)
    collect = for_task(target(settings.cfg.task, "task", Task), COLLECTORS)
    features = 0 if pictures.light else pictures.map_images
    collector = collect(features, pictures.every_n_epochs) if pictures.enabled else collect()
    network, optimizer = settings.choice("model"), settings.choice("optim")
    title = f"{network} on {experiment.data.dataset.name}, {optimizer}, seed {settings.seed}"
    return Pictures(pictures, directory.path, title, experiment.data, collector, screen.say)


def make_callbacks(settings: Settings) -> list[Callback]:
    """Build the user's own callbacks.

    Raises:
        UserError: When one of them changes the weights after the last validation.
    """
    nodes = settings.cfg.callbacks
    made: dict[str, Callback] = {name: build(node, f"callbacks.{name}", Callback) for name, node in nodes.items()}
    for name, each in made.items():
        if isinstance(each, StochasticWeightAveraging):
            raise UserError(
                f"callbacks.{name}: {type(each).__name__} puts its averages in after the last validation, so that they "
                "could be neither chosen nor tested as they were validated: take pytorch_lightning.callbacks."
                "WeightAveraging or EMAWeightAveraging, which validate theirs"
            )
    return list(made.values())


def make_task(experiment: Experiment) -> Task:
    """Wrap the network, and compile its training pass if the experiment says so."""
    settings, machine, data = experiment.settings, experiment.machine, experiment.data
    network = machine.prepare(experiment.network)
    data.needed_beside = training_bytes(experiment, data.batch_size)
    several = machine.processes > 1
    if several and settings.trainer.sync_batchnorm:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    optional = () if settings.scheduler.warmup_epochs else ("warmup_epochs",)
    task: Task = build(settings.cfg.task, "task", Task, _partial_=True)(
        network=network,
        num_classes=data.num_classes,
        optimizer=_make_optimizer(settings, machine.fused),
        schedule=build(settings.cfg.scheduler, "scheduler", partial=True, optional=optional),
        seed=settings.seed,
        several_processes=several,
    )
    data.chunk = batches_of_a_chunk(settings, type(task))
    accumulated = settings.trainer.accumulate_grad_batches
    images_per_epoch = len(data.indices["train"]) * (1 + data.augmentation.copies)
    _check_optimizer(settings, task, max(1, images_per_epoch // (data.batch_size * accumulated)))
    if experiment.compiled:
        task.compiled_forward = compilation.compile_forward(
            network,
            experiment.summary.macs * data.batch_size,
            machine.device.type,
            lenient=settings.trainer.compile == "auto",
            accumulates=accumulated > 1,
        )
    return task


def _check_optimizer(settings: Settings, task: Task, steps_per_epoch: int) -> None:
    """Make optimizer and schedules once, before anything is written; they are made again where the weights train.

    Raises:
        UserError: Where they cannot be made of this network, or are none.
    """
    optimizer_name, schedule_name = settings.cfg.optim._target_, settings.cfg.scheduler._target_
    assert task.schedule is not None
    with _explain_errors(f"optim: {optimizer_name} fails"):
        optimizer = task.optimizer(task._parameter_groups())
    if not isinstance(optimizer, Optimizer):
        kind = type(optimizer).__name__
        raise UserError(f"optim: {optimizer_name} makes something of type {kind}, no Optimizer of torch")
    call = f"scheduler: {schedule_name} is called with (optimizer, epochs, steps_per_epoch)"
    with _explain_errors(f"{call} and fails"):
        schedules = task.schedule(optimizer, settings.epochs, steps_per_epoch)
    if not isinstance(schedules, list) or not all(isinstance(one, dict) and "scheduler" in one for one in schedules):
        raise UserError(
            f"{call} and returns something of type {type(schedules).__name__}: return a list of dicts, "
            '{"scheduler": ..., "interval": "step" or "epoch"}'
        )


@contextmanager
def _explain_errors(what: str, kind: type[Exception] = Exception) -> Iterator[None]:
    """Turn errors of a kind that a target raises into a `UserError` of one line."""
    try:
        yield
    except UserError:
        raise
    except kind as error:
        raise UserError(f"{what}: {describe_error(error)}") from error
