"""The GPUs of this machine, asked in processes of their own: to ask may touch CUDA, and imports PyTorch."""

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from typing import Any

from convolt.system.signals import die_with_parent

_PROBE_SECONDS = 120


@dataclass(frozen=True)
class Gpu:
    """What a GPU, or a slice of one, has.

    Attributes:
        uuid: By which CUDA_VISIBLE_DEVICES may name it everywhere alike.
        memory_bytes: Its memory, whoever uses it.
        multiprocessors: How many it has.
    """

    uuid: str
    memory_bytes: int
    multiprocessors: int


def call_in_processes(
    context: Any, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], seconds: float | None
) -> list[Any]:
    """Call a function in a process of its own for each of some arguments, all at the same time.

    Args:
        context: Of `multiprocessing`.
        function: Its results can be pickled.
        arguments: Of each call.
        seconds: What each call may take; None: any time.

    Returns:
        The result of each call; None where there is none, since the process died or took too long.
    """
    calls = []
    for each in arguments:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_send_result, args=(sender, function, each), daemon=True)
        process.start()
        sender.close()
        calls.append((receiver, process))
    return [_receive_result(receiver, process, seconds) for receiver, process in calls]


def _receive_result(receiver: Connection, process: Any, seconds: float | None) -> Any:
    try:
        return receiver.recv() if receiver.poll(seconds) else None
    except EOFError:
        return None
    finally:
        process.kill()
        process.join()


def _send_result(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    parent = parent_process()
    assert parent is not None
    die_with_parent(parent.join)
    result = function(*arguments)
    with suppress(BrokenPipeError):  # the launcher has gone
        sender.send(result)


def visible_gpus(context: Any) -> list[str | None]:
    """Return the GPUs that runs may use; none where torch does not work, as the runs will say.

    A Mac's GPU has no name, but is one.

    Args:
        context: Of `multiprocessing`.
    """
    (names,) = call_in_processes(context, _find_gpu_names, [()], _PROBE_SECONDS)
    return names or []


def describe_gpus(context: Any, environments: Sequence[dict[str, str]]) -> list[Gpu | None]:
    """Return what the GPU has that runs see in each environment; None where they can compute on none.

    Args:
        context: Of `multiprocessing`.
        environments: CUDA_VISIBLE_DEVICES with the name of one GPU, and what else decides how it is reached.
    """
    return call_in_processes(context, _describe_gpu, [(each,) for each in environments], _PROBE_SECONDS)


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


def _find_gpu_names() -> list[str | None]:
    import torch

    if count := torch.cuda.device_count():
        return [*gpu_names(count, os.environ.get("CUDA_VISIBLE_DEVICES"), _list_gpus())]
    return [None] if torch.backends.mps.is_available() else []


def _describe_gpu(environment: dict[str, str]) -> Gpu | None:
    """Compute on the only GPU that is seen in an environment, and return what it has."""
    os.environ.update(environment)
    import torch

    try:
        torch.zeros(1, device="cuda").add_(1).item()
        found = torch.cuda.get_device_properties(0)
    except (RuntimeError, AssertionError):  # the latter of a torch without CUDA
        return None
    name = environment["CUDA_VISIBLE_DEVICES"]
    uuid = name if name.startswith(("GPU-", "MIG-")) else f"GPU-{found.uuid}"
    return Gpu(uuid, found.total_memory, found.multi_processor_count)
