"""A line below a notebook's cell that changes in place: what a terminal shows as a bar."""

from html import escape
from typing import Any

REFRESH_SECONDS = 0.25
"""How often a line is to change at most."""


def in_notebook() -> bool:
    """Return whether what this process displays is shown by a notebook."""
    from rich.console import Console

    return Console().is_jupyter


class LiveLine:
    """One output of a cell, replaced at each call, so that a saved notebook has its last state alone."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, text: str, done: float | None = None, more: str = "") -> None:
        """Show a text.

        Args:
            text: Plain text, of one line.
            done: The share that is done, from 0 to 1, for a bar before the text; None: no bar.
            more: Lines below it, which fold once nothing more is to be done.
        """
        bar = ""
        if done is not None:
            bar = f'<progress value="{done:.3f}" max="1" style="width: 16em; vertical-align: middle"></progress> '
        shown = f"{bar}{escape(text)}"
        if more:
            lines = f'<pre style="margin: 0.5em 1em">{escape(more)}</pre>'
            shown = f"<details{'' if done is None else ' open'}><summary>{shown}</summary>{lines}</details>"
        shown = f'<div style="font-family: monospace">{shown}</div>'
        self._display({"text/plain": text if done is None else f"{100 * done:3.0f}% {text}", "text/html": shown})

    def clear(self) -> None:
        """Show nothing."""
        if self._handle is not None:
            self._display({"text/plain": "", "text/html": ""})

    def _display(self, content: dict[str, str]) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(content, raw=True)
