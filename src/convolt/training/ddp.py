"""One run in several processes: the first starts the others, hands them its settings, and all end together.

The others receive nothing but the settings: they find dataset, checkpoint and order by themselves, as the first does,
and write nothing. Each ends when its standard input is closed, which happens however the first one ends; the first one
ends when it has lost another, even while it waits for it in a collective operation that never returns.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import torch.distributed as dist
from omegaconf import OmegaConf

from convolt.errors import RunError, UserError
from convolt.runs.directory import RunDirectory
from convolt.system.environment import check_environment
from convolt.system.signals import Interrupted
from convolt.training.machine import Machine

RANK = "CONVOLT_RANK"
"""Set in all processes of a run that has several: the process's number, from 0."""

GRACE_SECONDS = 15.0
"""How long a process that has lost another one may take to notice it, before it is ended."""

_POLL_SECONDS = 0.2
_JOIN_SECONDS = 60.0


def process_rank() -> int:
    """Return this process's number among those of its run.

    Raises:
        UserError: See `convolt.system.environment.check_environment`.
    """
    if RANK in os.environ:
        return int(os.environ[RANK])
    check_environment()
    return 0


@contextmanager
def ddp_workers(directory: RunDirectory, batch_size: int | None, machine: Machine) -> Iterator[None]:
    """Have the other processes of a run while the block trains.

    Args:
        directory: The run's, held by this process.
        batch_size: See `convolt.training.run.run`.
        machine: Of the run.

    Raises:
        RunError: When another process was lost.
        UserError: When batch norm is to be synchronized between processes on the CPU.
    """
    count = machine.processes
    if count == 1:
        yield
        return
    if machine.device.type == "cpu" and directory.settings.trainer.sync_batchnorm:
        raise UserError(
            "trainer.sync_batchnorm=true: PyTorch synchronizes batch norm between GPUs only; "
            "on a CPU set trainer.sync_batchnorm=false"
        )
    store = _open_store(count)
    added = _worker_environment(machine, store.port)
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    workers = _Workers(directory, batch_size, count)
    try:
        yield
        workers.wait()
    except (UserError, Interrupted):
        raise
    except BaseException as error:
        workers.raise_if_lost(error)
        raise
    finally:
        workers.end()
        if dist.is_initialized():
            dist.destroy_process_group()
        del store  # not before all have left
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


class _Workers:
    """The further processes of a run."""

    def __init__(self, directory: RunDirectory, batch_size: int | None, count: int) -> None:
        self.directory = directory
        self.count = count
        order = {"cfg": OmegaConf.to_yaml(directory.cfg), "run_dir": str(directory.path.absolute()), "path": sys.path}
        text = json.dumps(order | {"batch_size": batch_size, "change": directory.change}).encode() + b"\n"
        self.outputs = [tempfile.TemporaryFile() for _ in range(1, count)]  # noqa: SIM115 (closed by `end`)
        self.processes = [self._start(number, output, text) for number, output in enumerate(self.outputs, 1)]
        self._ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    @staticmethod
    def _start(number: int, output: IO[bytes], text: bytes) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "convolt.training.ddp_worker"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=os.environ | {RANK: str(number), "RANK": str(number), "LOCAL_RANK": str(number)},
        )
        assert process.stdin is not None
        process.stdin.write(text)
        process.stdin.flush()
        return process

    def lost(self) -> int | None:
        """Return the number of a process that has failed; None where none has."""
        return next((number for number, process in enumerate(self.processes, 1) if process.poll()), None)

    def describe_loss(self, number: int) -> str:
        """Describe in a line how a process was lost."""
        status = self.processes[number - 1].returncode
        if status < 0:
            how = f"was killed by {signal.Signals(-status).name}"
            how += " (out of memory?)" if status == -signal.SIGKILL else ""
        else:
            how = f"ended with status {status} ({(self._output(number).splitlines() or ['it printed nothing'])[-1]})"
        return f"process {number + 1} of {self.count} {how}: the same command resumes after the last complete epoch"

    def _output(self, number: int) -> str:
        file = self.outputs[number - 1]
        file.seek(0)
        return re.sub(r"^\[rank\d+\]: ", "", file.read().decode(errors="replace").strip(), flags=re.MULTILINE)

    def wait(self) -> None:
        """Wait for the others, which have almost nothing left to do."""
        deadline = time.monotonic() + _JOIN_SECONDS
        while any(process.poll() is None for process in self.processes) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def raise_if_lost(self, error: BaseException) -> None:
        """Raise what happened to another process, where that is why this one has failed."""
        deadline = time.monotonic() + 2
        while self.lost() is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        number = self.lost()
        if number is not None and not isinstance(error, RunError):
            raise RunError(self.describe_loss(number)) from _WorkerError(self._output(number))

    def _watch(self) -> None:
        """End this process where another one was lost and the block does not notice."""
        while not self._ended.wait(_POLL_SECONDS):
            number = self.lost()
            if number is None or self._ended.wait(GRACE_SECONDS):
                continue
            line = self.describe_loss(number)
            self.directory.write_status("failed", error=line, traceback=self._output(number))
            print(f"failed: {line}", file=sys.stderr, flush=True)
            self._kill()
            os._exit(1)

    def end(self) -> None:
        """End the others."""
        self._ended.set()
        self._kill()
        for output in self.outputs:
            output.close()

    def _kill(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()


class _WorkerError(RuntimeError):
    """What another process printed."""


def _open_store(count: int) -> Any:
    """Open the store at which the processes meet, at a port that is taken from here on and not merely found free."""
    return dist.TCPStore("127.0.0.1", 0, count, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]


def _worker_environment(machine: Machine, port: int) -> dict[str, str]:
    """Return what Lightning and PyTorch read."""
    rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    rendezvous["WORLD_SIZE"] = str(machine.processes)
    rendezvous["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # all are clients of the store that stands already
    return rendezvous | {RANK: "0", "LOCAL_RANK": "0", "OMP_NUM_THREADS": str(machine.threads)}
