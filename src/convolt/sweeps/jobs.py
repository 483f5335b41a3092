"""The runs of a sweep: what each is composed from, how far it is, and how it ended."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from convolt.config.compose import complete_config, explain_hydra_error, main_folder
from convolt.errors import UserError
from convolt.runs.config_hash import config_hash
from convolt.runs.files import RunFiles
from convolt.sweeps.child import EXIT_HELD, EXIT_INTERRUPTED, OUTPUT_LOG, record_failure


class State(StrEnum):
    """How far a run of the sweep is."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    HELD = "held elsewhere"
    INTERRUPTED = "interrupted"


def check_option(options: Any, name: str, accepted: bool, requirement: str) -> None:
    """Raise a `UserError` that says what an option of a launcher must be, unless its value is accepted."""
    if not accepted:
        raise UserError(f"hydra.launcher.{name}={getattr(options, name)} will not do: {requirement}")


class NotFinishedError(RuntimeError):
    """A run of a sweep has no result; the message is one line."""


@dataclass
class Job:
    """One run of a sweep.

    Attributes:
        name: Its directory below the sweep's, which is shown.
        cfg: Its settings, checked.
        run_dir: Its directory.
        number: Its place in the sweep.
        overrides: What it is composed from.
        hydra_cfg: Its settings with Hydra's section.
        environment: Variables of its process.
        state: How far it is.
        reason: Why it has not finished, in one line.
        attempts: How often this launcher has started it.
        result: The content of its result.json, when it has finished.
        bundle: In a dry run, the bundle from which its result would be taken; empty for none.
    """

    name: str
    cfg: DictConfig
    run_dir: Path
    number: int = 0
    overrides: list[str] = field(default_factory=list)
    hydra_cfg: DictConfig = field(default_factory=OmegaConf.create)
    environment: dict[str, str] = field(default_factory=dict)
    state: State = State.WAITING
    reason: str = ""
    attempts: int = 0
    result: dict[str, Any] | None = None
    bundle: str = ""

    @cached_property
    def config_hash(self) -> str:
        """By which its result is recognized."""
        return config_hash(self.cfg)

    def find_result(self, wait_seconds: float = 0) -> dict[str, Any] | None:
        """Return the content of `result.json`, if it belongs to these settings.

        Args:
            wait_seconds: What a network file system may take until it shows here what another machine has written.
        """
        deadline = time.monotonic() + wait_seconds
        files = RunFiles(self.run_dir)
        while not (result := files.result(self.config_hash)) and time.monotonic() < deadline:
            if files.result_file.exists():
                break  # of other settings, or damaged
            os.listdir(self.run_dir)  # noqa: PTH208 (asks the server again for the folder's content)
            time.sleep(0.5)
        return result or None

    def read_status(self) -> dict[str, Any]:
        """Return the content of `status.json`."""
        return RunFiles(self.run_dir).status()

    def has_diverged(self) -> bool:
        """Tell whether the run ended since its loss became infinite, as a finished trial or as a failure."""
        return RunFiles(self.run_dir).has_diverged(self.config_hash)

    def is_held(self) -> bool:
        """Tell whether a process holds the directory."""
        try:
            with FileLock(RunFiles(self.run_dir).lock_file, timeout=0):
                return False
        except (Timeout, OSError):
            return True

    def to_job_return(self) -> JobReturn:
        """Return the result, or the error that says why there is none, as Hydra expects it."""
        with read_write(self.hydra_cfg.hydra.runtime):
            self.hydra_cfg.hydra.runtime.output_dir = str(self.run_dir)
        job_return = JobReturn(overrides=self.overrides, cfg=self.cfg, hydra_cfg=self.hydra_cfg, task_name=self.name)
        job_return.status = JobStatus.COMPLETED if self.state == State.FINISHED else JobStatus.FAILED
        not_finished = NotFinishedError(self.reason or "not started, since another run failed")
        job_return.return_value = self.result if self.state == State.FINISHED else not_finished
        return job_return


