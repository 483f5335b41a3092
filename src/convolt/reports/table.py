"""A table: records of unrounded numbers, columns that show them, and its four forms.

The terminal's, Markdown's, LaTeX's and the page's cells follow from the columns, the CSV from the records.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from textwrap import wrap
from typing import Any, NamedTuple

import pandas as pd
from rich import box
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from convolt.reports.formats import NONE
from convolt.reports.records import finite

Record = Mapping[str, Any]
"""One row's unrounded values by key; those whose key begins with "_" are shown, but not written to the CSV."""


class Cell(NamedTuple):
    """One cell as shown, what its column sorts it by (None is last), and the letters of its footnotes."""

    text: str
    value: float | str | None
    marks: Sequence[str] = ()

    def with_marks(self, before: str, after: str, escape: Callable[[str], str] = str) -> str:
        """Return the escaped text, and the letters between `before` and `after`."""
        return escape(self.text) + (f"{before}{','.join(self.marks)}{after}" if self.marks else "")


@dataclass(frozen=True)
class Column:
    """What a column shows of each record.

    Attributes:
        label: Its header.
        key: The value of a record that it shows and sorts by.
        format: Makes the text from the values of `key` and `more_keys`; a dash is shown where all of these are None.
        more_keys: Further keys that the text depends on.
        is_text: Text is aligned left. Other columns hold numbers: what is not a finite one counts as None.
    """

    label: str
    key: str
    format: Callable[..., str] = str
    more_keys: tuple[str, ...] = ()
    is_text: bool = False

    def cell(self, record: Record, marks: Sequence[str] = ()) -> Cell:
        """Return the cell of one record."""
        value = record.get(self.key)
        if not self.is_text and finite(value) is None:
            value = None
        values = (value, *(record.get(key) for key in self.more_keys))
        text = NONE if all(each is None for each in values) else self.format(*values)
        return Cell(text, str(value) if self.is_text and value is not None else value, marks)


ROW = Column("row", "row", is_text=True)


class Note(NamedTuple):
    """A remark on one cell: of the record whose "row" is `row`, in the column of a key."""

    row: str
    key: str
    text: str


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: The stem of its files.
        title: A few words.
        caption: What the numbers are and how they came about.
        columns: What is shown.
        records: One for each row.
        notes: Remarks on cells; each distinct text becomes one footnote, lettered in this order.
    """

    name: str
    title: str
    caption: str
    columns: Sequence[Column]
    records: Sequence[Record]
    notes: Sequence[Note] = ()

    @cached_property
    def footnotes(self) -> dict[str, str]:
        """Texts of the footnotes by letter."""
        return {footnote_letter(i): text for i, text in enumerate(dict.fromkeys(note.text for note in self.notes))}

    @cached_property
    def rows(self) -> list[list[Cell]]:
        """The cells."""
        letters, marks = {text: mark for mark, text in self.footnotes.items()}, defaultdict(list)
        for note in self.notes:
            marks[note.row, note.key].append(letters[note.text])
        return [
            [column.cell(record, marks[str(record.get("row")), column.key]) for column in self.columns]
            for record in self.records
        ]


def footnote_letter(index: int) -> str:
    """Return "a" to "z", then "aa", "ab", ..."""
    return (footnote_letter(index // 26 - 1) if index > 25 else "") + chr(ord("a") + index % 26)


def to_rich(table: Table) -> Group:
    """Return a table for the terminal."""
    shown = RichTable(
        title=table.title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    lines = [[cell.with_marks(" (", ")") for cell in row] for row in table.rows]
    for index, column in enumerate(table.columns):
        longest = max((len(line[index]) for line in lines), default=0)
        if column.is_text:
            shown.add_column(Text(column.label), min_width=min(longest, 18) if index == 0 else None, overflow="fold")
        else:
            label = "\n".join(wrap(column.label, max(longest, 5), break_long_words=False))
            shown.add_column(Text(label), justify="right", no_wrap=True)
    for line in lines:
        shown.add_row(*map(Text, line))
    notes = [Text(f"({mark}) {text}", style="dim") for mark, text in table.footnotes.items()]
    return Group(shown, Text(table.caption, style="dim"), *notes, Text(""))


def escape_markdown(text: str) -> str:
    """Escape text for a Markdown table or paragraph."""
    escaped = re.sub(r"([\\|*`\[\]])", r"\\\1", text)
    return " ".join(escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split())


def to_markdown(table: Table) -> str:
    """Return a table as Markdown, with its title, caption and notes."""
    lines = [[escape_markdown(column.label) for column in table.columns]]
    lines += [[":---" if column.is_text else "---:" for column in table.columns]]
    lines += [[cell.with_marks("<sup>", "</sup>", escape_markdown) for cell in row] for row in table.rows]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = "".join(f"\n<sup>{mark}</sup> {escape_markdown(text)}<br>" for mark, text in table.footnotes.items())
    return f"### {escape_markdown(table.title)}\n\n{body}\n\n{escape_markdown(table.caption)}\n{notes}".rstrip() + "\n"


_LATEX = str.maketrans(
    {character: "\\" + character for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "…": r"\ldots{}"}
    | {"<": "$<$", ">": "$>$", "|": "$|$", "±": r"$\pm$", "√": r"$\surd$", "·": r"$\cdot$", NONE: "--", '"': "''"}
    | {"\N{MINUS SIGN}": "$-$", "\N{MULTIPLICATION SIGN}": r"$\times$"}
)


def escape_latex(text: str) -> str:
    """Escape text for LaTeX; a hyphen before a number becomes a minus sign."""
    return re.sub(r"(?<![\w.)}-])-(?=[\d.])", "$-$", text.translate(_LATEX))


def to_latex(table: Table) -> str:
    """Return a table as a LaTeX float that needs the package booktabs."""
    body = [" & ".join(cell.with_marks(r"\textsuperscript{", "}", escape_latex) for cell in row) for row in table.rows]
    notes = [rf"\textsuperscript{{{mark}}} {escape_latex(text)}" for mark, text in table.footnotes.items()]
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{escape_latex(table.title)}. {escape_latex(table.caption)}}}",
            rf"\label{{tab:{re.sub('[^a-z0-9]+', '-', table.name.lower())}}}",
            rf"\begin{{tabular}}{{{''.join('l' if column.is_text else 'r' for column in table.columns)}}}",
            r"\toprule",
            rf"{' & '.join(escape_latex(column.label) for column in table.columns)} \\",
            r"\midrule",
            *(rf"{line} \\" for line in body),
            r"\bottomrule",
            r"\end{tabular}",
            *([r"\par\smallskip\raggedright " + r" \\ ".join(notes)] if notes else []),
            r"\end{table}",
            "",
        ]
    )


def read_attributes(source: object | None, names: Mapping[str, str]) -> Record:
    """Return the named attributes by key; None for each where there is no source."""
    return {key: getattr(source, name, None) for key, name in names.items()}


def to_frame(table: Table) -> pd.DataFrame:
    """Return the unrounded numbers, a row each; fractions stay fractions, what is unknown is missing."""
    saved = [{key: value for key, value in record.items() if not key.startswith("_")} for record in table.records]
    return pd.DataFrame(saved).convert_dtypes()


def to_csv(table: Table) -> str:
    """Return the unrounded numbers as CSV; fractions stay fractions, empty fields are unknown."""
    return str(to_frame(table).to_csv(index=False, lineterminator="\n"))
