"""Signals that end a run."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


class Interrupted(BaseException):
    """A run was told to stop; what it had written stays whole, and it can go on.

    Not an `Exception`, so that nothing on the way takes it for a failure.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"by {signal.Signals(number).name}")
        self.number = number

    @property
    def exit_status(self) -> int:
        """130 for SIGINT, else 143, also for SIGUSR1, which clusters send before SIGTERM."""
        return 130 if self.number == signal.SIGINT else 143


@contextmanager
def interrupt_on_signals() -> Iterator[None]:
    """Raise `Interrupted` at the first signal; a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def handle(number: int, frame: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        raise Interrupted(number)

    for number in _SIGNALS:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def defer_signals() -> Iterator[Callable[[], None]]:
    """Keep signals while the block runs, for code in which an exception at any moment does harm.

    Yields:
        What raises `Interrupted`, where a signal has come.
    """
    told: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        told.append(number)

    def see() -> None:
        if told:
            raise Interrupted(told[0])

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield see
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
