"""Runs in processes of their own: as many at a time as there are slots, and none outlives the launcher."""

import multiprocessing
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from convolt.runs.config_hash import config_hash
from convolt.runs.files import RunFiles
from convolt.sweeps.child import HELD, INTERRUPTED, LOG, SIGNALS, Function, main, record_failure
from convolt.sweeps.slots import Slot
from convolt.system.signals import Interrupted

GRACE_SECONDS = 5.0
"""What a run that was told to stop may take before it is killed."""

_LOOK_SECONDS = 0.25


class State(StrEnum):
    """How far a run of the sweep is."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    HELD = "held elsewhere"
    INTERRUPTED = "interrupted"


@dataclass
class Run:
    """One run of a sweep.

    Attributes:
        name: As shown.
        cfg: Its settings.
        run_dir: Its directory.
        environment: Variables of its process, besides the slot's.
        state: How far it is.
        reason: Why it has not finished, in one line.
        attempts: How often it was started by this launcher.
        result: What its result.json holds, when it has finished.
    """

    name: str
    cfg: DictConfig
    run_dir: Path
    environment: dict[str, str] = field(default_factory=dict)
    state: State = State.WAITING
    reason: str = ""
    attempts: int = 0
    result: dict[str, Any] | None = None

    @property
    def forced(self) -> bool:
        """Whether it is to run although it has finished before."""
        return bool(self.cfg.get("force"))

    def find_result(self) -> dict[str, Any] | None:
        """Return what `result.json` holds, if it belongs to these settings."""
        return RunFiles(self.run_dir).result(config_hash(self.cfg)) or None

    def status(self) -> dict[str, Any]:
        """Return what `status.json` holds."""
        return RunFiles(self.run_dir).status()

    def held(self) -> bool:
        """Tell whether another process is at work in the directory."""
        try:
            with FileLock(RunFiles(self.run_dir).lock_file, timeout=0):
                return False
        except (Timeout, OSError):
            return True


@dataclass
class _Process:
    """A run under way."""

    run: Run
    slot: Slot
    process: Any
    pid: int
    started: float
    stopped: float | None = None
    timed_out: bool = False

    def send(self, number: int) -> None:
        """Send a signal to the run."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it now, and what it has started."""
        self.kill_group()
        self.process.kill()

    def kill_group(self) -> None:
        """End what it has started, and itself."""
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


class Screen(Protocol):
    """What shows a sweep while it runs."""

    def changed(self, run: Run) -> None:
        """Show that a run has another state."""

    def look(self) -> None:
        """Show how far the runs are; called some times a second."""


