"""How many cores there are, whose, and how threads share them."""

import os
import platform
from functools import cache
from pathlib import Path


def count_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def spin_briefly() -> None:
    """Let OpenMP's threads sleep soon while they wait, for others may need the cores; before torch is imported.

    What the environment says about it stays. docs/log.md has what it costs, and saves two runs at once.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def name_processor() -> str:
    """Return the name of the processor as its maker writes it."""
    return read_cpu_info("model name") or platform.processor() or platform.machine()


@cache
def read_cpu_info(key: str) -> str:
    """Return a field of the first core in Linux's /proc/cpuinfo; empty where there is none."""
    info = Path("/proc/cpuinfo")
    lines = (line.partition(":") for line in info.read_text().splitlines()) if info.exists() else ()
    return next((value.strip() for name, _, value in lines if name.strip() == key), "")
