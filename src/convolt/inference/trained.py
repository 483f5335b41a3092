"""A finished run, taken up again: its network with the tested weights, and how it takes images."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor, nn

from convolt.config.instantiate import build, target
from convolt.config.schema import NETWORK_KEYS
from convolt.config.starting_weights import tested_checkpoint
from convolt.data.loader import Preprocessing
from convolt.errors import UserError, did_you_mean
from convolt.models.precision import DTYPES, convert
from convolt.runs.checkpoints import load_weights
from convolt.runs.files import PREPROCESSING, RunFiles
from convolt.runs.stored_settings import stored_settings
from convolt.tasks.task import Task
from convolt.training import hardware
from convolt.training.machine import Machine

TESTED_WITH = {"precision", "threads", "channels_last", "tf32", "cudnn_benchmark", "deterministic"}
"""Keys of the section `trainer` on which bits depend, and which a result records."""


@dataclass(frozen=True)
class InputSpec:
    """How a run takes images, all of it from its directory.

    Attributes:
        dataset: Name of the data that it was trained on.
        classes: Names, in the order of the logits.
        channels: 1 gray, 3 color.
        stored_size: Side in pixels to which files are brought first.
        padding: Black pixels added on every side then.
        image_size: Side of the network's input.
        mean: Of each channel, as a fraction of white.
        std: Likewise.
        resize: How files are brought to the stored size: crop or stretch.
        white: The value of white in gray files of 16 bits; None: 65535.
    """

    dataset: str
    classes: list[str]
    channels: int
    stored_size: int
    padding: int
    image_size: int
    mean: list[float]
    std: list[float]
    resize: str
    white: int | None = None

    def preprocessing(self, device: torch.device | str = "cpu") -> Preprocessing:
        """Return what turns bytes (B, stored_size, stored_size, channels) into the network's input."""
        return Preprocessing(self.padding, self.image_size, self.mean, self.std, device)


