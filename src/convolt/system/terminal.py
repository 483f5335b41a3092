"""Standard streams that may be full or closed, messages of libraries, and the working directory."""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from convolt.errors import UserError


class OutputEndedError(Exception):
    """Whoever read the standard output has closed it: `| head`."""


class _Output:
    """Standard output, with what to do when it cannot be written."""

    def __init__(self, stream: Any, on_error: Callable[[OSError], None]) -> None:
        self.stream = stream
        self._on_error = on_error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        self._attempt(lambda: self.stream.write(text))
        return len(text)  # not every stream says how much it has written

    def flush(self) -> None:
        self._attempt(self.stream.flush)

    def _attempt(self, operation: Callable[[], object]) -> None:
        try:
            operation()
        except OSError as error:
            _discard_output(self.stream)
            self._on_error(error)


@contextmanager
def _handle_output_errors(on_error: Callable[[OSError], None]) -> Iterator[None]:
    """Call `on_error` where standard output cannot be written while the block runs."""
    before = sys.stdout
    sys.stdout = _Output(before.stream if isinstance(before, _Output) else before, on_error)
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout = before


@contextmanager
def fail_on_output_errors() -> Iterator[None]:
    """Raise an error where standard output cannot be written, for commands whose purpose it is.

    Raises:
        UserError: When it cannot be written.
        OutputEndedError: When nobody reads it any more.
    """

    def fail(error: OSError) -> None:
        if isinstance(error, BrokenPipeError):
            raise OutputEndedError from None
        raise UserError(f"standard output cannot be written ({error.strerror})") from None

    _open_closed_streams()
    with _handle_output_errors(fail):
        yield


@contextmanager
def ignore_output_errors() -> Iterator[None]:
    """Ignore errors of standard output, for runs: their numbers are worth more than their screen."""

    def warn(error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            message = f"standard output cannot be written ({error.strerror}): the run continues without it"
            with suppress(OSError):
                print(message, file=sys.stderr)

    if sys.stdout is None:  # closed
        yield
        return
    with _handle_output_errors(warn):
        yield


@contextmanager
def silence_libraries() -> Iterator[None]:
    """Send messages of libraries to run.log alone while the block runs, since the user cannot act on them."""
    root, handler, shown = logging.getLogger(), logging.NullHandler(), warnings.showwarning
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch")]
    before = [(logger, logger.handlers[:], logger.propagate) for logger in loggers]
    root.addHandler(handler)
    logging.captureWarnings(True)
    captured_here = warnings.showwarning is not shown
    for logger in loggers:
        logger.handlers.clear()
        logger.propagate = True
    try:
        yield
    finally:
        root.removeHandler(handler)
        if captured_here:
            logging.captureWarnings(False)
        for logger, handlers, propagate in before:
            logger.handlers[:], logger.propagate = handlers, propagate


def table_width() -> int | None:
    """Return the width of tables in a file or pipe; None on a terminal, or where `COLUMNS` says it."""
    return None if sys.stdout.isatty() or "COLUMNS" in os.environ else 100


def check_working_directory() -> None:
    """Refuse to work in a folder that was deleted.

    Raises:
        UserError: Where the working directory is gone.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UserError("the working directory was deleted, or moved: cd to one that is there") from None


def _discard_output(stream: Any) -> None:
    """Discard what a stream has buffered, and all that is written to it from now on."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _open_closed_streams() -> None:
    """Open /dev/null where a standard stream is closed; the next file that is opened would take its place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 (until the process ends)
