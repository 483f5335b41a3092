"""Fonts for names that Matplotlib's own font cannot write: those of this machine that can, or else escapes."""

import time
import unicodedata
from collections.abc import Iterator
from functools import cache
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
"""How long fonts of other names are opened to see what they have."""

_missing: set[str] = set()


def needed(text: str) -> set[str]:
    """Return the characters of a text that Matplotlib's own font lacks."""
    if text.isascii():
        return set()
    return {character for character in text if ord(character) > 127 and ord(character) not in _usual()}


def take_missing() -> str | None:
    """Return a line that names the characters that no font here has, since it was asked last; None where all are."""
    if not _missing:
        return None
    characters = sorted(_missing)
    _missing.clear()
    shown = ", ".join(_named(character) for character in characters[:8])
    more = f" and {len(characters) - 8} more" if len(characters) > 8 else ""
    emoji = all(unicodedata.category(character) in ("So", "Sk", "Cn") for character in characters)
    advice = "Noto Emoji or Symbola (fonts-symbola)" if emoji else "Noto Sans (fonts-noto-cjk, fonts-noto-core)"
    return f"no font here has {shown}{more}, so figures show the code instead: install one, such as {advice}"


def _named(character: str) -> str:
    """Write a character so that any terminal shows it, with itself where it can be encoded."""
    return f"{character} ({_escaped(character)})" if character.isprintable() else _escaped(character)


def _escaped(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode("ascii")


def writable(text: str) -> str:
    """Return a text with escapes in place of the characters that no font here has."""
    lacking = {character for character in needed(text) if _font_with(character) is None}
    if not lacking:
        return text
    _missing.update(lacking)
    return "".join(_escaped(character) if character in lacking else character for character in text)


def families(text: str) -> list[str]:
    """Return the names of the fonts that write a text together, Matplotlib's own first."""
    found = dict.fromkeys(entry.name for entry in map(_font_with, sorted(needed(text))) if entry is not None)
    return ["DejaVu Sans", *found]


def parts(text: str) -> Iterator[tuple[str, Any]]:
    """Cut a text into parts of one font each: the part, and the entry of its font; None for Matplotlib's own."""
    start, entry = 0, None
    for place, character in enumerate(text):
        own = _font_with(character) if needed(character) else None
        if own is not entry:
            if place > start:
                yield text[start:place], entry
            start, entry = place, own
    yield text[start:], entry


def apply(figure: "Figure") -> bool:
    """Give the texts of a figure that was drawn once the fonts that they need; tell whether any needs one."""
    from matplotlib.text import Text

    changed = False
    for written in figure.findobj(Text):
        assert isinstance(written, Text)
        text = written.get_text()
        if needed(text):
            changed = True
            written.set_text(writable(text))
            written.set_fontfamily(families(text))
    return changed


@cache
def _usual() -> frozenset[int]:
    """Return the code points of Matplotlib's own font."""
    import matplotlib as mpl
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")).get_charmap())


@cache
def _font_with(character: str) -> Any:
    """Return the entry in Matplotlib's list of a font that has a character; None where there is none."""
    return next((entry for entry in _entries() if ord(character) in _points(entry.fname, face(entry))), None)


def _entries() -> Iterator[Any]:
    """Go through the regular fonts of this machine, the likely ones first, until opening them has taken too long."""
    for entry in _listed():
        if entry.fname in _opened or time.monotonic() < _deadline():
            yield entry


@cache
def _deadline() -> float:
    return time.monotonic() + _SECONDS


@cache
def _listed() -> tuple[Any, ...]:
    from matplotlib import font_manager

    manager = font_manager.fontManager
    # Matplotlib keeps its list in a file, which does not know what was installed since.
    known = {entry.fname for entry in manager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:
            try:
                manager.addfont(path)
            except Exception:  # fonts that FreeType cannot read
                continue
    usable = [
        entry for entry in manager.ttflist if entry.style == "normal" and not any(part in entry.name for part in NEVER)
    ]
    return tuple(sorted(usable, key=_rank))


def _rank(entry: Any) -> tuple[int, int, str, str]:
    """Order fonts: by the names that are preferred, those of usual weight first."""
    place = next((k for k, name in enumerate(PREFERRED) if entry.name.startswith(name)), len(PREFERRED))
    return place, abs(int(entry.weight) - 400), entry.name, entry.fname


def face(entry: Any) -> int:
    """Return which of the fonts in its file an entry is."""
    return int(getattr(entry, "index", 0))


_opened: set[str] = set()


@cache
def _points(path: str, index: int) -> frozenset[int]:
    """Return the code points of a font whose outlines can be drawn; none where it has none."""
    from matplotlib.ft2font import FT2Font

    _opened.add(path)
    try:
        font = FT2Font(path, face_index=index) if index else FT2Font(path)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except Exception:  # what cannot be opened has nothing
        return frozenset()
