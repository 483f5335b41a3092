"""A Matplotlib figure that notebooks show. Matplotlib is imported here: this module is imported where one is drawn."""

from typing import Any

from matplotlib.figure import Figure

SHOWN_DPI = 80
"""Pixels of a notebook's page for an inch of a figure; it has more of its own, for screens that have more."""


class ShownFigure(Figure):
    """A figure that IPython shows where it is the value of a cell; pyplot, which would show it again, has it not."""

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        """Return a PNG file, and the size at which IPython shows it."""
        from convolt.figures.style import to_bytes

        width, height = self.get_size_inches()
        return to_bytes(self), {"width": round(width * SHOWN_DPI), "height": round(height * SHOWN_DPI)}
