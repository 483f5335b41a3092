"""The look of all figures, and what several of them draw with.

Colors are Okabe and Ito's, which color-blind readers tell apart (https://jfly.uni-koeln.de/color/), without the
yellow that is lost on white paper; beyond the last color, line styles and markers differ.
"""

import io
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, simplefilter

import numpy as np
from numpy.typing import NDArray

from convolt.figures import fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Sheet = NDArray[np.uint8]
"""A picture in pixels, (height, width, 3)."""

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", ":", "-.")
MARKERS = "os^DvPX*"
DPI = 150
STYLE: Any = {
    "text.parse_math": False,  # a "$" in a name is a "$"
    "svg.hashsalt": "convolt",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.dpi": DPI,
}


@contextmanager
def _apply_style() -> Iterator[None]:
    """Apply the style, without warnings of glyphs that a font lacks."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE), catch_warnings():
        simplefilter("ignore", UserWarning)
        yield


@contextmanager
def new_figure(width: float, height: float, *, layout: Any = "constrained") -> Iterator["Figure"]:
    """Make a figure of a size in inches, without pyplot and without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from convolt.figures.shown_figure import ShownFigure

    with _apply_style():
        figure = ShownFigure(figsize=(width, height), dpi=DPI, layout=layout)
        FigureCanvasAgg(figure)
        yield figure


def to_bytes(figure: "Figure | Sheet", form: str = "png") -> bytes:
    """Return a figure as a PNG or SVG file, a sheet as a PNG file: the same bytes for the same content."""
    if isinstance(figure, np.ndarray):
        return _encode_png(figure)
    with _apply_style():
        drawn = _encode(figure, form)
        # The labels of ticks are known only when the figure has been drawn.
        return _encode(figure, form) if fonts.apply_fonts(figure) else drawn


def _encode(figure: "Figure", form: str) -> bytes:
    """Draw once for a PNG, where `savefig` draws twice to lay out."""
    if form == "svg":
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()
    canvas: Any = figure.canvas
    canvas.draw()
    return _encode_png(np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3]))


def _encode_png(pixels: Sheet) -> bytes:
    """Compress less than usual, in half the time."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1, dpi=(DPI, DPI))
    return buffer.getvalue()


def set_margins(figure: "Figure", *, left: float, bottom: float, right: float = 0.12, top: float = 0.62) -> None:
    """Set margins in inches: half the time of a constrained layout, where the sizes of labels are known."""
    width, height = figure.get_size_inches()
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)


def set_title(figure: "Figure", title: str) -> None:
    """Write a title of one line or several into the upper left corner."""
    width, height = figure.get_size_inches()
    figure.text(0.08 / width, 1 - 0.08 / height, fonts.escape_lacking(title), fontsize=10, va="top")


def longest_width_inches(names: list[str], size: float, limit: int = 18) -> float:
    """Return about how many inches the longest of some names takes, each cut to a limit, in a font size in points."""
    return max((width_in_letters(shorten(name, limit)) for name in names), default=0) * size * 0.6 / 72


def width_in_letters(text: str) -> float:
    """Return how wide a text is in letters; Chinese, Japanese, Korean and emoji are wider than letters."""
    return len(text) + 0.7 * sum(unicodedata.east_asian_width(character) in "WF" for character in text)


def shorten(text: str, limit: int = 44) -> str:
    """Cut a text that is too long for its place, and write it in one line."""
    text = one_line(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def one_line(text: str) -> str:
    """Write a name without newlines and other control characters, and with escapes for what no font here has."""
    return fonts.escape_lacking("".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in text))


def set_class_ticks(set_ticks: Callable[..., object], names: list[str], **style: Any) -> None:
    """Label an axis with classes, every one up to 100 and every k-th beyond."""
    step = max(1, -(-len(names) // 100))
    style |= {"fontsize": 8 if len(names) <= 20 else 5}
    if style.get("rotation") == 45:
        style |= {"ha": "right", "rotation_mode": "anchor"}
    set_ticks(range(0, len(names), step), [shorten(name, 18) for name in names[::step]], **style)


def annotate(axes: "Axes", values: NDArray[np.float64], image: Any, text: Callable[[float], str]) -> None:
    """Write each value into its cell, dark on light and light on dark; cells of nothing at all stay empty."""
    for (y, x), value in np.ndenumerate(values):
        if np.isfinite(value) and value != 0:
            color = "black" if image.norm(value) > 0.55 else "white"
            written = axes.text(x, y, text(float(value)), ha="center", va="center", color=color, fontsize=7)
            written.set_in_layout(False)  # it lies within its cell, and measuring it takes time
