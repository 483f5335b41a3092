"""A finished run in use: its network with the tested weights, and how it takes images."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from convolt.config.check import NETWORK_KEYS
from convolt.config.instantiate import build, target
from convolt.config.settings import Settings
from convolt.config.starting_weights import DIVERGED, explain_bundled, explain_pruned, tested_checkpoint
from convolt.data.loader import Preprocessing
from convolt.errors import UserError, did_you_mean
from convolt.models.precision import DTYPES, convert
from convolt.runs.checkpoints import load_weights
from convolt.runs.files import PREPROCESSING, RunFiles
from convolt.runs.stored_settings import stored_settings
from convolt.system.installation import command_name
from convolt.tasks.task import Task
from convolt.training.machine import Machine


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
            raise UserError(f"{folder}: {_explain_missing_run(folder)}")
        self.result = self.files.result()
        if not self.result:
            resume = f"{command_name('train')} resume={folder}"
            if self.files.result_file.exists():
                raise UserError(f"{self.files.result_file} is damaged: {resume} measures it again")
            state = self.files.status().get("state", "unfinished")
            raise UserError(f"{folder}: the run has no result yet ({state}): {resume}")
        if bundled := explain_bundled(folder):
            raise UserError(f"{folder}: {bundled}")
        if self.result.get("diverged"):
            raise UserError(f"{folder}: {DIVERGED}")
        self.settings = Settings.of(stored_settings(folder, "run"))

    @cached_property
    def input_spec(self) -> InputSpec:
        """How it takes images."""
        record = self.files.preprocessing()
        if not record:
            raise UserError(
                f"{self.folder}: {PREPROCESSING} is missing: the run is older than this command; run it again"
            )
        try:
            return InputSpec(**record)
        except TypeError as error:
            raise UserError(f"{self.folder / PREPROCESSING} is damaged: {error}") from error

    @property
    def checkpoint(self) -> Path:
        """The checkpoint that was tested, or of a run without a test the one that would have been."""
        return self.files.checkpoints / tested_checkpoint(self.result)

    def completed_settings(self) -> Settings:
        """Return the settings with what was left to the data filled in."""
        spec = self.input_spec
        filled_in = {"num_classes": len(spec.classes), "channels": spec.channels, "image_size": spec.image_size}
        return self.settings.replaced({f"data.{name}": value for name, value in filled_in.items()})

    @property
    def kind(self) -> type[Task]:
        """The kind of task that it was trained for."""
        kind: type[Task] = target(self.settings.cfg.task, "task")
        return kind

    def task(self, precision: str = "32-true") -> Task:
        """Return the task with the tested weights, in evaluation, on the CPU.

        Args:
            precision: In what it is to compute: 64-true keeps weights in double precision, which others would round.
        """
        settings = self.completed_settings()
        if settings.model.pretrained:  # trained weights take their place: nothing to download
            settings = settings.replaced({"model.pretrained": False})
        with torch.random.fork_rng(devices=[]):
            network: nn.Module = build(settings.cfg.model, "model", optional=NETWORK_KEYS)
        task: Task = build(settings.cfg.task, "task", _partial_=True)(
            network=network,
            num_classes=len(self.input_spec.classes),
            optimizer=torch.optim.SGD,  # never made
        )
        if precision == "64-true":
            convert(task, precision)
        if not self.checkpoint.is_file():
            if pruned := explain_pruned(self.folder, self.folder, "none"):
                raise UserError(f"{self.folder}: {pruned}")
            raise UserError(f"{self.checkpoint} is missing: restore it, or train it again with force=true")
        try:
            load_weights(task, self.checkpoint)
        except RuntimeError as error:
            raise UserError(str(error).splitlines()[0]) from None
        if self.result["channels_last"]:
            network.to(memory_format=torch.channels_last)
        return task.eval()


@dataclass(frozen=True)
class Predictor:
    """A network that predicts the probabilities of the classes, as it was tested: precision, memory format, batches.

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
        settings = run.settings.trainer.model_copy(update={"accelerator": "auto", "devices": 1, "precision": "32-true"})
        machine = Machine.of(settings, one_device=True).as_recorded(run.result)
        machine.apply()
        task = run.task(machine.precision)
        machine.prepare(task.network)
        machine.converted(task)
        return cls(run, task, machine)

    @property
    def batch_size(self) -> int:
        """Images of a batch in evaluation."""
        return self.run.settings.data.evaluation_batch_size

    def __call__(self, stored: Tensor) -> Tensor:
        """Return (B, K) probabilities, or (B, K, H, W) where every pixel has its own, on the CPU.

        Args:
            stored: (B, S, S, C), bytes, as files are read for this run.
        """
        device = self.machine.device
        images = self.run.input_spec.preprocessing(device)(stored.to(device))
        images = images.to(DTYPES.get(self.machine.precision, images.dtype))
        with torch.inference_mode(), self.machine.autocast():
            logits: Tensor = self.task(images)
        return logits.float().softmax(1).cpu()


def _explain_missing_run(folder: Path) -> str:
    """Return why a folder is no run's directory, and what may be meant."""
    if not folder.exists():
        siblings = [str(path) for path in folder.parent.glob("*")]
        return f"there is no such directory{did_you_mean(str(folder), siblings)}"
    if not folder.is_dir():
        return "this is a file; the directory of a run is wanted"
    runs = sorted(folder.glob("*/.hydra/config.yaml")) or sorted(folder.glob("*/*/.hydra/config.yaml"))
    hint = f"it holds runs, such as {runs[-1].parents[1]}" if runs else f"`{command_name('report')} outputs` lists runs"
    return f"there is no run in it (.hydra/config.yaml is missing); {hint}"