def make_context(preload: Sequence[str]) -> Any:
    """Return the way to start processes, and start its server.

    Forks of a server that has imported everything take hundredths of a second; where there is no such thing (Windows),
    each process imports for itself. The server is started deaf to signals: it goes when the launcher has gone.

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
    """Start the fork server where there is none, or none any more."""
    from multiprocessing import forkserver, resource_tracker

    resource_tracker.ensure_running()  # it would let the signals in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Pool:
    """Runs runs.

    Args:
        function: Does a run, in its process.
        slots: Places; one run at a time in each.
        context: Of `make_context`.
        screen: Shows what goes on.
        stop_on_error: Start nothing more when a run has failed.
        retries: How often a failed run is tried again.
        timeout: Seconds that a run may take; None: any.
    """

    def __init__(
        self,
        function: Function,
        slots: Sequence[Slot],
        *,
        context: Any,
        screen: Screen,
        stop_on_error: bool = False,
        retries: int = 0,
        timeout: float | None = None,
    ) -> None:
        self.function = function
        self.slots = slots
        self.context = context
        self.screen = screen
        self.stop_on_error = stop_on_error
        self.retries = retries
        self.timeout = timeout
        self._processes: list[_Process] = []
        self._told: list[int] = []

    def run(self, runs: Sequence[Run]) -> None:
        """Run all, and leave in each what became of it.

        Raises:
            Interrupted: When a signal told this process to stop; all runs have been stopped then, and can go on.
        """
        waiting = deque(run for run in runs if run.state == State.WAITING)
        with self._signals():
            try:
                while waiting or self._processes:
                    while waiting and len(self._processes) < len(self.slots) and not self._told:
                        self._start(waiting.popleft())
                    self._wait()
                    waiting.extend(self._ended())
                    if not waiting and not self._processes:
                        waiting.extend(self._let_go(runs))
                    if self.stop_on_error and any(run.state == State.FAILED for run in runs):
                        waiting.clear()
                    if self._told:
                        raise Interrupted(self._told[0])
            finally:
                self._end_all()

    def _start(self, run: Run) -> None:
        taken = {each.slot.number for each in self._processes}
        load = Counter(each.slot.gpu for each in self._processes)
        free = [slot for slot in self.slots if slot.number not in taken]
        slot = min(free, key=lambda slot: (load[slot.gpu], slot.number))
        run.attempts += 1
        try:
            process = self._process(run, slot)
        except (OSError, EOFError) as error:
            self._set(run, State.FAILED, f"its process could not be started ({type(error).__name__}: {error})")
            return
        self._processes.append(_Process(run, slot, process, process.pid, time.monotonic()))
        self._set(run, State.RUNNING)

    def _process(self, run: Run, slot: Slot) -> Any:
        """Start a run's process; a fork server that was killed is replaced."""
        arguments = (self.function, run.cfg, run.run_dir, run.environment | slot.environment())
        process = self.context.Process(target=main, args=arguments, name=run.name)
        try:
            process.start()
        except (ConnectionError, FileNotFoundError, EOFError):
            time.sleep(_LOOK_SECONDS)
            _ensure_server()
            process = self.context.Process(target=main, args=arguments, name=run.name)
            process.start()
        return process

    def _wait(self) -> None:
        """Wait until a run has ended, or for a moment; stop those whose time is over."""
        wait([each.process.sentinel for each in self._processes], timeout=_LOOK_SECONDS)
        now = time.monotonic()
        for each in self._processes:
            if each.stopped is None and self.timeout and now > each.started + self.timeout:
                each.stopped, each.timed_out = now, True
                each.send(signal.SIGTERM)
            elif each.stopped is not None and now > each.stopped + GRACE_SECONDS:
                each.kill()
        self.screen.look()

    def _ended(self) -> Iterator[Run]:
        """See to the runs whose processes have ended; yield those that are to be tried again."""
        for each in [each for each in self._processes if each.process.exitcode is not None]:
            each.kill_group()
            each.process.join()
            self._processes.remove(each)
            run, status = each.run, each.process.exitcode
            each.process.close()
            result = run.find_result()
            if result and (status == 0 or not run.forced):
                run.result = result
                self._set(run, State.FINISHED)
            elif status == HELD:
                self._set(run, State.HELD, "another process is at work in its directory")
            elif self._told or (status in INTERRUPTED and not each.timed_out):
                self._set(run, State.INTERRUPTED, "interrupted")
            else:
                reason = self._reason(each, status)
                again = run.attempts <= self.retries and status != 2
                self._set(run, State.WAITING if again else State.FAILED, reason)
                if again:
                    yield run

    def _reason(self, each: _Process, status: int) -> str:
        """Tell in one line why a run failed, and see that its directory tells it too."""
        recorded = each.run.status()
        if each.timed_out and self.timeout:
            reason = f"took longer than {self.timeout / 60:.3g} minutes"
        elif recorded.get("state") == "failed" and recorded.get("pid") == each.pid:
            return str(recorded.get("error")).splitlines()[0]
        elif status < 0:
            reason = f"killed by {signal.Signals(-status).name}"
            reason += " (out of memory?)" if reason.endswith("SIGKILL") else ""
        else:
            reason = f"ended with status {status} and without a result: see {LOG}"
        record_failure(each.run.cfg, each.run.run_dir, reason, pid=each.pid)
        return reason

    def _let_go(self, runs: Sequence[Run]) -> Iterator[Run]:
        """Look again at the runs that others held; yield those that were let go unfinished."""
        for run in (run for run in runs if run.state == State.HELD and not run.held()):
            run.result = run.find_result()
            self._set(run, State.FINISHED if run.result else State.WAITING)
            if not run.result:
                yield run

    def _set(self, run: Run, state: State, reason: str = "") -> None:
        run.state, run.reason = state, reason
        self.screen.changed(run)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Take note of signals; they are acted on between two looks."""

        def handle(number: int, frame: FrameType | None) -> None:
            self._told.append(number)

        before = {number: signal.signal(number, handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end_all(self) -> None:
        """Tell all runs to stop, and kill those that do not within seconds, or at once when told twice."""
        number = signal.SIGINT if self._told[:1] == [signal.SIGINT] else signal.SIGTERM
        told = len(self._told)
        for each in self._processes:
            each.send(number)
        deadline = time.monotonic() + GRACE_SECONDS
        while self._processes:
            if time.monotonic() > deadline or len(self._told) > max(told, 1):
                for each in self._processes:
                    each.kill()
            wait([each.process.sentinel for each in self._processes], timeout=_LOOK_SECONDS)
            list(self._ended())
