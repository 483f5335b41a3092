"""Runs in the workers of an engine that spans machines: what is the same for Ray and SLURM.

An engine brings a task to a worker and reports how the worker ended. Everything else is in the run's directory, as in a
sweep on one machine: which process holds it, how far it is, and its result.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from convolt.config.compose import complete_config
from convolt.sweeps.child import OUTPUT_LOG, exit_status, redirect_output
from convolt.sweeps.jobs import Job, State, decide_outcome
from convolt.sweeps.screen import SweepScreen
from convolt.system.environment import forget_rank, set_up_process
from convolt.system.locks import single_node_mount
from convolt.system.signals import interrupt_and_resend, interrupt_on_signals
from convolt.training.start import start_run

POLL_SECONDS = 0.5
"""Between two questions to the engine."""

STOP_SECONDS = 10.0
"""What the runs may take to stop."""

_STATUS_SECONDS = 10.0
_STATUS_JOBS = 64
_VISIBLE_SECONDS = 60.0
"""What a network file system may take until it shows here what was written on another machine."""


class RemoteTask:
    """Does a run in a worker; Hydra calls it with the composed config.

    Args:
        slots: Runs that share the worker's machine.
        threads: CPU threads of a run.
        stop_signals: Signals by which the engine asks a run to stop; they are sent again to the engine's own handler
            when the run has stopped.
    """

    def __init__(self, slots: int, threads: int, stop_signals: Sequence[int] = ()) -> None:
        self.folder = Path.cwd()  # relative paths of the config start there
        self.environment = {"CONVOLT_THREADS": str(threads), "CONVOLT_SLOTS": str(slots)}
        self.stop_signals = tuple(stop_signals)

    def __call__(self, cfg: DictConfig) -> int:
        """Run one config; return its exit status."""
        os.chdir(self.folder)
        set_up_process()
        forget_rank()
        os.environ.update(self.environment)
        state: Any = HydraConfig.get()
        run_dir = Path(state.runtime.output_dir)
        cfg = complete_config(cfg, state)
        with _redirected_output(run_dir / OUTPUT_LOG), interrupt_and_resend(self.stop_signals):
            return exit_status(start_run, cfg, run_dir)


class RemoteSweep:
    """The runs of a sweep, while an engine works on them.

    Args:
        jobs: The runs.
        folder: The sweep's.
    """

    def __init__(self, jobs: Sequence[Job], folder: Path) -> None:
        self.jobs = jobs
        self.folder = folder
        self.waiting = [job for job in jobs if job.state == State.WAITING]
        self._last_refresh = time.monotonic()

    @contextmanager
    def show(self, places: str) -> Iterator[None]:
        """Show the sweep while the block runs."""
        mount = single_node_mount(self.folder)
        with SweepScreen(self.jobs, places) as self.screen:
            if mount:
                self.screen.console.print(
                    f"locks below {mount} hold on one node only (its mount options): start this sweep once at a time",
                    markup=False,
                )
            yield

    def update_states(self) -> None:
        """Show which runs have started; rarely, and of the next ones alone: each costs the file system a question."""
        if time.monotonic() - self._last_refresh > _STATUS_SECONDS:
            self._last_refresh = time.monotonic()
            for job in [job for job in self.jobs if job.state == State.WAITING][:_STATUS_JOBS]:
                if job.read_status().get("state") == "running":
                    job.state = State.RUNNING
                    self.screen.update(job)

    def record_end(self, job: Job, answer: Any) -> None:
        """Set the state of a run that the engine has ended.

        Args:
            job: The run.
            answer: Its exit status; or the error, or the reason in one line, for which the engine lost it.
        """
        if isinstance(answer, Exception):
            answer = f"{type(answer).__name__}: {answer}"
        status, lost = (answer, "") if isinstance(answer, int) else (None, str(answer))
        job.state, job.reason, job.result = decide_outcome(job, status, lost=lost, wait=_VISIBLE_SECONDS)
        self.screen.update(job)


def run(engine: Any, jobs: Sequence[Job], config: DictConfig, context: HydraContext, options: Any) -> None:
    """Run what has not finished on an engine.

    Args:
        engine: `convolt.sweeps.ray` or `convolt.sweeps.slurm`.
        jobs: The runs.
        config: The sweep's config.
        context: Hydra's.
        options: The launcher's.

    Raises:
        UserError: When the engine cannot be reached, or refuses the runs.
        Interrupted: When a signal stopped this process; the runs have been asked to stop, and can be resumed.
    """
    folder = Path(str(config.hydra.sweep.dir)).absolute()
    with open_dict(config):
        config.hydra.sweep.dir = str(folder)
    sweep = RemoteSweep(jobs, folder)
    if sweep.waiting:
        with interrupt_on_signals():
            engine.run(sweep, config, context, options)
    else:
        with sweep.show("nothing to run"):
            pass
    for job in jobs:
        if job.state in (State.WAITING, State.RUNNING):
            job.reason = "not ended: the same command resumes it"


@contextmanager
def _redirected_output(log: Path) -> Iterator[None]:
    """Append the output of the block to a file."""
    copies = [(number, os.dup(number)) for number in (1, 2)]
    redirect_output(log)
    try:
        yield
    finally:
        for number, copy in copies:
            os.dup2(copy, number)
            os.close(copy)
