"""The report as one HTML file that needs nothing else: no server, no internet, no other file.

All that folds is a `details` element, so that it folds without JavaScript too; what needs a script (sorting, the switch
between light and dark, folding all at once) is put there by the script.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from convolt.reports.formats import plural
from convolt.reports.table import ROW, Cell, Column, Table

CSS, SCRIPT = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
MANY_ROWS = 20
"""A table with more rows is folded at first, and scrolls in a box below its header."""


def paragraph(text: str) -> str:
    """Return a paragraph of text."""
    return f"<p>{escape(text)}</p>"


def table(content: Table, heading: bool = True) -> str:
    """Return a table with its caption and notes; one with a heading folds, and is folded if it has many rows."""
    head = "".join(f'<th scope="col"{_style(column)}>{escape(column.label)}</th>' for column in content.columns)
    body = ""
    for row in content.rows:
        cells = zip(row, content.columns, strict=True)
        body += f"<tr>{''.join(_make_cell(cell, column, content) for cell, column in cells)}</tr>"
    notes = "".join(f"<li><sup>{mark}</sup> {escape(text)}</li>" for mark, text in content.footnotes.items())
    title, many = escape(content.title), len(content.rows) > MANY_ROWS
    shown = (
        f'<div class="scroll{" tall" if many else ""}" role="region" aria-label="{title}"><table aria-label="{title}">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        f'<p class="caption">{escape(content.caption)}</p>' + (f'<ul class="notes">{notes}</ul>' if notes else "")
    )
    if not heading:
        return shown
    count = f' <span class="soft">{plural(len(content.rows), "row")}</span>' if many else ""
    return f"<details{'' if many else ' open'}><summary><h3>{title}</h3>{count}</summary>{shown}</details>"


def _make_cell(cell: Cell, column: Column, content: Table) -> str:
    """Return a cell with what it is sorted by; that of the row's name heads its row."""
    value = "" if cell.value is None else f' data-value="{escape(str(cell.value))}"'
    style = _style(column) or (' class="long"' if len(cell.text) > 14 else "")
    heads = column is (ROW if ROW in content.columns else content.columns[0])
    opening, closing = ('<th scope="row"', "</th>") if heads else ("<td", "</td>")
    return f"{opening}{style}{value}>{cell.with_marks('<sup>', '</sup>', escape)}{closing}"


def _style(column: Column) -> str:
    return "" if column.is_text else ' class="number"'


def picture(content: bytes, alt: str, caption: str = "", wide: bool = False) -> str:
    """Return a PNG inside the page.

    Args:
        content: The file.
        alt: What it shows, for those who do not see it.
        caption: Shown below it.
        wide: A phone scrolls it instead of shrinking it.
    """
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    opening = '<figure class="wide">' if wide else "<figure>"
    return f"{opening}{_image('png', content, alt)}{below}</figure>"


def figure(forms: Mapping[str, bytes], caption: str, heat_map: bool = False) -> str:
    """Return a figure, given by format, that folds below its caption; a phone scrolls it instead of shrinking it.

    Args:
        forms: The figure.
        caption: What is seen.
        heat_map: Its colors stand for numbers, so that they stay as they are in the dark.
    """
    shown, kind = _image("svg+xml", forms["svg"], caption), "wide" if heat_map else "chart"
    return (
        f'<details open><summary><h3>{escape(caption)}</h3></summary><figure class="{kind}">{shown}</figure></details>'
    )


def _image(kind: str, content: bytes, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="data:image/{kind};base64,{base64.b64encode(content).decode()}">'


def pair(parts: Iterable[str]) -> str:
    """Set pictures side by side where there is room."""
    return f'<div class="pair">{"".join(parts)}</div>'


def collapsible(summary: str, parts: Iterable[str]) -> str:
    """Return parts that are shown on a click, and always when printed."""
    return f'<details class="box"><summary>{escape(summary)}</summary>{"".join(parts)}</details>'


def facts(entries: Iterable[tuple[str, str]]) -> str:
    """Return a list of terms and what they are."""
    return f"<dl>{''.join(f'<dt>{escape(term)}</dt><dd>{escape(text)}</dd>' for term, text in entries)}</dl>"


def build(
    title: str,
    question: str,
    entries: Iterable[tuple[str, str]],
    sections: Mapping[str, Sequence[str]],
    summary: Sequence[str] = (),
) -> str:
    """Return the whole page.

    Args:
        title: Of the window and the first heading.
        question: Shown below it; may be empty.
        entries: Facts, folded above the sections; those whose term is "note" are always shown.
        sections: Parts by heading, as HTML; headings without parts are left out.
        summary: The results in a few sentences, on top.

    Returns:
        HTML that asks the browser to load nothing from anywhere.
    """
    shown = [(heading, parts) for heading, parts in sections.items() if parts]
    links = "".join(f'<a href="#part-{i}">{escape(heading)}</a>' for i, (heading, _) in enumerate(shown))
    body = "".join(
        f'<section id="part-{i}"><details open><summary><h2>{escape(heading)}</h2></summary>'
        f'<div class="part">{"".join(parts)}</div></details></section>'
        for i, (heading, parts) in enumerate(shown)
    )
    entries = list(entries)
    about = [entry for entry in entries if entry[0] != "note"]
    below = f'<p class="question">{escape(question)}</p>' if question else ""
    if summary:
        below += (
            f'<ul class="summary" aria-label="In short">{"".join(f"<li>{escape(text)}</li>" for text in summary)}</ul>'
        )
    below += "".join(f'<p class="note"><b>Note</b> {escape(text)}</p>' for term, text in entries if term == "note")
    if about:
        below += collapsible("How this was made: folder, metric, runs, settings, versions", [facts(about)])
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>\n{CSS}</style></head><body>"
        f'<header><h1>{escape(title)}</h1>{below}<nav aria-label="Contents">{links}</nav></header>'
        f"<main>{body}</main><script>\n{SCRIPT}</script></body></html>\n"
    )
