"""What a run computes on and how: what each `auto` of the section `trainer` became, applied in one place."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from convolt.models.precision import AUTOCAST, convert, plugins
from convolt.models.repeatable import make_repeatable
from convolt.system import cublas
from convolt.training import hardware


@dataclass(frozen=True)
class Machine:
    """A device, and how it computes.

    Attributes:
        device: The device of this process, or the first one of a run's.
        precision: Lightning's name of it.
        channels_last: Whether convolutions keep channels last in memory.
        threads: CPU threads.
        tf32: Whether a GPU may round the factors of float32 products.
        cudnn_benchmark: Whether cuDNN tries its algorithms.
        deterministic: Whether equal runs must give equal bits.
    """

    device: torch.device
    precision: str
    channels_last: bool
    threads: int
    tf32: bool
    cudnn_benchmark: bool
    deterministic: bool

    @classmethod
    def of(cls, settings: DictConfig) -> "Machine":
        """Resolve the section `trainer`; runs of older versions lack some of its keys.

        Raises:
            UserError: When a device is asked for that is not there.
        """
        kind = hardware.accelerator(settings.accelerator)
        devices = settings.devices
        index = int(devices[0]) if OmegaConf.is_list(devices) and devices else 0
        benchmark = settings.get("cudnn_benchmark", "auto")
        return cls(
            device=torch.device(kind) if kind == "cpu" else torch.device(kind, index),
            precision=hardware.precision(settings.precision, kind),
            channels_last=hardware.channels_last(settings.get("channels_last", "auto"), kind),
            threads=hardware.threads(settings.threads),
            tf32=bool(settings.get("tf32", True)),
            cudnn_benchmark=hardware.cudnn_benchmark(benchmark, kind, deterministic=settings.deterministic),
            deterministic=bool(settings.deterministic),
        )

    def apply(self) -> None:
        """Set what PyTorch keeps for the whole process."""
        if self.device.type == "cuda":  # PyTorch looks once a process, which may have deterministic runs later
            cublas.make_cublas_deterministic()
        torch.set_num_threads(self.threads)
        hardware.allow_tf32(self.tf32)
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
        dtype = AUTOCAST.get(self.precision)
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype=dtype)

    def precision_arguments(self, *others: Any) -> dict[str, Any]:
        """Return what tells a Trainer the precision: its name or a plugin, beside other plugins."""
        own = plugins(self.precision) if self.device.type in ("cpu", "cuda") else []
        return {"precision": None if own else self.precision, "plugins": [*others, *own]}

    def record(self) -> dict[str, Any]:
        """Return what a result tells of it, and a device alone does not."""
        names = ("channels_last", "tf32", "cudnn_benchmark", "deterministic")
        return {name: value for name, value in asdict(self).items() if name in names}
