"""Memory: how much is at hand, what an error says about it, and keeping what the next step will take again."""

import contextlib
import ctypes
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

_MARKS = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory", "unable to allocate")
_UNITS = {"": 1, "bytes": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "kb": 2**10, "mb": 2**20,
          "gb": 2**30}  # fmt: skip
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of mallopt's parameters, of glibc's malloc.h."""


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


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Keep what this process frees inside for what it allocates next, instead of giving it back to the system.

    glibc gives buffers of 32 MiB and more back at once, and the system clears their pages anew for each step. Nothing
    is changed without glibc, or where the environment says how it allocates. What is kept goes back at the end.
    """
    library: Any = ctypes.CDLL(None) if os.name == "posix" else None
    told = any(name.startswith(("MALLOC_MMAP", "MALLOC_TRIM", "GLIBC_TUNABLES")) for name in os.environ)
    if told or not hasattr(library, "mallopt") or not hasattr(library, "malloc_trim"):
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, 2**30)
    library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        library.mallopt(_MMAP_THRESHOLD, 2**25)  # both are what glibc arrives at by itself
        library.mallopt(_TRIM_THRESHOLD, 2**26)
        library.malloc_trim(0)


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
