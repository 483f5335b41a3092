"""What a command shares with its terminal: streams that may be full or gone, and libraries that talk."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from convolt.errors import UserError


class OutputEndedError(Exception):
    """Whoever read the standard output has closed it: `| head`."""


class _Checked:
    """A stream that tells in a line when it cannot be written."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)  # not every stream says how much it has written
            return len(text)
        except OSError as error:
            return self._failed(error)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> int:
        _drop(self._stream)
        if isinstance(error, BrokenPipeError):
            raise OutputEndedError from None
        raise UserError(f"standard output cannot be written ({error.strerror})") from None


class _Dispensable(_Checked):
    """A stream that may end: what is written from then on is dropped."""

    def _failed(self, error: OSError) -> int:
        _drop(self._stream)
        if not isinstance(error, BrokenPipeError):
            with suppress(OSError):
                print(
                    f"standard output cannot be written ({error.strerror}): the run goes on without it", file=sys.stderr
                )
        return 0


@contextmanager
def checked_output() -> Iterator[None]:
    """Tell in a line where standard output cannot be written, for commands whose purpose it is.

    Raises:
        UserError: When it cannot be written.
        OutputEndedError: When nobody reads it any more.
    """
    _open_closed_streams()
    before = sys.stdout
    sys.stdout = _Checked(before)
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout = before


@contextmanager
def dispensable_output() -> Iterator[None]:
    """Go on where standard output ends, for runs: their numbers are worth more than their screen."""
    before = sys.stdout
    if before is None:  # closed
        yield
        return
    sys.stdout = _Dispensable(before._stream if isinstance(before, _Checked) else before)
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout = before


@contextmanager
def quiet() -> Iterator[None]:
    """Send what libraries say to run.log alone, since the user cannot act on it; afterwards all is as it was."""
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


def check_working_directory() -> None:
    """Refuse to work in a folder that was deleted.

    Raises:
        UserError: Where the working directory is gone.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UserError("the working directory was deleted, or moved: cd to one that is there") from None


def _drop(stream: Any) -> None:
    """Let go what a stream still holds, and all that is written to it from now on."""
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
