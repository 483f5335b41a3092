"""NVIDIA's MPS, which lets kernels of several runs on one GPU run at the same time: daemons that end with the launcher.

Each GPU has a control daemon of its own, since one serves a single slice of MIG, and so that no other GPU is touched.
GPUs are named by UUID to the daemon and to the runs alike, as NVIDIA advises: numbers would be counted anew behind a
daemon, and where the daemon is gone, CUDA goes on without it, on the GPU of that name. No share of the multiprocessors
is set for a run (CUDA_MPS_ACTIVE_THREAD_PERCENTAGE), for it would then see fewer, and kernels that divide their sums by
their number would give other bits.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from convolt.sweeps.gpus import describe_gpus
from convolt.sweeps.slots import Slot
from convolt.system.signals import die_with_parent

CONTROL = "nvidia-cuda-mps-control"

_PIPES, _LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
_START_SECONDS = 10.0
_QUIT_SECONDS = 10.0


@contextmanager
def share_by_mps(context: Any, slots: Sequence[Slot]) -> Iterator[tuple[Sequence[Slot], str]]:
    """Start MPS for the GPUs that several slots share, and end it with the block or with this process.

    Args:
        context: Of `multiprocessing`.
        slots: Of the runs.

    Yields:
        The slots, whose runs find MPS where it has started, and a line that says so or why not; empty where no GPU is
        shared.
    """
    gpus = list(dict.fromkeys(slot.gpu for slot in slots))
    if len(gpus) == len(slots) or None in gpus:
        yield slots, ""
        return
    reason = _reason_against()
    found = [] if reason else describe_gpus(context, [{"CUDA_VISIBLE_DEVICES": str(gpu)} for gpu in gpus])
    if not reason and None in found:
        reason = "CUDA does not say what the GPU is called"
    if reason:
        yield slots, f"without NVIDIA's MPS, runs take turns on the GPU: {reason}"
        return
    receiver, sender = context.Pipe()
    uuids = [gpu.uuid for gpu in found if gpu]
    guard = context.Process(target=_guard_daemons, args=(sender, uuids), name="mps")
    try:
        guard.start()
        sender.close()
        environments = _receive(receiver)
        if not isinstance(environments, str) and None in describe_gpus(context, environments):
            environments = "no process can compute through it"
        if isinstance(environments, str):
            receiver.close()
            yield slots, f"without NVIDIA's MPS, runs take turns on the GPU: {environments}"
        else:
            places = dict(zip(gpus, environments, strict=True))
            yield [replace(slot, more=places[slot.gpu]) for slot in slots], "kernels of several runs by NVIDIA's MPS"
    finally:
        receiver.close()
        if guard.pid is not None:
            guard.join()


def _reason_against() -> str:
    """Return why MPS is not to be started, in a few words; empty where it may be."""
    if _PIPES in os.environ:
        return f"{_PIPES} is set already, and MPS left as it is"
    if shutil.which(CONTROL) is None:
        return f"there is no {CONTROL} here"
    return "it is active already, and left as it is" if _is_answering(os.environ) else ""


def _receive(receiver: Connection) -> Any:
    try:
        return receiver.recv()
    except EOFError:
        return "its guard has died"


def _guard_daemons(connection: Connection, uuids: Sequence[str]) -> None:
    """Keep a daemon for each GPU until the other end of a connection is closed, by the launcher or by its death.

    Args:
        connection: First the environment of each GPU's runs is sent, or the line that says why there is none.
        uuids: The GPUs.
    """
    os.setsid()  # a signal to the launcher and all its processes is not meant for this one
    daemons: list[_Daemon] = []
    with tempfile.TemporaryDirectory(prefix="convolt-mps-", ignore_cleanup_errors=True) as folder:
        try:
            for number, uuid in enumerate(uuids):
                daemons.append(_Daemon(Path(folder) / str(number), uuid))
            reasons = [reason for daemon in daemons if (reason := daemon.wait_until_ready())]
            with suppress(EOFError, OSError):
                connection.send(reasons[0] if reasons else [daemon.environment for daemon in daemons])
                connection.recv()
        finally:
            for daemon in daemons:
                daemon.end()


class _Daemon:
    """A control daemon and the server that it starts.

    Args:
        folder: For its sockets and logs; made here.
        uuid: The GPU's.

    Attributes:
        environment: Of the processes that it serves, and of its own.
    """

    def __init__(self, folder: Path, uuid: str) -> None:
        folder.mkdir()
        self._output = folder / "output.log"
        self.environment = {_PIPES: str(folder), _LOGS: str(folder), "CUDA_VISIBLE_DEVICES": uuid}
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [CONTROL, "-f"],
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_prepare_daemon,  # noqa: PLW1509 (the guard has one thread)
            )

    def wait_until_ready(self) -> str:
        """Wait until the daemon answers; return why it does not, or nothing."""
        deadline = time.monotonic() + _START_SECONDS
        while self._process.poll() is None:
            if _is_answering(os.environ | self.environment):
                return ""
            if time.monotonic() > deadline:
                return f"{CONTROL} does not answer"
            time.sleep(0.05)
        said = self._output.read_text(errors="replace").strip().splitlines() or [f"status {self._process.returncode}"]
        return f"{CONTROL} does not start ({said[-1]})"

    def end(self) -> None:
        """Ask the daemon to end, with its server; kill both where they do not."""
        if self._process.poll() is None:
            _ask("quit", os.environ | self.environment)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_QUIT_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _prepare_daemon() -> None:
    """End the daemon with its guard, and let it hear the signals to which the guard is deaf."""
    die_with_parent()
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _is_answering(environment: Mapping[str, str]) -> bool:
    """Tell whether a control daemon answers in an environment."""
    answer = _ask("get_server_list", environment)
    return answer is not None and "cannot find" not in answer.lower()


def _ask(request: str, environment: Mapping[str, str]) -> str | None:
    """Return what the control daemon of an environment says to a request; None where there is none."""
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            [CONTROL], input=f"{request}\n", env=environment, capture_output=True, text=True, timeout=_START_SECONDS,
            check=False,
        )  # fmt: skip
        return None if done.returncode else done.stdout + done.stderr
    return None
