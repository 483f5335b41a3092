"""A report's files: the page as HTML and Markdown, tables as CSV and LaTeX, figures as PNG and SVG."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convolt.errors import UserError
from convolt.reports import page
from convolt.reports.table import Table, escape_markdown, to_csv, to_latex
from convolt.system.files import atomic_write

METHODS = (
    "A row is one configuration, run with several seeds. Mean, sample standard deviation s (n - 1) and the 95% "
    "interval of the mean, mean ± t(0.975, n - 1) · s / √n, are taken over its finished runs; one run has no interval.",
    "Differences from the baseline are paired by seed: the interval and the two-sided p-value are those of Student's t "
    "on the differences of runs with the same seed. With fewer than two common seeds Welch's unpaired t test takes its "
    "place, and a note says so. P-values are corrected for the number of rows by Holm's method (1979). Identical "
    "numbers give an interval of zero width and no p-value.",
    "With few seeds the intervals are wide, and they assume that results are roughly normal over seeds. They say how "
    "much the mean may differ over other seeds, not over other splits of the data.",
)


@dataclass(frozen=True)
class Report:
    """What is written, and what the terminal shows.

    Attributes:
        files: Content by path, relative to the report's folder.
        shown: Tables for the terminal.
        summary: The results in a few sentences, for the terminal above the tables.
    """

    files: Mapping[str, bytes]
    shown: Sequence[Table]
    summary: Sequence[str] = ()


def slug(text: str) -> str:
    """Return a text as part of a file name."""
    return re.sub(r"[^\w.=,+-]+", "-", text)[:48].strip("-.") or "row"


def link_figure(name: str, caption: str) -> str:
    """Return a link to a figure of the report."""
    return f"![{escape_markdown(caption)}](figures/{name}.png)"


def assemble(
    *,
    title: str,
    question: str = "",
    facts: Sequence[tuple[str, str]],
    parts: Sequence[str],
    sections: Mapping[str, Sequence[str]],
    tables: Sequence[Table],
    figures: Mapping[str, Mapping[str, bytes]],
    shown: Sequence[Table],
    methods: Sequence[str] = METHODS,
    summary: Sequence[str] = (),
) -> Report:
    """Make a report's files of its parts; the methods are added here.

    Args:
        title: Of the page.
        question: Below it.
        facts: What a reader must know, as (term, text).
        parts: The Markdown page, part by part.
        sections: The HTML page, parts by heading.
        tables: Written as CSV and LaTeX.
        figures: Files by format, by name.
        shown: Tables for the terminal.
        methods: Paragraphs at the page's end.
        summary: The results in a few sentences, on top.
    """
    files = {f"figures/{name}.{form}": data for name, forms in figures.items() for form, data in forms.items()}
    for table in tables:
        files[f"tables/{table.name}.csv"] = to_csv(table).encode()
        files[f"tables/{table.name}.tex"] = to_latex(table).encode()
    lines = [f"# {escape_markdown(title)}", escape_markdown(question)]
    lines.append("\n>\n".join(f"> {escape_markdown(text)}" for text in summary))
    lines.append("\n".join(f"- {escape_markdown(term)}: {escape_markdown(text)}" for term, text in facts))
    lines += [*parts, "### Methods", *map(escape_markdown, methods)]
    files["report.md"] = ("\n\n".join(line.strip() for line in lines if line.strip()) + "\n").encode()
    ending = {"Methods": [page.paragraph(text) for text in methods]}
    files["report.html"] = page.build(title, question, facts, {**sections, **ending}, summary).encode()
    return Report(files, shown, summary)


def write_report(report: Report, folder: Path) -> None:
    """Write a report's files, each whole or not at all, the page last.

    Args:
        report: The report.
        folder: Made where absent; other files in it stay.

    Raises:
        UserError: The folder cannot be written.
    """
    try:
        for name, content in report.files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(target) as beside:
                beside.write_bytes(content)
    except OSError as error:
        raise UserError(
            f"cannot write the report to '{folder}': {error.strerror}; --out DIR puts it elsewhere"
        ) from None
