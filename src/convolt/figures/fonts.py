"""Fonts for names that Matplotlib's own font cannot write: those of this machine that can, or else escapes.

Matplotlib falls back from font to font itself, but must be given their names, and Pillow does not.
"""

import time
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PREFERRED = (
    "Noto Sans CJK SC", "Noto Sans CJK", "Source Han Sans", "WenQuanYi", "PingFang", "Hiragino", "Microsoft YaHei",
    "Yu Gothic", "Malgun Gothic", "Apple SD Gothic", "IPA", "Nanum", "Arial Unicode MS", "Noto Sans",
    "Noto Emoji", "Symbola", "Segoe UI Emoji", "Segoe UI Symbol", "Nirmala UI", "Leelawadee", "Tahoma", "FreeSans",
)  # fmt: skip
"""Beginnings of the names of fonts that are tried first."""

NEVER = ("Last Resort", "Color Emoji", "ColorEmoji", "STIX", "cm", "DejaVu")
"""Parts of the names of fonts that draw boxes, cannot be drawn, or have no letters."""

_SECONDS = 3.0
"""How long fonts are opened to look for characters; after that, those that are open must do."""

_missing: set[str] = set()


def find_lacking(text: str) -> set[str]:
    """Return the characters of a text that Matplotlib's own font lacks."""
    return set() if text.isascii() else {letter for letter in text if ord(letter) not in _default_code_points()}


def missing_characters_note() -> str | None:
    """Return a line on the characters that no font here has, since the last call; None where there are none."""
    if not _missing:
        return None
    characters = sorted(_missing)
    _missing.clear()
    shown = ", ".join(f"{c} ({_escape(c)})" if c.isprintable() else _escape(c) for c in characters[:8])
    more = f" and {len(characters) - 8} more" if len(characters) > 8 else ""
    emoji = all(unicodedata.category(character) in ("So", "Sk", "Cn") for character in characters)
    advice = "Noto Emoji or Symbola (fonts-symbola)" if emoji else "Noto Sans (fonts-noto-cjk, fonts-noto-core)"
    return f"no font here has {shown}{more}, so figures show the code instead: install one, such as {advice}"


def _escape(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode("ascii")


def escape_lacking(text: str) -> str:
    """Return a text with escapes in place of the characters that no font here has."""
    lacking = {character for character in find_lacking(text) if _font_with(character) is None}
    if not lacking:
        return text
    _missing.update(lacking)
    return "".join(_escape(character) if character in lacking else character for character in text)


def font_families(text: str) -> list[str]:
    """Return the names of the fonts that write a text together, Matplotlib's own first."""
    found = dict.fromkeys(entry.name for entry in map(_font_with, sorted(find_lacking(text))) if entry is not None)
    return ["DejaVu Sans", *found]


def split_by_font(text: str) -> Iterator[tuple[str, Any]]:
    """Cut a text into parts of one font each: the part, and the entry of its font; None for Matplotlib's own."""
    if not find_lacking(text):
        yield text, None
        return
    for entry, group in groupby(text, lambda character: _font_with(character) if find_lacking(character) else None):
        yield "".join(group), entry


def apply_fonts(figure: "Figure") -> bool:
    """Give the texts of a figure that has been drawn once the fonts that they need; return whether any needs one."""
    from matplotlib.text import Text

    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and find_lacking(text.get_text())]
    for text in texts:
        text.set(text=escape_lacking(text.get_text()), fontfamily=font_families(text.get_text()))
    return bool(texts)


def default_font_path() -> str:
    """Return the file of Matplotlib's own font."""
    import matplotlib as mpl

    return str(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@cache
def _default_code_points() -> frozenset[int]:
    """Return the code points of Matplotlib's own font, and control characters, which no font has."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(default_font_path()).get_charmap()) | frozenset(range(128))


@cache
def _font_with(character: str) -> Any:
    """Return the entry in Matplotlib's list of a font that has a character; None where there is none."""
    found = (entry for entry in _usable_fonts() if ord(character) in _code_points(entry.fname, face_index(entry)))
    return next(found, None)


@cache
def _usable_fonts() -> tuple[Any, ...]:
    """Return the entries of the regular fonts of this machine, the likely ones first."""
    from matplotlib import font_manager

    manager = font_manager.fontManager
    # Matplotlib keeps its list in a file, which does not have the fonts installed since.
    known = {entry.fname for entry in manager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:
            with suppress(Exception):  # fonts that FreeType cannot read
                manager.addfont(path)
    usable = (e for e in manager.ttflist if e.style == "normal" and not any(part in e.name for part in NEVER))
    return tuple(sorted(usable, key=_preference))


def _preference(entry: Any) -> tuple[int, int, str, str]:
    """Order fonts: by the names that are preferred, those of usual weight first."""
    place = next((k for k, name in enumerate(PREFERRED) if entry.name.startswith(name)), len(PREFERRED))
    return place, abs(int(entry.weight) - 400), entry.name, entry.fname


def face_index(entry: Any) -> int:
    """Return the number of an entry among the fonts in its file; before Matplotlib 3.11, always the first."""
    return int(getattr(entry, "index", 0))


@cache
def _deadline() -> float:
    return time.monotonic() + _SECONDS


@cache
def _code_points(path: str, index: int) -> frozenset[int]:
    """Return the code points of a font; none where it cannot be drawn, or the time for opening fonts is over."""
    from matplotlib.ft2font import FT2Font

    with suppress(Exception):
        if time.monotonic() < _deadline():
            font = FT2Font(path, face_index=index) if index else FT2Font(path)
            return frozenset(font.get_charmap()) if font.scalable else frozenset()
    return frozenset()
