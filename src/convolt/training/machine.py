"""What a run computes on and how: the section `trainer` with each `auto` resolved once, by what the hardware has."""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import nn

from convolt.config.settings import TrainerSettings
from convolt.errors import UserError, did_you_mean
from convolt.models.precision import AUTOCAST, convert, make_plugins
from convolt.models.repeatable import make_repeatable
from convolt.system import cublas
from convolt.system.cores import count_cores, name_processor, read_cpu_info

STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true")
"""How several devices may train a run."""


@dataclass(frozen=True)
class Machine:
    """The devices of a run, and how they compute.

    Attributes:
        rank: This process's number among those of its run; the first one writes.
        device: The device of this process.
        devices: Numbers of all the run's devices; a process each.
        precision: Lightning's name of it.
        channels_last: Whether convolutions keep channels last in memory.
        threads: CPU threads of a process.
        fused: Whether an optimizer updates all parameters in one kernel; None: as PyTorch decides.
        tf32: Whether a GPU may round the factors of float32 products.
        cudnn_benchmark: Whether cuDNN tries its algorithms and takes the fastest.
        deterministic: Whether equal runs must give equal bits.
    """

    rank: int
    device: torch.device
    devices: tuple[int, ...]
    precision: str
    channels_last: bool
    threads: int
    fused: bool | None
    tf32: bool
    cudnn_benchmark: bool
    deterministic: bool

    @classmethod
    def of(cls, settings: TrainerSettings, rank: int = 0, *, one_device: bool = False) -> Self:
        """Resolve the section `trainer`.

        Args:
            settings: The section.
            rank: This process's number among those of its run.
            one_device: Use the first device alone, for evaluation and prediction.

        Raises:
            UserError: When devices are requested that are not there, or that would not train together.
        """
        kind = _accelerator(settings.accelerator)
        devices = _first_device(settings) if one_device else _devices(settings, kind)
        benchmark, fused = settings.cudnn_benchmark, settings.fused
        return cls(
            rank=rank,
            device=torch.device(kind) if kind == "cpu" else torch.device(kind, devices[rank]),
            devices=devices,
            precision=_precision(settings.precision, kind),
            channels_last=kind in ("cpu", "cuda") if settings.channels_last == "auto" else settings.channels_last,
            threads=_share_of_threads(len(devices)) if settings.threads == "auto" else settings.threads,
            fused=(True if kind == "cuda" else None) if fused == "auto" else fused,
            tf32=settings.tf32,
            cudnn_benchmark=kind == "cuda" and not settings.deterministic if benchmark == "auto" else benchmark,
            deterministic=settings.deterministic,
        )

    @property
    def processes(self) -> int:
        """How many processes train the run."""
        return len(self.devices)

    @property
    def device_name(self) -> str:
        """The name of the device as its maker writes it."""
        return _device_name(self.device)

    def as_recorded(self, result: Mapping[str, Any], *, but: set[str] | None = None) -> Self:
        """Return the machine with what bits depend on as a result recorded it, where that is of such a device.

        Args:
            result: What `result.json` holds.
            but: Names of what stays.
        """
        names = {"precision", "threads", *_RECORDED} - (but or set())
        if result["device"] != self.device_name:
            return self
        return replace(self, **{name: result[name] for name in names if name in result})

    def record(self) -> dict[str, Any]:
        """Return what a result records of the machine."""
        return {
            "device": self.device_name,
            "devices": self.processes,
            "precision": self.precision,
            **{name: getattr(self, name) for name in _RECORDED},
            "threads": self.threads,
        }

    def apply(self) -> None:
        """Set what PyTorch keeps for the whole process."""
        if self.device.type == "cuda":  # PyTorch looks once a process, which may have deterministic runs later
            cublas.make_cublas_deterministic()
        torch.set_num_threads(self.threads)
        if torch.cuda.is_available():  # TF32 drops 13 of the 23 bits of a float32 factor, on GPUs from Ampere on
            torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
            torch.backends.cudnn.allow_tf32 = self.tf32
        torch.backends.cudnn.benchmark = self.cudnn_benchmark
        torch.use_deterministic_algorithms(self.deterministic)

    def prepare(self, network: nn.Module) -> nn.Module:
        """Bring a network into the memory format, and to layers that repeat their bits where they must; in place."""
        if self.deterministic and self.device.type == "cuda":
            make_repeatable(network)
        return network.to(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)

    def converted(self, module: nn.Module) -> nn.Module:
        """Move a module to the device and to the type of the precision, as Lightning does in a run; in place."""
        return convert(module, self.precision).to(self.device)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which a network computes in a mixed precision."""
        return torch.autocast(self.device.type, AUTOCAST.get(self.precision), enabled=self.precision in AUTOCAST)

    def trainer_arguments(self, *other_plugins: Any) -> dict[str, Any]:
        """Return what tells a Lightning Trainer the devices and the precision: its name or a plugin."""
        own = make_plugins(self.precision) if self.device.type in ("cpu", "cuda") else []
        return {
            "accelerator": self.device.type,
            "devices": self.processes if self.device.type == "cpu" else list(self.devices),
            "precision": None if own else self.precision,
            "plugins": [*other_plugins, *own],
        }


_RECORDED = ("channels_last", "tf32", "cudnn_benchmark", "deterministic")


def _accelerator(requested: str) -> str:
    """Return cpu, cuda or mps for the requested accelerator.

    Raises:
        UserError: When PyTorch sees no such device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if requested == "auto":
        return next(name for name in available if available[name])
    kind = requested if requested != "gpu" else "mps" if available["mps"] and not available["cuda"] else "cuda"
    if not available[kind]:
        raise UserError(
            f"trainer.accelerator={kind}: PyTorch sees no such device here; use trainer=auto or trainer=cpu"
        )
    return kind


