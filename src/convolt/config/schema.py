"""Types and ranges of the config, checked before torch is imported.

The sections that the framework reads itself are the models below. What a `_target_` takes (a network's depth, a
transform's degrees) is checked against the config as it stands without the user's values: a number stays a number,
whole where it was whole, and 0 or more; the rest is for the target to say.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from convolt.errors import UserError, did_you_mean, did_you_mean_key

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Auto = Literal["auto"]

NETWORK_KEYS = ("in_channels", "num_classes", "image_size", "batchnorm", "activation", "init")
"""The keys of `model` on the common page: every network of ours takes them, one of yours those that it wants."""


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class _OpenSection(BaseModel):
    """A section with a `_target_`, whose other keys are the target's."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Model(_OpenSection):
    in_channels: Count | None
    num_classes: Count | None
    image_size: Count | None
    activation: str
    init: str
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    pretrained: bool | str = False
    width: Positive | None = None
    hidden: Count | None = None
    head_kernel: Count | None = None


class _BatchNorm(_OpenSection):
    placement: Literal["auto", "before", "after", "none"]
    momentum: Fraction
    eps: Positive


class _Data(_OpenSection):
    root: str
    batch_size: Count
    eval_batch_size: Count | None
    val_fraction: Annotated[float, Field(ge=0, lt=1)]
    split_seed: Annotated[int, Field(ge=0)]
    train_size: Count | None
    label_noise: Fraction
    classes: list[str] | None
    superclasses: list[str] | None
    labels: Literal["fine", "coarse"]
    image_size: Count | None
    channels: Count | None
    num_classes: Count | None
    padding: Annotated[int, Field(ge=0)]
    mean: list[Fraction] | None
    std: list[Positive] | None
    device: Literal["auto", "cpu", "cuda"]
    stage: bool = False


class _Optim(_OpenSection):
    lr: Positive
    weight_decay: NotNegative
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0
    alpha: Annotated[float, Field(ge=0, lt=1)] = 0
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] | None = None
    eps: Positive = 1


class _Scheduler(_OpenSection):
    warmup_epochs: NotNegative
    gamma: Positive | list[Positive] = 1
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    initial_factor: Annotated[float, Field(gt=0, le=1)] = 1
    final_factor: Fraction = 0
    patience: Annotated[int, Field(ge=0)] = 0
    milestones: list[NotNegative] | None = None


class _Augmentation(_OpenSection):
    copies: Annotated[int, Field(ge=0)]
    transforms: dict[str, Any]


class _Task(_OpenSection):
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    weight_decay_on: Literal["all", "weights"]
    test_time_flip: bool = False
    metrics: list[str] | None = None
    class_weights: list[NotNegative] | None = None


class _Checkpoint(_Section):
    monitor: str


class _EarlyStopping(_Section):
    monitor: str
    patience: Count | None
    min_delta: NotNegative


class _Trainer(_Section):
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"]
    devices: Count | Auto | list[int]
    strategy: str
    sync_batchnorm: bool = False
    batch_per: Literal["run", "device"] = "run"
    learning_rate_rule: Literal["none", "linear"] = "none"
    max_epochs: Count
    precision: Literal["auto", "32-true", "64-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true"]
    channels_last: bool | Auto
    threads: Count | Auto
    compile: bool | Auto = "auto"
    fused: bool | Auto = "auto"
    tf32: bool = True
    cudnn_benchmark: bool | Auto = "auto"
    deterministic: bool
    accumulate_grad_batches: Count
    find_batch_size: bool
    gradient_clip_val: Positive | None
    test: Literal["best", "last"]
    checkpoint: _Checkpoint
    early_stopping: _EarlyStopping


class _Debug(_Section):
    max_epochs: Count | None
    epochs: Count | None
    limit_batches: Count | None
    overfit_images: Count | None
    batch_size: Count | None
    profile: bool = False


