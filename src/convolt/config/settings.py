"""The settings of a run as typed, frozen objects: what each section holds, and in which range.

Defaults stand in `conf/train.yaml` alone. `ABSENT` marks keys that only some targets take.
"""

import re
from collections.abc import Mapping
from functools import reduce
from operator import getitem
from typing import Annotated, Any, Literal, Self

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from convolt.errors import UserError, did_you_mean_key
from convolt.system.installation import CONF

CONFIG_NAME = "train"

KEYS_ADDED_LATER: dict[str, Any] = {
    "trainer.sync_batchnorm": False,
    "trainer.batch_per": "run",
    "trainer.learning_rate_rule": "none",
    "trainer.chunk": "auto",
    "init_from": None,
    "data.white": None,
    "data.source.white": None,
    "logger": {"tensorboard": {}},
}
"""Settings that came after the first runs, and what they were until then: a key, a section, or a group's choice
(`choices.GROUP`). At that value they are left out of the hash, so that finished runs stay finished."""

HASHED_KEYS_ADDED_LATER = (
    "pictures", "data.stage", "debug.profile", "task.test_time_flip",
    "trainer.compile", "trainer.fused", "trainer.tf32", "trainer.cudnn_benchmark",
)  # fmt: skip
"""Further ones, from before there was the table. A config that lacks any other key is damaged."""