def compose_job(loader: ConfigLoader, config: DictConfig, overrides: Sequence[str], number: int = 0) -> Job:
    """Compose and check one run of a sweep.

    Args:
        loader: Hydra's.
        config: The sweep's config.
        overrides: The run's own.
        number: Its place in the sweep.

    Raises:
        UserError: When an option or a key does not exist, or a value is not accepted.
    """
    before = HydraConfig.instance().cfg
    try:
        full = loader.load_sweep_config(config, list(overrides))
        with open_dict(full):
            full.hydra.job.id, full.hydra.job.num = str(number), number
        HydraConfig.instance().set_config(full)  # for interpolations of the directory
        name = str(full.hydra.sweep.subdir)
        directory = Path(str(full.hydra.sweep.dir)).absolute() / name
        cfg = complete_config(full, full.hydra)
    except UserError:
        raise
    except Exception as error:
        raise explain_hydra_error(error, main_folder(config.hydra), overrides) from error
    finally:
        HydraConfig.instance().cfg = before
    if cfg.trainer.devices not in (1, "auto") or str(cfg.trainer.strategy).startswith("ddp"):
        raise UserError(
            f"trainer.devices={cfg.trainer.devices}, trainer.strategy={cfg.trainer.strategy}: "
            "a sweep gives each run one device; start runs on several devices one by one"
        )
    environment = {key: str(value) for key, value in full.hydra.job.env_set.items()}
    return Job(name, cfg, directory, number, list(overrides), full, environment)


def compose_jobs(
    loader: ConfigLoader, config: DictConfig, job_overrides: Sequence[Sequence[str]], first: int
) -> list[Job]:
    """Compose the runs of a sweep, each with a directory of its own, and find those that have finished before.

    Args:
        loader: Hydra's.
        config: The sweep's config.
        job_overrides: The overrides of each run.
        first: The number of the first one.
    """
    jobs: dict[str, Job] = {}
    for number, overrides in enumerate(job_overrides, first):
        job = compose_job(loader, config, overrides, number)
        if job.name in jobs:
            raise UserError(
                f"several runs would share the folder {config.hydra.sweep.dir}/{job.name}, among them "
                f"{' '.join(job.overrides)}: set hydra.sweep.subdir='${{hydra.job.num}}'"
            )
        jobs[job.name] = job
    for job in jobs.values():
        job.result = None if job.cfg.force else job.find_result()
        job.state = State.FINISHED if job.result else State.WAITING
    return list(jobs.values())


def decide_outcome(
    job: Job, status: int | None, *, pid: int | None = None, lost: str = "", stopping: bool = False, wait: float = 0
) -> tuple[State, str, dict[str, Any] | None]:
    """Decide how a run has ended, and record a failure in its directory where the run could not do so itself.

    Args:
        job: The run.
        status: Exit status of its process, negative for a signal; None where it is not known.
        pid: The process; None where it is not known, and what the directory says is believed.
        lost: Why the launcher has killed or lost the run; empty where the run ended by itself.
        stopping: Whether the launcher is stopping all runs.
        wait: See `Job.find_result`.

    Returns:
        The state, the reason in one line, and the result.
    """
    result = job.find_result(wait if status == 0 else 0)
    if result and (status == 0 or not job.cfg.get("force")):
        return State.FINISHED, "", result
    if status == EXIT_HELD:
        return State.HELD, "another process is at work in its directory", None
    if stopping or (status in EXIT_INTERRUPTED and not lost):
        return State.INTERRUPTED, "interrupted", None
    recorded = job.read_status()
    if not lost and recorded.get("state") == "failed" and pid in (None, recorded.get("pid")):
        return State.FAILED, str(recorded.get("error")).splitlines()[0], None
    reason = lost or f"ended with status {status} and without a result: see {OUTPUT_LOG}"
    if not lost and status is not None and status < 0:
        name = signal.Signals(-status).name
        reason = f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    record_failure(job.cfg, job.run_dir, reason, pid=pid or recorded.get("pid"))
    return State.FAILED, reason, None
