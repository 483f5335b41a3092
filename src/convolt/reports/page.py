"""The report as one HTML file that needs nothing else: no server, no internet, no other file."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from convolt.reports.table import Table, letter

CSS = """
:root { color-scheme: light dark; --text: #1b1b1b; --soft: #5c5c5c; --line: #d4d4d4; --back: #ffffff; --band: #f3f4f6;
  --link: #0060a0; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e6e6; --soft: #a8a8a8; --line: #444; --back: #17181a;
  --band: #222427; --link: #7cc0f0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 4rem; max-width: 70rem; color: var(--text); background: var(--back);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.6rem 0 .4rem; }
a { color: var(--link); }
.question { font-size: 1.05rem; margin: 0 0 .8rem; }
.soft, .caption, .notes, dt { color: var(--soft); }
.caption, .notes { font-size: .85rem; margin: .4rem 0; max-width: 60rem; }
.notes { padding: 0; list-style: none; }
nav { font-size: .9rem; display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: .8rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .9rem; margin: .8rem 0; }
dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .6rem; text-align: left; vertical-align: top; }
td { border-top: 1px solid var(--line); }
thead th { border-bottom: 2px solid var(--text); vertical-align: bottom; }
.number { text-align: right; }
td.number { white-space: nowrap; }
.long { min-width: 9rem; }
sup { line-height: 0; }
tbody tr:nth-child(even) { background: var(--band); }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--link); }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
figure { margin: 1rem 0; overflow-x: auto; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
figcaption { font-size: .85rem; color: var(--soft); }
.pair { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.pair figure { flex: 1 1 22rem; min-width: 0; margin: .4rem 0; }
details { margin: .6rem 0; border: 1px solid var(--line); border-radius: 4px; padding: .4rem .8rem; }
summary { cursor: pointer; font-weight: 600; }
code { font-size: .88em; overflow-wrap: anywhere; }
@media (max-width: 40rem) { figure.wide img { max-width: none; width: 40rem; }
  dl { gap: .1rem .6rem; grid-template-columns: minmax(5rem, max-content) 1fr; }
  tbody tr, thead tr { background: var(--back); }
  th:first-child, td:first-child { position: sticky; left: 0; background: inherit; }
  body { font-size: 15px; } th, td { padding: .28rem .45rem; } }
@media print { :root { color-scheme: light; --text: #000; --soft: #444; --line: #bbb; --back: #fff; --band: #fff; }
  nav { display: none; } body { max-width: none; padding: 0; font-size: 10pt; } table { font-size: 7.5pt; }
  th, td { padding: .12rem .3rem; } .scroll, figure { overflow: visible; } figure, tr { break-inside: avoid; }
  h2, h3, summary, dl { break-after: avoid; } details { border: 0; padding: 0; } }
"""

SCRIPT = """
for (const button of document.querySelectorAll('th button')) button.addEventListener('click', () => {
  const th = button.parentElement, table = th.closest('table'), body = table.tBodies[0], column = th.cellIndex;
  const up = th.getAttribute('aria-sort') !== 'ascending';
  for (const other of th.parentElement.cells) other.removeAttribute('aria-sort');
  th.setAttribute('aria-sort', up ? 'ascending' : 'descending');
  const key = row => row.cells[column].dataset.value;
  const order = (x, y) => {
    const a = key(x), b = key(y);
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
    const both = a !== '' && b !== '' && isFinite(a) && isFinite(b);
    const less = both ? a - b : a.localeCompare(b, undefined, { numeric: true });
    return up ? less : -less;
  };
  body.append(...[...body.rows].sort(order));
});
let opened = [];
addEventListener('beforeprint', () => {
  opened = [...document.querySelectorAll('details:not([open])')];
  for (const one of opened) one.open = true;
});
addEventListener('afterprint', () => { for (const one of opened) one.open = false; });
"""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: Its heading.
        parts: HTML, made by the functions of this module.
    """

    title: str
    parts: tuple[str, ...]


def paragraph(text: str, style: str = "") -> str:
    """Return a paragraph of text; `style` is a class of the page's CSS."""
    return f'<p class="{escape(style)}">{escape(text)}</p>' if style else f"<p>{escape(text)}</p>"


def table(content: Table, heading: bool = True) -> str:
    """Return a sortable table with its caption and notes."""
    numeric = [index > 0 and content.numeric(index) for index in range(len(content.header))]
    head = "".join(
        f'<th scope="col"{_number(right)}><button type="button">{escape(name)}</button></th>'
        for name, right in zip(content.header, numeric, strict=True)
    )
    rows = []
    for row in content.rows:
        cells = []
        for cell, right in zip(row, numeric, strict=True):
            value = "" if cell.value is None else f' data-value="{escape(str(cell.value))}"'
            marks = f"<sup>{escape(','.join(cell.marks))}</sup>" if cell.marks else ""
            style = _number(right) or (' class="long"' if len(cell.text) > 14 else "")
            cells.append(f"<td{style}{value}>{escape(cell.text)}{marks}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    title = f"<h3>{escape(content.title)}</h3>" if heading else ""
    notes = "".join(f"<li><sup>{letter(index)}</sup> {escape(note)}</li>" for index, note in enumerate(content.notes))
    return (
        f'{title}<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        f'<p class="caption">{escape(content.caption)}</p>' + (f'<ul class="notes">{notes}</ul>' if notes else "")
    )


def _number(right: bool) -> str:
    return ' class="number"' if right else ""


def picture(content: bytes, kind: str, alt: str, caption: str = "", wide: bool = False) -> str:
    """Return a picture inside the page.

    Args:
        content: The file's bytes.
        kind: "png" or "svg".
        alt: What it shows, for those who do not see it.
        caption: Shown below.
        wide: Whether a phone scrolls it instead of shrinking it.
    """
    source = f"data:image/{'svg+xml' if kind == 'svg' else 'png'};base64,{base64.b64encode(content).decode()}"
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure{" class=wide" if wide else ""}><img alt="{escape(alt)}" src="{source}">{below}</figure>'


def pair(parts: Iterable[str]) -> str:
    """Set pictures side by side where there is room."""
    return f'<div class="pair">{"".join(parts)}</div>'


def folded(summary: str, parts: Iterable[str]) -> str:
    """Return parts that open on a click, and on paper by themselves."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>"


def facts(entries: Iterable[tuple[str, str]]) -> str:
    """Return a list of terms and what they are."""
    return f"<dl>{''.join(f'<dt>{escape(term)}</dt><dd>{escape(text)}</dd>' for term, text in entries)}</dl>"


def page(title: str, question: str, head: Sequence[str], sections: Sequence[Section]) -> str:
    """Return the whole page.

    Args:
        title: Of the window and the first heading.
        question: Shown below it; may be empty.
        head: HTML between the question and the list of contents.
        sections: In order; those without parts are left out.

    Returns:
        HTML that asks the browser to load nothing from anywhere.
    """
    shown = [section for section in sections if section.parts]
    links = "".join(f'<a href="#part-{i}">{escape(section.title)}</a>' for i, section in enumerate(shown))
    body = "".join(
        f'<section id="part-{i}"><h2>{escape(section.title)}</h2>{"".join(section.parts)}</section>'
        for i, section in enumerate(shown)
    )
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body>"
        f"<header><h1>{escape(title)}</h1>{paragraph(question, 'question') if question else ''}{''.join(head)}"
        f"<nav>{links}</nav></header><main>{body}</main><script>{SCRIPT}</script></body></html>\n"
    )
