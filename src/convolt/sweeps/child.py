"""What happens in the process of one run."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import parent_process
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from convolt.errors import RunError, UserError
from convolt.runs.config_hash import config_hash
from convolt.runs.directory import HeldError
from convolt.system.files import add_digest, read_json, write_json
from convolt.system.signals import STOP_SIGNALS, Interrupted, die_with_parent, existing_signals, interrupt_on_signals

OUTPUT_LOG = "output.log"
"""The file in a run's directory to which the output of its process is redirected."""

SAFE_PATH = "PYTHONSAFEPATH"
"""The variable by which Python does not begin its search for modules in the working directory."""

EXIT_HELD = 75
"""Exit status of a process that found its run's directory held by another one."""

EXIT_INTERRUPTED = (130, 143)
"""Exit statuses of a process that a signal stopped."""

SWEEP_STOP_SIGNALS = (*STOP_SIGNALS, *existing_signals("SIGHUP"))
"""Those that stop a sweep."""

Function = Callable[[DictConfig, Path], object]


def main(function: Function, cfg: DictConfig, run_dir: Path, environment: Mapping[str, str]) -> None:
    """Do one run, and leave its outcome in its directory and in the exit status.

    Args:
        function: Does it.
        cfg: Its settings.
        run_dir: Its directory.
        environment: Variables to set before anything is computed.
    """
    if hasattr(os, "setsid"):
        os.setsid()  # a terminal's Ctrl-C reaches the launcher alone, which forwards it once
    parent = parent_process()
    assert parent is not None
    die_with_parent(parent.join)
    os.environ.pop(SAFE_PATH, None)  # the fork server's own, and not for what the run may start
    os.environ.update(environment)
    redirect_output(run_dir / OUTPUT_LOG)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SWEEP_STOP_SIGNALS)  # the fork server was started with them blocked
    status = exit_status(function, cfg, run_dir)
    if "CUDA_MPS_PIPE_DIRECTORY" in environment:
        wait_for_gpu()
    sys.exit(status)


def wait_for_gpu() -> None:
    """Wait for the kernels under way: a process that ends before them may disturb others that share MPS."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        with suppress(RuntimeError):  # the GPU itself has failed
            torch.cuda.synchronize()


def exit_status(function: Function, cfg: DictConfig, run_dir: Path) -> int:
    """Do one run; leave its outcome in its directory, and return it as an exit status.

    Args:
        function: Does it.
        cfg: Its settings.
        run_dir: Its directory.

    Returns:
        0, 1 (failed), 2 (the user's mistake), `EXIT_HELD`, one of `EXIT_INTERRUPTED`, or what the run left Python with.
    """
    status = 0
    try:
        with interrupt_on_signals():
            function(cfg, run_dir)
    except Interrupted as error:
        print(f"interrupted {error}")
        status = error.exit_status
    except HeldError as error:
        print(error)
        status = EXIT_HELD
    except UserError as error:
        print(f"error: {error}")
        record_failure(cfg, run_dir, str(error))
        status = 2
    except SystemExit as error:
        if error.code not in (0, None):
            record_failure(cfg, run_dir, f"left by sys.exit({error.code!r})", traceback.format_exc())
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except RunError as error:
        print(f"failed: {error}")
        record_failure(cfg, run_dir, str(error), traceback.format_exc())
        status = 1
    except Exception as error:
        traceback.print_exc()
        record_failure(cfg, run_dir, f"{type(error).__name__}: {error}", traceback.format_exc())
        status = 1
    return status


def record_failure(
    cfg: DictConfig, run_dir: Path, error: str, trace: str | None = None, pid: int | None = None
) -> None:
    """Write that a run failed, where it could not do so itself; what another run left in its directory stays.

    Args:
        cfg: The run's settings.
        run_dir: Its directory.
        error: Why, in one line.
        trace: The traceback.
        pid: The run's process; None for this one.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(run_dir / ".lock", timeout=0):
            status = read_json(run_dir / "status.json") or {"state": "running", "config_hash": config_hash(cfg)}
            recorded = status["state"] == "failed" and status.get("traceback") and trace
            if status["config_hash"] == config_hash(cfg) and status["state"] != "finished" and not recorded:
                now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
                status |= {"state": "failed", "error": error, "traceback": trace, "time": now}
                write_json(run_dir / "status.json", add_digest(status | {"pid": pid or os.getpid()}))
    except (Timeout, OSError):  # held by another process, or the disk is full
        return


def redirect_output(log: Path) -> None:
    """Append the output of this process and its children to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    sys.stdout.reconfigure(line_buffering=True, errors="replace")  # type: ignore[union-attr]
    print(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')}, process {os.getpid()}")
