"""Runs in processes of their own: as many at a time as there are slots, and none outlives the launcher."""

import multiprocessing
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from convolt.sweeps.child import SIGNALS, Function, main
from convolt.sweeps.jobs import Job, State, outcome
from convolt.sweeps.slots import Slot
from convolt.system.signals import Interrupted, collect_signals

if TYPE_CHECKING:
    from convolt.sweeps.screen import SweepScreen

GRACE_SECONDS = 5.0
"""What a run may take to stop before it is killed."""

_POLL_SECONDS = 0.25


@dataclass
class _RunningJob:
    """A run under way."""

    job: Job
    slot: Slot
    process: Any
    pid: int
    started: float
    timed_out: float | None = None

    def send(self, number: int) -> None:
        """Send a signal to the run."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it and the processes that it has started."""
        self.kill_group()
        self.process.kill()

    def kill_group(self) -> None:
        """Kill its process group, which outlives it."""
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


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
    """Start the fork server with signals blocked, unless it is running."""
    from multiprocessing import forkserver, resource_tracker

    resource_tracker.ensure_running()  # it would unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
    screen: "SweepScreen"
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
        waiting = deque(job for job in jobs if job.state == State.WAITING)
        with collect_signals(SIGNALS) as self._signals:
            try:
                while waiting or self._running:
                    while waiting and len(self._running) < len(self.slots) and not self._signals:
                        self._start(waiting.popleft())
                    self._wait()
                    waiting.extend(self._remove_ended())
                    if not waiting and not self._running:
                        waiting.extend(self._released(jobs))
                    if self.stop_on_error and any(job.state == State.FAILED for job in jobs):
                        waiting.clear()
                    if self._signals:
                        raise Interrupted(self._signals[0])
            finally:
                self._stop_all()

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
            self._running.append(_RunningJob(job, slot, process, process.pid, time.monotonic()))
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
                each.send(signal.SIGTERM)
            elif each.timed_out is not None and now > each.timed_out + GRACE_SECONDS:
                each.kill()
        self.screen.refresh()

    def _remove_ended(self) -> Iterator[Job]:
        """Remove the runs whose processes have ended, and set their states; yield those that are to be tried again."""
        for each in [each for each in self._running if each.process.exitcode is not None]:
            each.kill_group()
            each.process.join()
            self._running.remove(each)
            job, status = each.job, each.process.exitcode
            each.process.close()
            lost = f"took longer than {self.timeout / 60:.3g} minutes" if self.timeout and each.timed_out else ""
            stopping = bool(self._signals)
            job.state, job.reason, job.result = outcome(job, status, pid=each.pid, lost=lost, stopping=stopping)
            retry = job.state == State.FAILED and job.attempts <= self.retries and status != 2
            if retry:
                job.state = State.WAITING
            self.screen.update(job)
            if retry:
                yield job

    def _released(self, jobs: Sequence[Job]) -> Iterator[Job]:
        """Set the states of the runs that other processes have held and released; yield those that are unfinished."""
        for job in (job for job in jobs if job.state == State.HELD and not job.is_held()):
            job.result = job.find_result()
            job.state, job.reason = State.FINISHED if job.result else State.WAITING, ""
            self.screen.update(job)
            if not job.result:
                yield job

    def _stop_all(self) -> None:
        """Ask all runs to stop; kill those that do not within seconds, or at once after a second signal."""
        number = signal.SIGINT if self._signals[:1] == [signal.SIGINT] else signal.SIGTERM
        received = len(self._signals)
        for each in self._running:
            each.send(number)
        deadline = time.monotonic() + GRACE_SECONDS
        while self._running:
            if time.monotonic() > deadline or len(self._signals) > max(received, 1):
                for each in self._running:
                    each.kill()
            wait([each.process.sentinel for each in self._running], timeout=_POLL_SECONDS)
            list(self._remove_ended())
