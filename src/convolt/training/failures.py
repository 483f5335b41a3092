"""Failures that need no traceback: no memory, no disk. Each becomes one line with what to do."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convolt.config.settings import Settings
from convolt.errors import RunError, UserError
from convolt.system.cublas import WORKSPACE
from convolt.system.files import format_bytes
from convolt.system.memory import available_bytes, is_out_of_memory, requested_bytes
from convolt.system.os_errors import DISK_ERRORS, explain_os_error
from convolt.training.machine import Machine


@contextmanager
def explain_failures(doing: str, settings: Settings, run_dir: Path, machine: Machine) -> Iterator[None]:
    """Turn what the machine denies into a `RunError` of one line; whatever else is raised passes.

    Args:
        doing: What is being done: "training", "evaluation", "preparation".
        settings: The run's settings, by which the advice is chosen.
        run_dir: The run's directory.
        machine: Where the network is, and in which precision.

    Raises:
        RunError: When memory or disk have run out.
    """
    try:
        yield
    except (UserError, RunError):
        raise
    except Exception as error:
        line = (
            _explain_out_of_memory(error, doing, settings, machine)
            or _explain_nondeterminism(error)
            or _explain_disk_error(error, run_dir)
        )
        if line is None:
            raise
        raise RunError(line) from error


def _explain_out_of_memory(error: Exception, doing: str, settings: Settings, machine: Machine) -> str | None:
    if not is_out_of_memory(error):
        return None
    text = str(error)
    named = re.search(r"CUDA|MPS|GPU|HIP|NCCL|cuDNN|CUBLAS|CUDNN|CUSOLVER|CUFFT|find an engine", text)
    place = "the GPU" if isinstance(error, RuntimeError) and named else "the CPU"
    on = str(machine.device) if place == "the GPU" else "cpu"
    size = requested_bytes(error)
    amount = f"{format_bytes(size)} asked for" if size else "more asked for than there is"
    advice = "; ".join(_suggest_less_memory(doing, settings, machine, on)) or "close other programs"
    return f"out of memory on {place} in {doing}: {amount}, {format_bytes(available_bytes(on))} available; {advice}"


def _suggest_less_memory(doing: str, settings: Settings, machine: Machine, device: str) -> Iterator[str]:
    """Yield what would need less memory, the least harmful first."""
    if doing == "preparation":
        if settings.data.image_size and settings.data.image_size > 32:
            yield f"set data.image_size={settings.data.image_size // 2}"
        yield "close other programs, or prepare the dataset on a larger machine"
        return
    if device != "cpu" and settings.data.device != "cpu":
        yield "keep the images in main memory by data.device=cpu"
    batch = settings.data.batch_size
    if doing == "evaluation":
        batch = settings.data.evaluation_batch_size
        if batch > 1:
            yield f"set data.eval_batch_size={batch // 2}"
    elif batch > 1:
        parts = 2 * settings.trainer.accumulate_grad_batches
        yield f"set data.batch_size={batch // 2} trainer.accumulate_grad_batches={parts}"
        yield "or trainer.find_batch_size=true"
    if machine.precision in ("32-true", "64-true"):
        yield "or trainer.precision=bf16-mixed"
    if settings.data.image_size and settings.data.image_size > 32:
        yield f"or data.image_size={settings.data.image_size // 2}"


def _explain_nondeterminism(error: Exception) -> str | None:
    """Explain an operation that has no deterministic implementation on a GPU."""
    if not isinstance(error, RuntimeError):
        return None
    if WORKSPACE in str(error):
        return (
            "trainer.deterministic=true: this process has used the GPU before and not told cuBLAS to repeat its bits: "
            f"set {WORKSPACE}=:4096:8 before Python starts"
        )
    found = re.search(r"(\w+) does not have a deterministic implementation", str(error))
    if not found:
        return None
    name = re.sub(r"_(out_)?cuda(_template)?$", "", found[1])
    return f"trainer.deterministic=true: {name} has no form that repeats its bits; leave it out, or change the model"


def _explain_disk_error(error: BaseException, run_dir: Path) -> str | None:
    """Explain an error of the disk; torch hides the system's error inside another one, or raises none at all."""
    system = next((each for each in _chain(error) if isinstance(each, OSError) and each.errno), None)
    if isinstance(error, RuntimeError) and "inline_container" in str(error):  # torch.save
        system = system or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elif not isinstance(error, OSError):
        return None
    resumes = "and the same command or resume=RUN_DIR resumes it"
    if not run_dir.is_dir():
        return f"the run directory {run_dir} was removed: put it back, {resumes}"
    if system is None or system.errno not in DISK_ERRORS:
        return None
    return f"{explain_os_error(system, run_dir)}, {resumes}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
