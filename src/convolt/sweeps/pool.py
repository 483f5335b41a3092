"""Runs in processes of their own: as many at a time as there are slots, and none outlives the launcher."""

import multiprocessing
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any, Protocol

from convolt.errors import UserError
from convolt.sweeps.child import SAFE_PATH, SWEEP_STOP_SIGNALS, Function, main
from convolt.sweeps.jobs import Job, State, decide_outcome
from convolt.sweeps.slots import Slot
from convolt.system.signals import Interrupted, collect_signals

GRACE_SECONDS = 5.0
"""What a run may take to stop before it is killed."""

_POLL_SECONDS = 0.25


class Display(Protocol):
    """Shows runs; see `screen.SweepScreen`."""

    def update(self, job: Job, /) -> None:
        """Show the new state of a run."""


@dataclass
class _RunningJob:
    """A run under way."""

    job: Job
    slot: Slot
    process: Any
    started: float
    timed_out: float | None = None

    def send_signal(self, number: int) -> None:
        """Send a signal to the run."""
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def kill(self) -> None:
        """Kill it and the processes that it has started: its process group, which may outlive it."""
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()


def make_context(preload: Sequence[str]) -> Any:
    """Return the way to start processes, and start its server.

    Forks of a server that has imported everything take hundredths of a second; where there is no such thing (Windows),
    each process imports for itself. The server ignores signals: it ends when the launcher has ended.

    Args:
        preload: Modules that the server imports.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    _ensure_server()
    return context


def _ensure_server() -> None:
    """Start the fork server with signals blocked, unless it is running.

    It does not look for modules in the working directory, where a user's logging.py would hide Python's own.

    Raises:
        UserError: When its socket cannot be made, which a path of more than some 100 bytes does not allow.
    """
    from multiprocessing import forkserver, resource_tracker

    safe_path = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    resource_tracker.ensure_running()  # it would unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SWEEP_STOP_SIGNALS)
    try:
        forkserver.ensure_running()
    except OSError as error:
        folder = tempfile.gettempdir()
        raise UserError(
            f"processes cannot be started through {folder} ({error}): set TMPDIR to a folder of a short path"
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.environ.pop(SAFE_PATH)
        if safe_path is not None:
            os.environ[SAFE_PATH] = safe_path


@dataclass
class Pool:
    """Runs jobs in slots.

    Attributes:
        function: Does a run, in its process.
        slots: Places; one run at a time in each.
        context: Of `make_context`.
        screen: Shows the states.
        stop_on_error: Start nothing more when a run has failed.
        retries: How often a failed run is tried again.
        timeout: Seconds that a run may take; None: any.
    """

    function: Function
    slots: Sequence[Slot]
    context: Any
    screen: Display
    stop_on_error: bool = False
    retries: int = 0
    timeout: float | None = None
    _running: list[_RunningJob] = field(default_factory=list, init=False)
    _signals: list[int] = field(default_factory=list, init=False)

    def run(self, jobs: Sequence[Job]) -> None:
        """Run all that are waiting, and set the state, reason and result of each.

        Raises:
            Interrupted: When a signal stopped this process; all runs have been stopped then, and can be resumed.
        """
        with collect_signals(SWEEP_STOP_SIGNALS) as self._signals:
            try:
                while self._running or self._next_job(jobs):
                    while len(self._running) < len(self.slots) and not self._signals and (job := self._next_job(jobs)):
                        self._start(job)
                    self._wait()
                    self._remove_ended()
                    if not self._running and not self._next_job(jobs):
                        self._check_held_jobs(jobs)
                    if self._signals:
                        raise Interrupted(self._signals[0])
            finally:
                self._stop_all()

    def _next_job(self, jobs: Sequence[Job]) -> Job | None:
        """Return the job to start next, those to try again after all others; None where none is to be started."""
        if self.stop_on_error and any(job.state == State.FAILED for job in jobs):
            return None
        return min((job for job in jobs if job.state == State.WAITING), key=lambda job: job.attempts, default=None)

    def _start(self, job: Job) -> None:
        used = {each.slot.number for each in self._running}
        load = Counter(each.slot.gpu for each in self._running)
        free = [slot for slot in self.slots if slot.number not in used]
        slot = min(free, key=lambda slot: (load[slot.gpu], slot.number))
        job.attempts += 1
        try:
            try:
                process = self._start_process(job, slot)
            except (ConnectionError, FileNotFoundError, EOFError):  # the fork server was killed
                time.sleep(_POLL_SECONDS)
                _ensure_server()
                process = self._start_process(job, slot)
        except (OSError, EOFError) as error:
            job.state, job.reason = State.FAILED, f"its process could not be started ({type(error).__name__}: {error})"
        else:
            self._running.append(_RunningJob(job, slot, process, time.monotonic()))
            job.state, job.reason = State.RUNNING, ""
        self.screen.update(job)

    def _start_process(self, job: Job, slot: Slot) -> Any:
        arguments = (self.function, job.cfg, job.run_dir, job.environment | slot.environment())
        process = self.context.Process(target=main, args=arguments, name=job.name)
        process.start()
        return process

    def _wait(self) -> None:
        """Wait until a run has ended, or for a moment; stop those that have timed out."""
        wait([each.process.sentinel for each in self._running], timeout=_POLL_SECONDS)
        now = time.monotonic()
        for each in self._running:
            if each.timed_out is None and self.timeout and now > each.started + self.timeout:
                each.timed_out = now
                each.send_signal(signal.SIGTERM)
            elif each.timed_out is not None and now > each.timed_out + GRACE_SECONDS:
                each.kill()

    def _remove_ended(self) -> None:
        """Remove the runs whose processes have ended, and set their states: those to try again are waiting."""
        for each in [each for each in self._running if each.process.exitcode is not None]:
            each.kill()
            each.process.join()
            self._running.remove(each)
            job, status, pid = each.job, each.process.exitcode, each.process.pid
            each.process.close()
            lost = f"took longer than {self.timeout / 60:.3g} minutes" if self.timeout and each.timed_out else ""
            stopping = bool(self._signals)
            job.state, job.reason, job.result = decide_outcome(job, status, pid=pid, lost=lost, stopping=stopping)
            if job.state == State.FAILED and job.attempts <= self.retries and status != 2:
                job.state = State.WAITING
            self.screen.update(job)

    def _check_held_jobs(self, jobs: Sequence[Job]) -> None:
        """Set the states of the runs that other processes have held and released: those unfinished are waiting."""
        for job in (job for job in jobs if job.state == State.HELD and not job.is_held()):
            job.result = job.find_result()
            job.state, job.reason = State.FINISHED if job.result else State.WAITING, ""
            self.screen.update(job)

    def _stop_all(self) -> None:
        """Ask all runs to stop; kill those that do not within seconds, or at once after a second signal."""
        number = signal.SIGINT if self._signals[:1] == [signal.SIGINT] else signal.SIGTERM
        received = len(self._signals)
        for each in self._running:
            each.send_signal(number)
        deadline = time.monotonic() + GRACE_SECONDS
        while self._running:
            if time.monotonic() > deadline or len(self._signals) > max(received, 1):
                for each in self._running:
                    each.kill()
            wait([each.process.sentinel for each in self._running], timeout=_POLL_SECONDS)
            self._remove_ended()
