"""Signals that end a run, and the end of a process whose parent is gone."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object]


def existing_signals(*names: str) -> tuple[signal.Signals, ...]:
    """Return those of the named signals that this system has."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


STOP_SIGNALS = existing_signals("SIGINT", "SIGTERM", "SIGUSR1")
"""Those that ask a run to stop; clusters send SIGUSR1 before SIGTERM."""

_PR_SET_PDEATHSIG = 1
"""Of Linux's prctl.h."""


class Interrupted(BaseException):
    """A signal asked a run to stop; what it has written stays valid, and it can be resumed.

    Not an `Exception`, so that no handler of errors takes it for a failure.

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
def handle_signals(handler: Handler, signals: Iterable[int] = STOP_SIGNALS) -> Iterator[None]:
    """Install a handler while the block runs, then restore the previous ones; outside the main thread do nothing."""
    main = threading.current_thread() is threading.main_thread()
    previous_handlers = {number: signal.signal(number, handler) for number in signals} if main else {}
    try:
        yield
    finally:
        for number, previous in previous_handlers.items():
            signal.signal(number, previous)


@contextmanager
def interrupt_on_signals() -> Iterator[None]:
    """Raise `Interrupted` at the first signal; a second one ends the process at once.

    In interactive Python, whose variables are worth more than the seconds of an orderly end, a second Ctrl-C raises
    `KeyboardInterrupt`.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        if hasattr(sys, "ps1"):
            signal.signal(signal.SIGINT, signal.default_int_handler)
        raise Interrupted(number)

    with handle_signals(interrupt):
        yield


@contextmanager
def collect_signals(signals: Iterable[int] = STOP_SIGNALS) -> Iterator[list[int]]:
    """Collect signals in the list that is yielded, for code in which an exception at any moment does harm."""
    received: list[int] = []
    with handle_signals(lambda number, frame: received.append(number), signals):
        yield received


@contextmanager
def interrupt_and_resend(signals: Iterable[int]) -> Iterator[None]:
    """Raise `Interrupted` at a signal; send it again after the block, to the handler that was there before."""
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise Interrupted(number)

    try:
        with handle_signals(interrupt, signals):
            yield
    finally:
        for number in received:
            os.kill(os.getpid(), number)


def die_with_parent(wait_for_parent: Callable[[], object] | None = None) -> None:
    """End this process when its parent has ended, however that went, and its process group where it leads one.

    Args:
        wait_for_parent: Returns when the parent has ended; called in a thread. None: Linux kills this process without
            a thread, for one that forks; on other systems nothing happens.
    """
    if wait_for_parent is None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        return

    def end() -> None:
        wait_for_parent()
        if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
