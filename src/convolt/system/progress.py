"""A bar for work that takes longer than two seconds."""

import sys
import time
from typing import TYPE_CHECKING, Self

from convolt.system.notebook import REFRESH_SECONDS, LiveLine, in_notebook

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

_SECONDS = 2


class Progress:
    """A bar, once the work has taken two seconds: on standard error where that is a terminal, or in a notebook.

    Args:
        text: What is being done.
        total: Steps of it.
    """

    def __init__(self, text: str, total: int) -> None:
        self.text = text
        self.total = total
        self._done = 0
        self._start = self._shown = time.monotonic()
        self._wanted = sys.stderr is not None and sys.stderr.isatty()
        self._bar: RichProgress | None = None
        self._line = LiveLine() if not self._wanted and in_notebook() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar:
            self._bar.stop()
        if self._line:
            self._line.clear()

    def advance(self, steps: int = 1) -> None:
        """Count what has been done."""
        self._done += steps
        now = time.monotonic()
        if now - self._start <= _SECONDS:
            return
        if self._wanted:
            self._advance_bar()
        elif self._line and now - self._shown > REFRESH_SECONDS:
            self._shown = now
            self._line.show(f"{self.text} {self._done:,} of {self.total:,}", self._done / max(1, self.total))

    def _advance_bar(self) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(console=Console(stderr=True), transient=True)
            self._bar.start()
            self._bar.add_task(self.text, total=self.total)
        self._bar.update(self._bar.task_ids[0], completed=self._done)
