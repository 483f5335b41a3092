"""Ends this very process by SIGKILL at a chosen call of the system: before it, after it, or with half a file written.

Used by what the harness forks, and, through `inject/sitecustomize.py`, by processes that it cannot reach otherwise.
Python's own calls are counted, as they are what the framework makes files appear with.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

CALLS = ("replace", "rename", "fsync", "mkdir", "unlink")


class Killer:
    """Counts calls, and ends the process at one of them.

    Args:
        at: The call at which to end it, from 1; 0: never.
        how: `before` the call, `after` it, or `torn`: an fsync's file is cut to `share` of its bytes first.
        share: See `torn`.
        once: A file that is made when the process ends itself; where it exists, nothing is done.
        below: Only calls on paths below this folder count; None: all.
    """

    def __init__(
        self, at: int, how: str = "before", share: float = 0.5, once: Path | None = None, below: str | None = None
    ) -> None:
        self.at, self.how, self.share, self.once, self.below = at, how, share, once, below
        self.count = 0

    def install(self) -> None:
        """Wrap the calls."""
        for name in CALLS:
            setattr(os, name, self._wrapped(getattr(os, name)))

    def _wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(target: Any, *arguments: Any, **options: Any) -> Any:
            if not self._concerns(target):
                return call(target, *arguments, **options)
            self.count += 1
            mine = self.count == self.at and not (self.once and self.once.exists())
            if mine and self.how == "torn" and isinstance(target, int):
                os.ftruncate(target, int(os.fstat(target).st_size * self.share))
            if mine and self.how != "after":
                self.end()
            result = call(target, *arguments, **options)
            if mine:
                self.end()
            return result

        return counted

    def _concerns(self, target: Any) -> bool:
        if self.below is None:
            return True
        path = Path(f"/proc/self/fd/{target}").readlink() if isinstance(target, int) else Path(target).absolute()
        return self.below in str(path)

    def end(self) -> None:
        """End this process as a crash would."""
        if self.once:
            os.close(os.open(self.once, os.O_CREAT | os.O_WRONLY))
        os.kill(os.getpid(), signal.SIGKILL)
