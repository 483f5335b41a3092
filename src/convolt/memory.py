"""Memory: how much is at hand, and what an error says about it."""

import re
from pathlib import Path

import torch

_MARKS = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory", "unable to allocate")
_UNITS = {"": 1, "bytes": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "kb": 2**10, "mb": 2**20,
          "gb": 2**30}  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that there is no memory left, on whatever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(mark in str(error).lower() for mark in _MARKS)


def asked(error: BaseException) -> int | None:
    """Return the bytes that were asked for in vain; None where the error does not say."""
    pattern = r"(?:allocate|allocating)\s+([\d.]+)\s*([KMGT]i?B|bytes)"
    found = re.search(pattern, str(error), re.IGNORECASE)
    return int(float(found[1]) * _UNITS[found[2].lower()]) if found else None


def at_hand(device: torch.device | str) -> int | None:
    """Return the bytes that this process could still allocate on a device; None where that cannot be known."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    bounds = [bound for bound in (_of_the_machine(), _of_the_group(), _of_the_process()) if bound is not None]
    return max(0, min(bounds)) if bounds else None


def written(size: int | None) -> str:
    """Write a number of bytes as people read it."""
    if size is None:
        return "an unknown amount"
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 2**power:
            return f"{size / 2**power:.1f}".removesuffix(".0") + f" {unit}"
    return f"{size} bytes"


def _of_the_machine() -> int | None:
    found = re.search(r"MemAvailable:\s+(\d+) kB", _text(Path("/proc/meminfo")))
    return int(found[1]) * 1024 if found else None


def _of_the_group() -> int | None:
    """Return what the container or the cluster's job may still take."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        texts = [_text(Path("/sys/fs/cgroup") / name).strip() for name in (limit, used)]
        if all(text.isdigit() for text in texts):
            return int(texts[0]) - int(texts[1])
    return None


def _of_the_process() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    found = re.search(r"VmSize:\s+(\d+) kB", _text(Path("/proc/self/status")))
    return limit - int(found[1]) * 1024 if limit != resource.RLIM_INFINITY and found else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