def _first_device(settings: TrainerSettings) -> tuple[int, ...]:
    return tuple(settings.devices[:1]) if isinstance(settings.devices, list) and settings.devices else (0,)


def _devices(settings: TrainerSettings, kind: str) -> tuple[int, ...]:
    """Return the numbers of the devices that train a run.

    Raises:
        UserError: When there are not so many devices, or none of such a number, or they would not train by DDP.
    """
    if settings.strategy not in STRATEGIES:
        raise UserError(
            f"trainer.strategy={settings.strategy}: several devices train a run by DDP, trainer=ddp"
            f"{did_you_mean(settings.strategy, STRATEGIES)}"
        )
    devices = settings.devices
    count = {"cuda": torch.cuda.device_count(), "mps": 1}.get(kind)
    if isinstance(devices, list):
        key = f"trainer.devices={devices}"
        if count is None:
            raise UserError(f"{key}: a CPU has no numbered devices; set trainer.devices={len(devices) or 1}")
        if not devices or len(set(devices)) < len(devices):
            raise UserError(f"{key}: list each device once, from 0 to {count - 1}, or set how many")
        if not all(0 <= number < count for number in devices):
            raise UserError(f"{key}: the devices here are numbered from 0 to {count - 1}")
        return tuple(devices)
    requested = (count or 1) if devices == "auto" else devices
    if count is not None and requested > count:
        raise UserError(f"trainer.devices={devices}: there are {count} here; set fewer, or trainer.devices=auto")
    return tuple(range(requested))


def _share_of_threads(processes: int) -> int:
    """Return a process's share of the threads of a sweep's slot, or of the cores that this process may use."""
    return max(1, int(os.environ.get("CONVOLT_THREADS") or count_cores()) // processes)


def _precision(requested: str, kind: str) -> str:
    """Return Lightning's name of the precision: bf16-mixed for auto where the hardware multiplies in bfloat16."""
    if requested == "16-mixed" and kind == "cpu":  # as Lightning does: CPUs have no float16 to speak of
        return "bf16-mixed"
    if requested != "auto":
        return requested
    on_gpu = kind == "cuda" and torch.cuda.get_device_capability()[0] >= 8  # from Ampere on
    on_cpu = kind == "cpu" and not {"amx_bf16", "avx512_bf16"}.isdisjoint(read_cpu_info("flags").split())
    return "bf16-mixed" if on_gpu or on_cpu else "32-true"


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return name_processor()
