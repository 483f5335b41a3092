"""Memory: how much is available, how much was used, and what an error says about it."""

import re
import sys
from pathlib import Path

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_MARKS = (
    "can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory", "unable to allocate",
    "alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED, and likewise of cuSOLVER and cuFFT
    "allocation_failed",  # CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED, of cuDNN 9
    "unable to find an engine", "unable to find a valid cudnn algorithm",  # none whose workspace fits
)  # fmt: skip
_UNITS = {"": 1, "bytes": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "kb": 2**10, "mb": 2**20,
          "gb": 2**30}  # fmt: skip

_CGROUP_FILES = ("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")
"""Limit and use, in version 2 and in version 1."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory has run out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(mark in str(error).lower() for mark in _MARKS)


def requested_bytes(error: BaseException) -> int | None:
    """Return the bytes that could not be allocated; None where the error does not say."""
    pattern = r"(?:allocate|allocating)\s+([\d.]+)\s*([KMGT]i?B|bytes)"
    match = re.search(pattern, str(error), re.IGNORECASE)
    return int(float(match[1]) * _UNITS[match[2].lower()]) if match else None


def available_bytes(device: torch.device | str) -> int | None:
    """Return the bytes that this process could still allocate on a device; None where that cannot be known."""
    device = torch.device(device)
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if device.type != "cpu":
        return None
    bounds = (_read_proc("meminfo", "MemAvailable"), _cgroup_bytes(), _process_bytes())
    known = [bound for bound in bounds if bound is not None]
    return max(0, min(known)) if known else None


def reset_peak_memory(device: torch.device | str) -> None:
    """Reset `peak_memory` of a GPU; that of a process cannot be reset."""
    if torch.device(device).type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device | str) -> int:
    """Return the peak memory in bytes: that of a GPU since it was reset, else this process's resident memory."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if resource is None:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _read_proc(name: str, field: str) -> int | None:
    """Return the bytes that a file of Linux's /proc states in a field."""
    match = re.search(rf"{field}:\s+(\d+) kB", _read_text(Path("/proc") / name))
    return int(match[1]) * 1024 if match else None


def _cgroup_bytes() -> int | None:
    """Return what the container or the cluster's job may still allocate."""
    for names in _CGROUP_FILES:
        texts = [_read_text(Path("/sys/fs/cgroup") / name).strip() for name in names]
        if all(text.isdigit() for text in texts):
            return int(texts[0]) - int(texts[1])
    return None


def _process_bytes() -> int | None:
    if resource is None:
        return None
    limit, used = resource.getrlimit(resource.RLIMIT_AS)[0], _read_proc("self/status", "VmSize")
    return limit - used if limit != resource.RLIM_INFINITY and used is not None else None


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
