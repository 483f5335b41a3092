"""Work that a thread does while the main one goes on."""

import threading
from collections.abc import Callable


class Background:
    """Does one piece of work at a time in a thread, which does not keep the process from ending."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], object]) -> None:
        """Start some work when that before has ended; raise what that has raised."""
        self.wait()

        def do() -> None:
            try:
                work()
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=do, name="convolt-background", daemon=True)
        self._thread.start()

    def wait(self, seconds: float | None = None) -> None:
        """Wait for the work to end, or some seconds at most; raise, once, what it has raised."""
        if self._thread is not None:
            self._thread.join(seconds)
        error, self._error = self._error, None
        if error is not None:
            raise error
