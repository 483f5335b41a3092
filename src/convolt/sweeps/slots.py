"""Places for runs: a share of a GPU each, or some cores."""

import os
import re
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from convolt.system.cores import count_cores

_PROBE_SECONDS = 120


@dataclass(frozen=True)
class Slot:
    """What one run at a time may use.

    Attributes:
        number: Counted from 0.
        gpu: As CUDA_VISIBLE_DEVICES names it; None without GPUs.
        threads: CPU threads.
        parallel: How many slots there are.
    """

    number: int
    gpu: str | None
    threads: int
    parallel: int

    def environment(self) -> dict[str, str]:
        """Return the environment variables of a run in this place."""
        visible = {} if self.gpu is None else {"CUDA_VISIBLE_DEVICES": self.gpu}
        return visible | {"CONVOLT_THREADS": str(self.threads), "CONVOLT_SLOTS": str(self.parallel)}


def make_slots(runs: int, gpus: Sequence[str | None], n_jobs: int | None, jobs_per_gpu: int) -> list[Slot]:
    """Divide the machine into slots.

    The number of threads follows from the sweep and the machine alone, not from what is left to do, so that a
    run resumes with as many as it began with.

    Args:
        runs: In the whole sweep.
        gpus: As CUDA_VISIBLE_DEVICES names them; none to train on the CPU.
        n_jobs: Runs at a time at most; None: as many as there are GPU shares, or cores.
        jobs_per_gpu: Runs that share a GPU.
    """
    places: list[str | None] = list(gpus) * jobs_per_gpu if gpus else [None] * (n_jobs or count_cores())
    places = places[: max(1, min(n_jobs or len(places), runs))]
    threads = max(1, count_cores() // len(places))
    return [Slot(number, gpu, threads, len(places)) for number, gpu in enumerate(places)]


def describe_slots(slots: Sequence[Slot]) -> str:
    """Describe how many runs there are at a time, and where."""
    places = f"{len(slots)} at a time" if len(slots) > 1 else "one at a time"
    if slots[0].gpu is not None:
        places += f" on {len({slot.gpu for slot in slots})} GPU(s)"
    return f"{places}, {slots[0].threads} CPU thread{'s' if slots[0].threads > 1 else ''} each"


def visible_gpus(context: Any) -> list[str | None]:
    """Return the GPUs that runs may use; counted in a process of its own, since counting may touch CUDA.

    A Mac's GPU has no name, but is one.

    Args:
        context: Of `multiprocessing`.
    """
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_gpu_names, args=(sender,), daemon=True)
    process.start()
    sender.close()
    try:
        names: list[str | None] = receiver.recv() if receiver.poll(_PROBE_SECONDS) else []
    except EOFError:  # torch does not work; the runs will say so
        names = []
    process.join()
    return names


def gpu_names(count: int, visible: str | None, gpu_list: str) -> list[str]:
    """Return the GPUs, or slices of them, as CUDA_VISIBLE_DEVICES names them.

    Args:
        count: How many PyTorch sees; of all slices that MIG makes, a process sees the first only.
        visible: CUDA_VISIBLE_DEVICES.
        gpu_list: What `nvidia-smi -L` prints.
    """
    if visible:
        named = [name.strip() for name in visible.split(",")]
        return named if named[0].startswith("MIG-") else named[:count]
    slices: dict[str, list[str]] = {}
    for line in gpu_list.splitlines():
        if gpu := re.match(r"GPU \d+: .*\(UUID: (GPU-[^)]+)\)", line):
            slices[gpu[1]] = []
        elif (mig := re.search(r"\(UUID: (MIG-[^)]+)\)", line)) and slices:
            slices[next(reversed(slices))].append(mig[1])
    if any(slices.values()):
        return [name for gpu, migs in slices.items() for name in migs or [gpu]]
    return [str(number) for number in range(count)]


def list_gpu_names() -> list[str]:
    """Return what the NVIDIA GPUs that runs may use are called, without touching CUDA; the same model once."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return []
    return list(dict.fromkeys(re.findall(r"^GPU \d+: (.*) \(UUID: ", _list_gpus(), re.MULTILINE)))


def _list_gpus() -> str:
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False).stdout
    return ""


def _send_gpu_names(sender: Connection) -> None:
    import torch

    count = torch.cuda.device_count()
    names: list[str | None] = [None] if torch.backends.mps.is_available() else []
    if count:
        names = [*gpu_names(count, os.environ.get("CUDA_VISIBLE_DEVICES"), _list_gpus())]
    with suppress(BrokenPipeError):  # the launcher has gone
        sender.send(names)