class PictureSettings(_Section):
    """What a run draws; runs of older versions have no such section."""

    enabled: bool = True
    every_n_epochs: Count | None = None
    layers: Auto | list[str] = "auto"
    map_images: Annotated[int, Field(ge=0)] = 500
    tsne: bool = False
    graph: bool = True


class _StartingWeights(_Section):
    """What `init_from=RUN_DIR` becomes; see `convolt.training.init_from`."""

    run: str
    checkpoint: str
    sha256: str


class _Config(_Section):
    """The whole page."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    force: bool
    summary: bool
    init_from: str | _StartingWeights | None = None
    model: _Model
    batchnorm: _BatchNorm
    data: _Data
    optim: _Optim
    scheduler: _Scheduler
    augmentation: _Augmentation
    task: _Task
    trainer: _Trainer
    debug: _Debug
    pictures: PictureSettings = PictureSettings()
    callbacks: dict[str, Any]
    choices: dict[str, Any]
    overrides: list[str]


SECTIONS = tuple(_Config.model_fields)

METRICS = ("accuracy", "precision", "recall", "f1", "top5_accuracy", "calibration_error")
"""Metrics beside the loss that early stopping, plateaus and checkpoints can watch, where the task names no others."""


SEARCHES_ONE_DEVICE = "trainer.find_batch_size=true looks at one device: set data.batch_size for several"


def check(cfg: DictConfig, reference: DictConfig | None = None) -> None:
    """Check types, ranges and what must fit together.

    Args:
        cfg: The composed config.
        reference: The same options without the user's values; None leaves the targets' own keys unchecked.

    Raises:
        UserError: Names the first key that is wrong, its value and what would be right.
    """
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise unresolved(error) from None
    assert isinstance(plain, dict)
    try:
        _Config.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        hint = ""
        if first["type"] == "extra_forbidden":
            unknown = tuple(first["loc"])
            known = [key for key, _ in _leaves(plain) if key[: len(unknown)] != unknown]
            keys = dict.fromkeys(".".join(map(str, key[:depth])) for key in known for depth in range(1, len(key) + 1))
            hint = did_you_mean_key(".".join(map(str, unknown)), keys)
        raise UserError(_line(first, plain) + hint) from None
    for section in ("model", "batchnorm", "data", "optim", "scheduler", "augmentation", "task"):
        if not plain[section].get("_target_"):
            raise UserError(
                f"{section} has no _target_: its page must name a class or function, as `_target_: MODULE.CLASS`"
            )
    if reference is not None:
        _check_kinds(plain, OmegaConf.to_container(reference, resolve=True))
    _check_together(cfg)


def unresolved(error: Any) -> UserError:
    """Tell of an interpolation that leads nowhere."""
    line = str(error).splitlines()[0]
    if found := re.search(r"Environment variable '(.+?)' not found", line):
        line = f"the environment has no variable {found[1]}: export it, or write ${{oc.env:{found[1]},DEFAULT}}"
    return UserError(f"{error.full_key}: {line}" if error.full_key else line)


def _line(error: Any, plain: Any) -> str:
    """Tell one of pydantic's findings in a line of ours."""
    path: list[Any] = []
    for part in error["loc"]:
        # Pydantic names the branch of a union that it tried last; only real keys are of interest.
        inside = plain
        for step in path:
            inside = inside[step]
        if (isinstance(inside, dict) and part in inside) or (isinstance(inside, list) and isinstance(part, int)):
            path.append(part)
    key = ".".join(str(part) for part in error["loc"]) if error["type"] == "missing" else ".".join(map(str, path))
    if error["type"] == "extra_forbidden":
        return f"there is no key {key}: take it out of the command line"
    if error["type"] == "missing":
        return f"the key {key} is missing"
    message = str(error["msg"]).replace("Input should be", "it must be")
    return f"{key}={_written(error['input'])} will not do: {message}"