ABSENT: Any = None

Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Index = Annotated[int, Field(ge=0)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Auto = Literal["auto"]


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class _TargetSection(_Section):
    """A section with a `_target_`, whose other keys are the target's."""

    model_config = ConfigDict(extra="allow")


class ModelSettings(_TargetSection):
    """`model`: the network."""

    in_channels: Count | None
    num_classes: Count | None
    image_size: Count | None
    activation: str
    init: str
    name: Any = ABSENT
    dropout: BelowOne | None = ABSENT
    pretrained: bool | str = ABSENT
    width: Positive | None = ABSENT
    hidden: Count | None = ABSENT
    head_kernel: Count | None = ABSENT


class BatchNormSettings(_TargetSection):
    """`batchnorm`: where normalization stands, and its constants."""

    placement: Literal["auto", "before", "after", "none"]
    momentum: Fraction
    eps: Positive


class DataSettings(_TargetSection):
    """`data`: the images, their split and their batches."""

    root: str
    batch_size: Count
    eval_batch_size: Count | None
    val_fraction: BelowOne
    split_seed: Index
    train_size: Count | None
    label_noise: Fraction
    classes: list[str] | None
    superclasses: list[str] | None
    labels: Literal["fine", "coarse"]
    image_size: Count | None
    channels: Count | None
    num_classes: Count | None
    padding: Index
    mean: list[Fraction] | None
    std: list[Positive] | None
    device: Literal["auto", "cpu", "cuda"]
    stage: bool
    source: Any = ABSENT
    path: Any = ABSENT
    resize: Any = ABSENT
    white: Any = ABSENT

    @property
    def evaluation_batch_size(self) -> int:
        """Images of a batch in evaluation."""
        return self.eval_batch_size or max(self.batch_size, 256)


class OptimSettings(_TargetSection):
    """`optim`: the optimizer."""

    lr: Positive
    weight_decay: NotNegative
    momentum: BelowOne = ABSENT
    alpha: BelowOne = ABSENT
    betas: Annotated[list[BelowOne], Field(min_length=2, max_length=2)] | None = ABSENT
    eps: Positive = ABSENT


class SchedulerSettings(_TargetSection):
    """`scheduler`: the learning rate over the epochs."""

    warmup_epochs: NotNegative
    gamma: Positive | list[Positive] = ABSENT
    factor: Annotated[float, Field(gt=0, lt=1)] = ABSENT
    initial_factor: Annotated[float, Field(gt=0, le=1)] = ABSENT
    final_factor: Fraction = ABSENT
    patience: Index = ABSENT
    milestones: list[NotNegative] | None = ABSENT
    monitor: str = ABSENT


class AugmentationSettings(_TargetSection):
    """`augmentation`: what training images go through."""

    copies: Index
    transforms: dict[str, Any]


class TaskSettings(_TargetSection):
    """`task`: loss and metrics."""

    label_smoothing: BelowOne
    weight_decay_on: Literal["all", "weights"]
    test_time_flip: bool
    metrics: list[str] | None = ABSENT
    class_weights: list[NotNegative] | None = ABSENT


class CheckpointSettings(_Section):
    """`trainer.checkpoint`."""

    monitor: str


class EarlyStoppingSettings(_Section):
    """`trainer.early_stopping`."""

    monitor: str
    patience: Count | None
    min_delta: NotNegative


class TrainerSettings(_Section):
    """`trainer`: the hardware as requested (`convolt.training.machine` resolves it), and Lightning's options."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"]
    devices: Count | Auto | list[int]
    strategy: str
    sync_batchnorm: bool
    batch_per: Literal["run", "device"]
    learning_rate_rule: Literal["none", "linear"]
    max_epochs: Count
    precision: Literal["auto", "32-true", "64-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true"]
    channels_last: bool | Auto
    threads: Count | Auto
    compile: bool | Auto
    fused: bool | Auto
    tf32: bool
    cudnn_benchmark: bool | Auto
    deterministic: bool
    accumulate_grad_batches: Count
    chunk: Count | Auto
    find_batch_size: bool
    gradient_clip_val: Positive | None
    test: Literal["best", "last", "none"]
    checkpoint: CheckpointSettings
    early_stopping: EarlyStoppingSettings


class DebugSettings(_Section):
    """`debug`: caps that beat every other value."""

    max_epochs: Count | None
    epochs: Count | None
    limit_batches: Count | None
    overfit_images: Count | None
    batch_size: Count | None
    profile: bool


class PictureSettings(_Section):
    """`pictures`: what a run draws."""

    enabled: bool
    detail: Literal["full", "light"]
    every_n_epochs: Count | None
    layers: Auto | list[str]
    map_images: Index
    tsne: bool
    graph: bool

    @property
    def light(self) -> bool:
        """Whether only what says how good the network is gets drawn."""
        return self.detail == "light"


class WandbSettings(_Section):
    """`logger.wandb`: Weights & Biases."""

    project: str
    entity: str | None
    mode: Literal["online", "offline", "disabled"] | None


class MlflowSettings(_Section):
    """`logger.mlflow`: MLflow."""

    tracking_uri: str
    experiment: str | None


class LoggerSettings(_Section):
    """`logger`: the trackers that a run tells of its curves, pictures and choices; None: not this one."""

    tensorboard: _Section | None = ABSENT
    csv: _Section | None = ABSENT
    wandb: WandbSettings | None = ABSENT
    mlflow: MlflowSettings | None = ABSENT


class StartingWeights(_Section):
    """What `init_from=RUN_DIR` becomes; see `convolt.config.starting_weights`."""

    run: str
    checkpoint: str
    sha256: str


class Settings(_Section):
    """All settings of a run, checked and resolved.

    `cfg` is the config that they were read from, for what needs OmegaConf: `build`, hashes and files.
    """

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    force: bool
    summary: bool
    init_from: str | StartingWeights | None
    model: ModelSettings
    batchnorm: BatchNormSettings
    data: DataSettings
    optim: OptimSettings
    scheduler: SchedulerSettings
    augmentation: AugmentationSettings
    task: TaskSettings
    trainer: TrainerSettings
    debug: DebugSettings
    pictures: PictureSettings
    logger: LoggerSettings
    callbacks: dict[str, Any]
    choices: dict[str, Any]
    overrides: list[str]

    _cfg: DictConfig = PrivateAttr()

    @classmethod
    def of(cls, cfg: DictConfig) -> Self:
        """Read a config, which is not changed; keys that were added after it was stored are filled in.

        Raises:
            UserError: Names the first key that is wrong, its value and what would be right.
        """
        try:
            plain: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            raise explain_unresolved(error) from None
        try:
            try:
                settings = cls.model_validate(plain)
            except ValidationError as error:
                if not _fill_in(plain, error):
                    raise
                settings = cls.model_validate(plain)
        except ValidationError as error:
            raise _explain(error, plain) from None
        settings._cfg = cfg
        return settings

    @property
    def cfg(self) -> DictConfig:
        """The config, with its interpolations."""
        return self._cfg

    def replaced(self, values: Mapping[str, Any]) -> Self:
        """Return a copy with other values of dotted keys; what is interpolated from them follows."""
        cfg = self._cfg.copy()
        with open_dict(cfg):
            for key, value in values.items():
                OmegaConf.update(cfg, key, value)
        return type(self).of(cfg)

    @property
    def tests(self) -> bool:
        """Whether the run measures the test images; one that does not never opens them."""
        return self.trainer.test != "none"

    @property
    def epochs(self) -> int:
        """The number of epochs after the debug preset's caps."""
        most = self.trainer.max_epochs
        return self.debug.epochs or min(most, self.debug.max_epochs or most)

    def choice(self, group: str) -> str:
        """Return the chosen option of a group, several of them joined by "+"; empty where none is recorded."""
        option = self.choices.get(group, "")
        return "+".join(option) if isinstance(option, list) else str(option)


def common_page() -> DictConfig:
    """Read `conf/train.yaml`."""
    page = OmegaConf.load(CONF / f"{CONFIG_NAME}.yaml")
    assert isinstance(page, DictConfig)
    return page


def explain_unresolved(error: Any) -> UserError:
    """Explain an interpolation that leads nowhere."""
    line = str(error).splitlines()[0]
    if found := re.search(r"Environment variable '(.+?)' not found", line):
        line = f"the environment has no variable {found[1]}: export it, or write ${{oc.env:{found[1]},DEFAULT}}"
    return UserError(f"{error.full_key}: {line}" if error.full_key else line)


def _fill_in(plain: Any, error: ValidationError) -> bool:
    """Fill in the keys that were added after a config was stored; return whether there were any."""
    missing = [each["loc"] for each in error.errors() if each["type"] == "missing"]
    added = {*KEYS_ADDED_LATER, *HASHED_KEYS_ADDED_LATER}
    missing = [key for key in missing if ".".join(map(str, key)) in added or key[0] in added]
    defaults = flatten(OmegaConf.to_container(common_page())) if missing else {}
    for *sections, name in missing:
        key = ".".join(map(str, (*sections, name)))
        reduce(getitem, sections, plain)[name] = KEYS_ADDED_LATER.get(key, defaults.get(key))
    return bool(missing)


def _explain(error: ValidationError, plain: dict[str, Any]) -> UserError:
    """Explain the first of pydantic's findings in a line."""
    first = error.errors()[0]
    if first["type"] == "missing":
        return UserError(f"the key {'.'.join(map(str, first['loc']))} is missing")
    path: list[str] = []
    inside: Any = plain
    for part in first["loc"]:
        # Pydantic names the branch of a union that it tried last; only real keys are of interest.
        if (isinstance(inside, dict) and part in inside) or (isinstance(inside, list) and isinstance(part, int)):
            path.append(str(part))
            inside = inside[part]  # type: ignore[index]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        known = [other for other in flatten(plain) if not f"{other}.".startswith(f"{key}.")]
        return UserError(f"there is no key {key}: take it out of the command line{did_you_mean_key(key, known)}")
    message = first["msg"].replace("Input should be", "it must be")
    return UserError(f"{key}={format_value(first['input'])} will not do: {message}")


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return the values of nested sections by their dotted keys, the sections themselves too."""
    flat: dict[str, Any] = {}
    for name, value in node.items() if isinstance(node, dict) else ():
        flat |= {f"{prefix}{name}": value} | flatten(value, f"{prefix}{name}.")
    return flat


def format_value(value: Any) -> str:
    """Format a value as it is typed."""
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)
