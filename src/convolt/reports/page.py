"""The report as one HTML file that needs nothing else: no server, no internet, no other file."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from convolt.reports.table import Column, Table

CSS, SCRIPT = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))


def paragraph(text: str) -> str:
    """Return a paragraph of text."""
    return f"<p>{escape(text)}</p>"


def table(content: Table, heading: bool = True) -> str:
    """Return a sortable table with its caption and notes."""
    head = "".join(
        f'<th scope="col"{_style(column)}><button type="button">{escape(column.label)}</button></th>'
        for column in content.columns
    )
    body = ""
    for row in content.rows:
        body += "<tr>"
        for cell, column in zip(row, content.columns, strict=True):
            value = "" if cell.value is None else f' data-value="{escape(str(cell.value))}"'
            style = _style(column) or (' class="long"' if len(cell.text) > 14 else "")
            body += f"<td{style}{value}>{cell.with_marks('<sup>', '</sup>', escape)}</td>"
        body += "</tr>"
    title = f"<h3>{escape(content.title)}</h3>" if heading else ""
    notes = "".join(f"<li><sup>{mark}</sup> {escape(text)}</li>" for mark, text in content.footnotes.items())
    return (
        f'{title}<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        f'<p class="caption">{escape(content.caption)}</p>' + (f'<ul class="notes">{notes}</ul>' if notes else "")
    )


def _style(column: Column) -> str:
    return "" if column.is_text else ' class="number"'


def picture(content: bytes, alt: str, caption: str = "") -> str:
    """Return a PNG inside the page; `alt` says what it shows, for those who do not see it."""
    return _image("<figure>", "png", content, alt, caption)


def figure(forms: Mapping[str, bytes], caption: str) -> str:
    """Return a figure, given by format, that a phone scrolls instead of shrinking it."""
    return _image("<figure class=wide>", "svg+xml", forms["svg"], caption, caption)


def _image(opening: str, kind: str, content: bytes, alt: str, caption: str) -> str:
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return f'{opening}<img alt="{escape(alt)}" src="{source}">{below}</figure>'


def pair(parts: Iterable[str]) -> str:
    """Set pictures side by side where there is room."""
    return f'<div class="pair">{"".join(parts)}</div>'


def collapsible(summary: str, parts: Iterable[str]) -> str:
    """Return parts that are shown on a click, and always when printed."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>"


def facts(entries: Iterable[tuple[str, str]]) -> str:
    """Return a list of terms and what they are."""
    return f"<dl>{''.join(f'<dt>{escape(term)}</dt><dd>{escape(text)}</dd>' for term, text in entries)}</dl>"


def build(title: str, question: str, entries: Iterable[tuple[str, str]], sections: Mapping[str, Sequence[str]]) -> str:
    """Return the whole page.

    Args:
        title: Of the window and the first heading.
        question: Shown below it; may be empty.
        entries: Facts between the question and the list of contents.
        sections: Parts by heading, as HTML; headings without parts are left out.

    Returns:
        HTML that asks the browser to load nothing from anywhere.
    """
    shown = [(heading, parts) for heading, parts in sections.items() if parts]
    links = "".join(f'<a href="#part-{i}">{escape(heading)}</a>' for i, (heading, _) in enumerate(shown))
    body = "".join(
        f'<section id="part-{i}"><h2>{escape(heading)}</h2>{"".join(parts)}</section>'
        for i, (heading, parts) in enumerate(shown)
    )
    below = f'<p class="question">{escape(question)}</p>' if question else ""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>\n{CSS}</style></head><body>"
        f"<header><h1>{escape(title)}</h1>{below}{facts(entries)}"
        f"<nav>{links}</nav></header><main>{body}</main><script>\n{SCRIPT}</script></body></html>\n"
    )
