"""A bar for work that takes longer than two seconds."""

import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

_SECONDS = 2


class Progress:
    """A progress bar on standard error, where that is a terminal, once the work has taken two seconds.

    Args:
        text: What is being done.
        total: Steps of it.
    """

    def __init__(self, text: str, total: int) -> None:
        self.text = text
        self.total = total
        self._done = 0
        self._start = time.monotonic()
        self._wanted = sys.stderr is not None and sys.stderr.isatty()
        self._bar: RichProgress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, steps: int = 1) -> None:
        """Count what has been done."""
        self._done += steps
        if self._bar is None and self._wanted and time.monotonic() - self._start > _SECONDS:
            from rich.console import Console
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(console=Console(stderr=True), transient=True)
            self._bar.start()
            self._bar.add_task(self.text, total=self.total)
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=self._done)
