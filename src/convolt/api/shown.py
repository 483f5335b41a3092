"""What notebooks show of files: pictures and pages that were written before."""

import os
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

SHOWN_WIDTH = 1.5
"""Pixels of a saved picture for each of a notebook's page: it has more, for screens that have more."""


class SavedPicture(os.PathLike[str]):
    """A picture in a file, which IPython shows where it is the value of a cell.

    Args:
        path: The PNG file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"SavedPicture({str(self.path)!r})"

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        """Return the file, and the size at which IPython shows it."""
        content = self.path.read_bytes()
        width, height = (int.from_bytes(content[start : start + 4]) for start in (16, 20))  # of every PNG file
        return content, {"width": round(width / SHOWN_WIDTH), "height": round(height / SHOWN_WIDTH)}


class ReportPage(os.PathLike[str]):
    """A report that was written: IPython shows its sentences and a link to it.

    Args:
        path: Its HTML page.
        summary: The results in a few sentences.
    """

    def __init__(self, path: Path, summary: tuple[str, ...]) -> None:
        self.path = path
        self.summary = summary

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"ReportPage({str(self.path)!r})"

    def _repr_html_(self) -> str:
        """Return the sentences and the link."""
        sentences = "".join(f"<li>{escape(text)}</li>" for text in self.summary)
        link = f'<a href="{quote(self.path.as_posix())}" target="_blank">{escape(str(self.path))}</a>'
        return f"<ul>{sentences}</ul><p>{link}</p>"


def saved_pictures(folder: Path) -> dict[str, SavedPicture]:
    """Return the pictures in a folder by name; none where there is no such folder."""
    return {path.stem: SavedPicture(path) for path in sorted(folder.glob("*.png"))}
