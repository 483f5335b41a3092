"""What `auto` becomes: by what the hardware has."""

import inspect
import os
import platform
from functools import cache
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from convolt.config.instantiate import target
from convolt.errors import UserError, did_you_mean
from convolt.system.cores import cores

STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true")
"""How several devices may train a run."""


def accelerator(requested: str) -> str:
    """Return cpu, cuda or mps for what was asked.

    Raises:
        UserError: When a device is asked for that is not there.
    """
    requested = {"gpu": "cuda" if torch.cuda.is_available() or not torch.backends.mps.is_available() else "mps"}.get(
        requested, requested
    )
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if requested == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there[requested]:
        raise UserError(
            f"trainer.accelerator={requested}: PyTorch sees no such device here; use trainer=auto or trainer=cpu"
        )
    return requested


def precision(requested: str, device: str) -> str:
    """Return Lightning's name of the precision: bf16-mixed for auto where the hardware computes in bfloat16."""
    if requested != "auto":
        return requested
    return "bf16-mixed" if native_bfloat16(device) else "32-true"


def native_bfloat16(device: str) -> bool:
    """Tell whether hardware multiplies in bfloat16: GPUs from Ampere on, CPUs with AMX or AVX512-BF16."""
    if device == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    return device == "cpu" and bool({"amx_bf16", "avx512_bf16"} & _cpu_flags())


def channels_last(requested: bool | str, device: str) -> bool:
    """Return whether convolutions keep channels last in memory: for auto on the CPU and on CUDA."""
    return device in ("cpu", "cuda") if requested == "auto" else bool(requested)


def fused(requested: bool | str, optim: DictConfig, device: str) -> dict[str, bool]:
    """Return the argument by which an optimizer updates all parameters in one kernel: for auto on CUDA."""
    known = "fused" in inspect.signature(target(optim, "optim")).parameters and "fused" not in optim
    if requested == "auto":
        return {"fused": True} if known and device == "cuda" else {}
    return {"fused": bool(requested)} if known else {}


def cudnn_benchmark(requested: bool | str, device: str, *, deterministic: bool) -> bool:
    """Return whether cuDNN tries its algorithms and takes the fastest: for auto on CUDA unless runs must repeat."""
    return device == "cuda" and not deterministic if requested == "auto" else bool(requested)


def allow_tf32(allowed: bool) -> None:
    """Let float32 products on NVIDIA GPUs from Ampere on drop 13 of the 23 bits of their factors, or forbid it."""
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        torch.backends.cudnn.allow_tf32 = allowed


def threads(requested: int | str) -> int:
    """Return the number of CPU threads: for auto those of a sweep's slot, or the cores that this process may use."""
    return int(os.environ.get("CONVOLT_THREADS") or cores()) if requested == "auto" else int(requested)


def processes(settings: DictConfig) -> int:
    """Return how many processes train a run, one a device.

    Args:
        settings: The section `trainer`.

    Raises:
        UserError: When there are not so many devices, or none of such a number, or they would not train by DDP.
    """
    if settings.strategy not in STRATEGIES:
        raise UserError(
            f"trainer.strategy={settings.strategy}: several devices train a run by DDP, trainer=ddp"
            f"{did_you_mean(settings.strategy, STRATEGIES)}"
        )
    device, devices = accelerator(settings.accelerator), settings.devices
    there = {"cuda": torch.cuda.device_count(), "mps": 1}.get(device)
    if devices == "auto":
        return there or 1
    if OmegaConf.is_list(devices):
        _check_numbers(list(devices), there)
    count = len(devices) if OmegaConf.is_list(devices) else int(devices)
    if there is not None and count > there:
        raise UserError(f"trainer.devices={devices}: there are {there} here; set fewer, or trainer.devices=auto")
    return count


def _check_numbers(numbers: list[int], there: int | None) -> None:
    """Refuse a list of devices of which one is not there.

    Args:
        numbers: What `trainer.devices` lists.
        there: How many devices there are; None on a CPU, where they have no numbers.
    """
    key = f"trainer.devices={numbers}"
    if there is None:
        raise UserError(f"{key}: a CPU has no numbered devices; set trainer.devices={len(numbers) or 1}")
    if not numbers or len(set(numbers)) < len(numbers):
        raise UserError(f"{key}: list each device once, from 0 to {there - 1}, or set how many")
    if not all(0 <= number < there for number in numbers):
        raise UserError(f"{key}: the devices here are numbered from 0 to {there - 1}")


def device_name(device: torch.device) -> str:
    """Return the name of a device as its maker writes it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu_info("model name") or platform.processor() or platform.machine()


def _cpu_flags() -> set[str]:
    return set(_cpu_info("flags").split())


@cache
def _cpu_info(key: str) -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return ""
    lines = (line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    return next((value.strip() for name, value in lines if name.strip() == key), "")
