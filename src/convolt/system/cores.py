"""How many cores there are, and how threads share them."""

import os


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
