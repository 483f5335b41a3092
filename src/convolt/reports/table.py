"""A table and its four forms: rich for the terminal, Markdown, CSV and LaTeX.

It holds its cells as shown and, beside them, a data frame with every number unrounded, which becomes the CSV.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from textwrap import wrap

import pandas as pd
from rich import box
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from convolt.reports.statistics import NONE


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: As shown.
        value: What a reader sorts by; None sorts last.
        marks: Letters of the table's notes.
    """

    text: str
    value: float | str | None = None
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: The stem of its files.
        title: A few words.
        caption: What the numbers are and how they came about.
        header: One word or two a column.
        rows: Cells; the first column names the row, the others are aligned right where they hold numbers.
        notes: What the marks "a", "b", ... mean, in this order.
        data: The unrounded numbers.
    """

    name: str
    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    data: pd.DataFrame = field(default_factory=pd.DataFrame)

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers."""
        return all(not isinstance(row[column].value, str) for row in self.rows)


class Notes:
    """Gives each remark of a table one letter."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        """Return the letter of a remark."""
        if text not in self.texts:
            self.texts.append(text)
        return letter(self.texts.index(text))


def letter(index: int) -> str:
    """Return "a" to "z", then "aa", "ab", ..."""
    return (letter(index // 26 - 1) if index > 25 else "") + chr(ord("a") + index % 26)


# Forms


def _marked(cell: Cell, before: str, after: str, escape: Callable[[str], str]) -> str:
    return escape(cell.text) + (f"{before}{','.join(cell.marks)}{after}" if cell.marks else "")


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
    for index, name in enumerate(table.header):
        longest = max((len(_marked(row[index], " (", ")", str)) for row in table.rows), default=0)
        if index and table.numeric(index):
            shown.add_column(
                Text("\n".join(wrap(name, max(longest, 5), break_long_words=False))), justify="right", no_wrap=True
            )
        else:
            shown.add_column(Text(name), min_width=min(longest, 18) if index == 0 else None, overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(_marked(cell, " (", ")", str)) for cell in row))
    notes = [Text(f"({letter(index)}) {note}", style="dim") for index, note in enumerate(table.notes)]
    return Group(shown, Text(table.caption, style="dim"), *notes, Text(""))


def markdown(text: str) -> str:
    """Escape text for a Markdown table or paragraph."""
    escaped = re.sub(r"([\\|*`\[\]])", r"\\\1", text)
    return " ".join(escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split())


def to_markdown(table: Table) -> str:
    """Return a table as Markdown, with its title, caption and notes."""
    rule = ["---:" if index and table.numeric(index) else ":---" for index in range(len(table.header))]
    lines = [[markdown(name) for name in table.header], rule]
    lines += [[_marked(cell, "<sup>", "</sup>", markdown) for cell in row] for row in table.rows]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = "".join(f"\n<sup>{letter(i)}</sup> {markdown(note)}<br>" for i, note in enumerate(table.notes))
    return f"### {markdown(table.title)}\n\n{body}\n\n{markdown(table.caption)}\n{notes}".rstrip() + "\n"


_LATEX = {
    **{character: "\\" + character for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{
        "<": "$<$",
        ">": "$>$",
        "|": "$|$",
        "±": r"$\pm$",
        "\N{MULTIPLICATION SIGN}": r"$\times$",
        NONE: "--",
        "…": r"\ldots{}",
        "√": r"$\surd$",
    },
    **{"\N{MINUS SIGN}": "$-$", "·": r"$\cdot$", '"': "''"},
}


def latex(text: str) -> str:
    """Escape text for LaTeX; a minus sign before a number becomes one."""
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return re.sub(r"(?<![\w.)}-])-(?=[\d.])", "$-$", escaped)


def to_latex(table: Table) -> str:
    """Return a table as a LaTeX float that needs the package booktabs."""
    columns = "".join("r" if index and table.numeric(index) else "l" for index in range(len(table.header)))
    head = " & ".join(latex(name) for name in table.header)
    body = [" & ".join(_marked(cell, r"\textsuperscript{", "}", latex) for cell in row) for row in table.rows]
    notes = [rf"\textsuperscript{{{letter(i)}}} {latex(note)}" for i, note in enumerate(table.notes)]
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{latex(table.title)}. {latex(table.caption)}}}",
            rf"\label{{tab:{re.sub('[^a-z0-9]+', '-', table.name.lower())}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            rf"{head} \\",
            r"\midrule",
            *(rf"{line} \\" for line in body),
            r"\bottomrule",
            r"\end{tabular}",
            *([r"\par\smallskip\raggedright " + r" \\ ".join(notes)] if notes else []),
            r"\end{table}",
            "",
        ]
    )


def to_csv(table: Table) -> str:
    """Return the unrounded numbers as CSV; fractions stay fractions, empty fields are unknown."""
    return str(table.data.convert_dtypes().to_csv(index=False, lineterminator="\n"))