class TrainedRun:
    """A finished run's directory.

    Args:
        folder: The directory.

    Raises:
        UserError: When it holds no finished run, or a file of it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = RunFiles(folder)
        if not self.files.config_file.is_file():
            raise UserError(f"{folder}: {_why_not(folder)}")
        self.result = self.files.result()
        if not self.result:
            if self.files.result_file.exists():
                raise UserError(
                    f"{self.files.result_file} is damaged: python train.py resume={folder} measures it again"
                )
            state = self.files.status().get("state", "unfinished")
            raise UserError(f"{folder}: the run has no result yet ({state}): python train.py resume={folder}")
        self.cfg = stored_settings(folder, "run")

    @cached_property
    def input_spec(self) -> InputSpec:
        """How it takes images."""
        record = self.files.preprocessing()
        if not record:
            raise UserError(
                f"{self.folder}: {PREPROCESSING} is missing: the run is older than this command; run it anew"
            )
        try:
            return InputSpec(**record)
        except TypeError as error:
            raise UserError(f"{self.folder / PREPROCESSING} is damaged: {error}") from error

    @property
    def checkpoint(self) -> Path:
        """The checkpoint that was tested."""
        return self.files.checkpoints / tested_checkpoint(self.result)

    def config(self) -> DictConfig:
        """Return a copy of the settings with what was left to the data filled in."""
        cfg, input_spec = self.cfg.copy(), self.input_spec
        with open_dict(cfg):
            cfg.data.num_classes, cfg.data.channels = len(input_spec.classes), input_spec.channels
            cfg.data.image_size = input_spec.image_size
        return cfg

    @property
    def kind(self) -> type[Task]:
        """The kind of task that it was trained for."""
        found: type[Task] = target(self.cfg.task, "task")
        return found

    def task(self, precision: str = "32-true") -> Task:
        """Return the task with the tested weights, in evaluation, on the CPU.

        Args:
            precision: In what it is to compute: 64-true keeps weights in double precision, which others would round.
        """
        cfg = self.config()
        with torch.random.fork_rng(devices=[]):
            network: nn.Module = build(_without_downloads(cfg.model), "model", optional=NETWORK_KEYS)
        task: Task = build(cfg.task, "task", _partial_=True)(
            network=network,
            num_classes=len(self.input_spec.classes),
            optimizer=torch.optim.SGD,  # never made
        )
        if precision == "64-true":
            convert(task, precision)
        if not self.checkpoint.is_file():
            raise UserError(f"{self.checkpoint} is missing: restore it, or train it anew by force=true")
        try:
            load_weights(task, self.checkpoint)
        except RuntimeError as error:
            raise UserError(str(error).splitlines()[0]) from None
        if self.result["channels_last"]:
            network.to(memory_format=torch.channels_last)
        return task.eval()

    def trainer_settings(self, settings: DictConfig, device: torch.device, typed: Collection[str] = ()) -> DictConfig:
        """Return the section `trainer` with what bits depend on as the run was tested, where it was on such a device.

        Args:
            settings: The section as it was asked for, which is not changed.
            device: Where the network is to be used.
            typed: Names that are to stay as they were asked for.
        """
        settings = settings.copy()
        if self.is_same_device(device):
            for name in TESTED_WITH - set(typed):
                if name in self.result:
                    OmegaConf.update(settings, name, self.result[name], force_add=True)
        return settings

    def is_same_device(self, device: torch.device) -> bool:
        """Tell whether the run was tested on such a device."""
        return bool(hardware.device_name(device) == self.result["device"])


@dataclass(frozen=True)
class Predictor:
    """A network that says the probabilities of the classes, as it was tested: precision, memory format, batches.

    Attributes:
        run: The run.
        task: In evaluation, on the device.
        machine: On what it computes, and how.
    """

    run: TrainedRun
    task: Task
    machine: Machine

    @classmethod
    def load(cls, run: TrainedRun) -> "Predictor":
        """Load a run's network to the best device here; on one unlike the run's it computes in float32."""
        settings = run.cfg.trainer.copy()
        OmegaConf.update(settings, "accelerator", "auto")
        OmegaConf.update(settings, "devices", 1)
        OmegaConf.update(settings, "precision", "32-true")
        machine = Machine.of(run.trainer_settings(settings, Machine.of(settings).device))
        machine.apply()
        task = run.task(machine.precision)
        machine.prepare(task.network)
        machine.converted(task)
        return cls(run, task, machine)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.machine.device

    @property
    def batch_size(self) -> int:
        """Images of a batch in evaluation."""
        data = self.run.cfg.data
        return int(data.eval_batch_size or max(data.batch_size, 256))

    def __call__(self, stored: Tensor) -> Tensor:
        """Return (B, K) probabilities, or (B, K, H, W) where every pixel has its own, on the CPU.

        Args:
            stored: (B, S, S, C), bytes, as files are read for this run.
        """
        images = self.run.input_spec.preprocessing(self.device)(stored.to(self.device))
        images = images.to(DTYPES.get(self.machine.precision, images.dtype))
        with torch.inference_mode(), self.machine.autocast():
            logits: Tensor = self.task(images)
        return logits.float().softmax(1).cpu()


def _without_downloads(node: DictConfig) -> DictConfig:
    """Return a network's node that fetches no pretrained weights, since trained ones take their place."""
    if node.get("pretrained"):
        with open_dict(node):
            node.pretrained = False
    return node


def _why_not(folder: Path) -> str:
    if not folder.exists():
        siblings = [str(path) for path in folder.parent.glob("*")]
        return f"there is no such directory{did_you_mean(str(folder), siblings)}"
    if not folder.is_dir():
        return "this is a file; the directory of a run is wanted"
    inside = sorted(path.parent.parent for path in folder.glob("*/.hydra/config.yaml"))
    inside = inside or sorted(path.parent.parent for path in folder.glob("*/*/.hydra/config.yaml"))
    hint = f"; it holds runs, such as {inside[-1]}" if inside else "; `python report.py outputs` lists runs"
    return f"there is no run in it (.hydra/config.yaml is missing){hint}"