def _check_kinds(plain: Any, reference: Any) -> None:
    """Check the numbers of targets against those that stand there without the user's values."""
    for key in plain["data"]:
        if key not in reference["data"]:
            raise UserError(f"data.{key}: there is no such key{did_you_mean(key, reference['data'])}")
    for key, value in _leaves(plain):
        section = _Config.model_fields[key[0]].annotation
        if len(key) == 2 and key[1] in getattr(section, "model_fields", ()):
            continue  # the models above say what it may be
        usual = _at(reference, key)
        name = ".".join(map(str, key))
        if isinstance(usual, bool):
            if not isinstance(value, bool):
                raise UserError(f"{name}={_written(value)} will not do: it must be true or false")
        elif isinstance(usual, int | float):
            if value is None or isinstance(value, bool) or not isinstance(value, int | float):
                raise UserError(f"{name}={_written(value)} will not do: it must be a number, such as {usual}")
            if isinstance(usual, int) and not float(value).is_integer() and not isinstance(value, int):
                raise UserError(f"{name}={_written(value)} will not do: it must be a whole number, such as {usual}")
            if usual >= 0 > value or value != value:  # noqa: PLR0124 (not a number)
                raise UserError(f"{name}={_written(value)} will not do: it must be 0 or more")


def _check_together(cfg: DictConfig) -> None:
    """Check what is right by itself and wrong together."""
    watched = {
        "trainer.checkpoint.monitor": cfg.trainer.checkpoint.monitor,
        "trainer.early_stopping.monitor": cfg.trainer.early_stopping.monitor,
        "scheduler.monitor": cfg.scheduler.get("monitor", "val/loss"),
    }
    measured = ("loss", *(cfg.task.get("metrics") or METRICS))
    monitors = [f"{split}/{metric}" for split in ("val", "train") for metric in measured]
    for key, metric in watched.items():
        if metric not in monitors:
            listed = did_you_mean(metric, monitors) or f"; there are {', '.join(monitors)}"
            raise UserError(f"{key}={metric} is no metric that is measured every epoch{listed}")
    brings_its_own = cfg.data.get("source", {}).get("_target_", "").rsplit(".", 1)[-1] in ("Folder", "Arrays", "Masks")
    if cfg.data.val_fraction == 0 and not brings_its_own:
        check_without_validation(cfg)
    if cfg.trainer.find_batch_size and (cfg.trainer.devices not in (1, "auto") or "ddp" in cfg.trainer.strategy):
        raise UserError(SEARCHES_ONE_DEVICE)
    if cfg.trainer.get("learning_rate_rule") == "linear" and cfg.trainer.batch_per == "run":
        raise UserError(
            "trainer.learning_rate_rule=linear: with trainer.batch_per=run the batch does not grow with the devices; "
            "set trainer.batch_per=device too"
        )
    if cfg.get("init_from") is not None and cfg.model.get("pretrained"):
        raise UserError("init_from and model.pretrained both say which weights to start from: leave one of them out")
    if {"mixup", "cutmix"} <= set(cfg.augmentation.transforms):
        raise UserError("augmentation=mixup and augmentation=cutmix cannot both mix an image: choose one of them")


def check_without_validation(cfg: DictConfig) -> None:
    """Refuse what watches validation images where there are none.

    Raises:
        UserError: Names what watches which metric.
    """
    watching = {
        "trainer.early_stopping": cfg.trainer.early_stopping.patience and cfg.trainer.early_stopping.monitor,
        "scheduler=plateau": cfg.scheduler.get("monitor"),
    }
    for what, metric in watching.items():
        if metric and metric.startswith("val/"):
            raise UserError(
                f"{what} watches {metric}, but data.val_fraction=0 leaves no validation images: "
                "hold some out, or watch train/loss"
            )


def _leaves(node: Any, key: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _leaves(value, (*key, name))
    else:
        yield key, node


def _at(node: Any, key: tuple[Any, ...]) -> Any:
    for part in key:
        if not isinstance(node, dict) or part not in node:
            return None
        node = node[part]
    return node


def _written(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)
