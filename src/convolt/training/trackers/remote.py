"""A tracker that may be slow, offline or broken: a thread tells it, and the run goes on without it where that fails."""

import logging
import math
import queue
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any
from zlib import crc32

from lightning_fabric.loggers.logger import _DummyExperiment as DummyExperiment
from pytorch_lightning.loggers import Logger

from convolt.runs.history import Row
from convolt.system.files import read_json, write_json
from convolt.training.trackers.described import DescribedRun
from convolt.training.trackers.tracker import SUCCESS, Tracker, log_row

log = logging.getLogger(__name__)

REQUEST_SECONDS = 5
"""How long a server may take to answer one request."""

_PATIENCE = 8.0
"""How many seconds the end of a run waits for one call that does not return."""

_PATIENCE_AFTER_FAILURE = 2.0
"""How many seconds a run that failed or was interrupted waits for all calls together: a sweep kills it after 5."""

_POLL_SECONDS = 0.02

_LONGEST_REASON = 150
"""Characters of a library's error that are shown."""


class RemoteTracker(Tracker):
    """Tells a service what happens in a run, by Lightning's logger of it in a thread; the run waits at its end alone.

    The first error ends it for this run, which says so in one line. What has arrived is noted in
    `RUN_DIR/trackers/SERVICE.json`, so that a resumed run goes on there and tells nothing twice.

    Args:
        run: What is tracked.
        say: Shows a line to the user.
    """

    service = ""
    """Its name in messages and files."""

    def __init__(self, run: DescribedRun, say: Callable[[str], None]) -> None:
        self.run = run
        self.patience = _PATIENCE
        self._deadline = math.inf
        self._say = say
        self._note = run.directory / "trackers" / f"{self.service}.json"
        self._known: dict[str, Any] = read_json(self._note) or {}
        self._told = list(self._known.get("told", []))
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._outcome = ""
        self._failure: str | None = None
        self._has_said = False
        self._busy_since: float | None = None
        self._inner: Logger | None = None
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"convolt-{self.service}", daemon=True)

    def begin(self) -> None:
        """Prepare the package and start the thread."""
        try:
            self._prepare()
        except Exception as error:
            self._fail(error)
            self._opened.set()
        else:
            self._thread.start()

    @abstractmethod
    def _prepare(self) -> None:
        """Tell the package what it reads from the environment, before its import; in the main thread."""

    @abstractmethod
    def _open(self) -> Logger:
        """Begin, or go on with, the service's run, tell it all settings, and return Lightning's logger of it."""

    @abstractmethod
    def _send_picture(self, tag: str, file: Path, step: int) -> None: ...

    @abstractmethod
    def _send_result(self, metrics: Mapping[str, float], epoch: int) -> None: ...

    @abstractmethod
    def _close(self, outcome: str) -> None:
        """End the service's run."""

    def _abandon(self) -> None:
        """See to it that what hangs keeps this process from nothing, and from ending least of all."""

    def _remember(self, **facts: Any) -> None:
        """Note what a resumed run needs."""
        self._known |= facts
        self._note.parent.mkdir(exist_ok=True)
        write_json(self._note, self._known | {"told": self._told})

    def _work(self) -> None:
        try:
            self._busy_since = time.monotonic()
            self._inner = self._open()
            self._opened.set()
            self._busy_since = None
            while (call := self._calls.get()) is not None:
                self._busy_since = time.monotonic()
                call()
                self._busy_since = None
            self._busy_since = time.monotonic()
            self._close(self._outcome)
        except BaseException as error:  # SystemExit and KeyboardInterrupt too: a thread has nobody to raise them to
            self._fail(error)
            self._abandon()
        finally:
            self._opened.set()

    def _fail(self, error: BaseException) -> None:
        log.warning("%s has failed", self.service, exc_info=error)
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        self._failure = self._failure or shorten(first, _LONGEST_REASON, placeholder=" …")

    def _say_failure(self) -> None:
        """Say, once, that the run goes on alone."""
        if self._failure is not None and not self._has_said:
            self._has_said = True
            self._say(f"{self.service} is left out of this run, which goes on (run.log says why): {self._failure}")

    def _tell(self, what: str, call: Callable[[], None]) -> None:
        """Hand a call to the thread; what was told before, also before the run was resumed, is not told again."""
        self._say_failure()
        if self._failure is None:
            self._calls.put(partial(self._tell_once, what, call))

    def _tell_once(self, what: str, call: Callable[[], None]) -> None:
        if what not in self._told:
            call()
            self._told.append(what)
            self._remember()

    def resume(self, rows: Sequence[Row]) -> None:
        """Tell the epochs that have not arrived."""
        for row in rows:
            log_row([self], row)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Tell the metrics of an epoch."""
        self._tell(f"epoch {step}" if step is not None else repr(metrics), partial(self._send_metrics, metrics, step))

    def _send_metrics(self, metrics: Mapping[str, float], step: int | None) -> None:
        assert self._inner is not None
        self._inner.log_metrics(dict(metrics), step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Tell nothing: all settings were told when the run began."""

    def log_picture(self, tag: str, file: Path, step: int) -> None:
        """Tell of a picture; again where it is drawn anew of more epochs."""
        drawn = crc32(file.read_bytes())
        self._tell(f"{tag} {step} {drawn:08x}", partial(self._send_picture, tag, file, step))

    def log_result(self, choices: Mapping[str, Any], metrics: Mapping[str, float], epoch: int) -> None:
        """Tell what was measured; the choices were told when the run began."""
        self._tell(f"result {epoch}", partial(self._send_result, dict(metrics), epoch))

    def announce_end(self, outcome: str) -> None:
        """Tell that the run has ended, after all else."""
        self._outcome = outcome
        if outcome != SUCCESS:
            self._deadline = time.monotonic() + _PATIENCE_AFTER_FAILURE
        self._calls.put(None)

    def wait(self) -> None:
        """Wait for the thread until one of its calls has taken longer than `patience`, or the deadline is over."""
        while self._thread.is_alive():
            self._thread.join(_POLL_SECONDS)
            now = time.monotonic()
            waited = now - (self._busy_since or now)
            if (waited > self.patience or now > self._deadline) and self._thread.is_alive():
                self._failure = self._failure or f"no answer for {waited:.0f} seconds"
                self._abandon()
                break
        self._say_failure()

    @property
    def experiment(self) -> Any:
        """The service's own object, for callbacks of the user's."""
        self._opened.wait(self.patience)
        return getattr(self._inner, "experiment", None) if self._inner and self._failure is None else DummyExperiment()

    @property
    def name(self) -> str:
        """Empty, as `version` is: what Lightning's callbacks save goes to the run's directory."""
        return ""

    @property
    def version(self) -> str:
        """See `name`."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's directory."""
        return str(self.run.directory)
