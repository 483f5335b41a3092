"""The command line of `report.py`: reads folders of runs, shows their tables, writes the report's files."""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from rich import box
from rich.console import Console
from rich.status import Status
from rich.table import Table as RichTable
from rich.text import Text

from convolt.errors import UserError, did_you_mean
from convolt.figures import fonts
from convolt.reports import figures, page, tables
from convolt.reports.collect import open_folder, read_group
from convolt.reports.find import is_run
from convolt.reports.records import StudyRecord
from convolt.reports.remarks import remarks
from convolt.reports.statistics import Metric, RowStatistics, analyze
from convolt.reports.table import Table, markdown, to_csv, to_latex, to_markdown, to_rich
from convolt.runs.config_hash import NOT_HASHED
from convolt.system.arguments import run_command, typed_path
from convolt.system.files import atomic_write

USAGE = """\
Tables, figures and one page from finished runs. Reads files only: runs may still be going on.

  python report.py outputs                                   list what there is
  python report.py outputs/studies/optimizers                report on a study, a sweep or a single run
  python report.py outputs/studies/*                         on several, each by itself
  python report.py outputs/runs/*/*                          single runs given together become one table
  python report.py STUDY --metric test/loss                  another metric of result.json
  python report.py STUDY --baseline adam                     compare rows with another baseline
  python report.py --compare outputs/studies/A outputs/studies/B
                                                             two studies or sweeps, row by row, paired by seed
"""

METHODS = (
    "A row is one configuration, run with several seeds. Mean, sample standard deviation s (n - 1) and the 95% "
    "interval of the mean, mean ± t(0.975, n - 1) · s / √n, are taken over its finished runs; one run has no interval.",
    "Differences from the baseline are paired by seed: the interval and the two-sided p-value are those of Student's t "
    "on the differences of runs with the same seed. With fewer than two common seeds Welch's unpaired t test takes its "
    "place, and a note says so. P-values are corrected for the number of rows by Holm's method (1979). Numbers that do "
    "not spread at all give an interval without width and no p-value.",
    "With few seeds the intervals are wide and lean on the seeds' results being roughly normal. They tell how far the "
    "mean over other seeds may lie, not what another split of the data would give.",
)


@dataclass(frozen=True)
class Report:
    """What is written, and what the terminal shows.

    Attributes:
        files: Content by path, relative to the report's folder.
        shown: Tables for the terminal.
    """

    files: Mapping[str, bytes]
    shown: Sequence[Table]


def _slug(text: str) -> str:
    return re.sub(r"[^\w.=,+-]+", "-", text)[:48].strip("-.") or "row"


def _markdown(title: str, question: str, facts: Sequence[tuple[str, str]], parts: Sequence[str]) -> bytes:
    head = [f"# {markdown(title)}", markdown(question)]
    head.append("\n".join(f"- {markdown(term)}: {markdown(text)}" for term, text in facts))
    return ("\n\n".join(part.strip() for part in (*head, *parts) if part.strip()) + "\n").encode()


def _forms(found: Sequence[Table]) -> dict[str, bytes]:
    """Return the CSV and LaTeX files of tables."""
    files = {}
    for table in found:
        files[f"tables/{table.name}.csv"] = to_csv(table).encode()
        files[f"tables/{table.name}.tex"] = to_latex(table).encode()
    return files


def _facts(study: StudyRecord, metric: Metric) -> list[tuple[str, str]]:
    """Return what a reader must know about a table, as (term, text)."""
    baseline = study.baseline
    if baseline and not any(baseline in (row.name, row.base) for row in study.rows):
        baseline = f"{baseline} (not a row of this table)"
    given = {text.split("=")[0]: text for text in study.fixed}
    entries = [
        ("folder", str(study.path)),
        ("metric", f"{metric.name}, {'lower' if metric.lower_is_better else 'higher'} is better"),
        ("runs", ", ".join(f"{n} {state}" for state, n in study.states.items())),
        ("baseline", baseline or ("none; --baseline ROW sets one" if len(study.rows) > 1 else "")),
        ("settings of all rows", " ".join(text for text in study.base if text.split("=")[0] not in given)),
        ("given on the command line", " ".join(text for key, text in given.items() if key not in NOT_HASHED)),
        *tables.provenance(study),
        *(("data", line) for line in remarks(study)),
        *(("note", note) for note in study.notes),
    ]
    return [(term, text) for term, text in entries if text]


def build(study: StudyRecord, metric: Metric, draw: bool = True) -> Report:
    """Make the report on one table of runs.

    Args:
        study: The table.
        metric: What its rows are judged by.
        draw: Whether to make figures, which take most of the time.

    Returns:
        The report, not yet written.

    Raises:
        UserError: No run has the metric.
    """
    rows = analyze(study, metric)
    done = any(one.summary for one in rows)
    results, costs = tables.results(study, metric, rows), tables.costs(metric, rows)
    optional = {
        "published": tables.published(study),
        "unfinished": tables.unfinished([study], metric),
        "ranking": tables.ranking(metric, rows) if done and len(rows) > 1 else None,
        "metrics": tables.metrics(study),
    }
    extra = {name: table for name, table in optional.items() if table}
    drawn = _draw(study, metric, rows) if draw else {}
    details = [table for row in study.rows if (table := tables.per_class(row))]
    found = [results, costs, *extra.values(), tables.runs(study, metric)]
    files = _forms(found)
    if details:
        files["tables/per_class.csv"] = to_csv(_joined(details)).encode()
    for name, content in drawn.items():
        files |= {f"figures/{name}.{form}": data for form, data in content.items()}
    facts = _facts(study, metric)
    shown = [
        results,
        *([costs] if done else []),
        *(extra[n] for n in ("ranking", "published", "unfinished") if n in extra),
    ]
    # The table of failures stands beside the results: what is missing belongs to what is said.
    order = [results, *(extra[n] for n in ("unfinished", "published", "ranking") if n in extra), costs]
    order += [extra["metrics"]] if "metrics" in extra else []
    main = [name for name in drawn if not name.startswith("confusion")]
    files["report.md"] = _markdown(
        study.title,
        study.question,
        facts,
        [
            *(to_markdown(table) for table in order),
            *(f"![{markdown(FIGURES[name])}](figures/{name}.png)" for name in main),
            *(to_markdown(table) for table in details if "published" in table.header),
            "### Methods",
            *(markdown(text) for text in METHODS),
        ],
    )
    sections = [
        page.Section(
            "Results",
            (
                page.table(results, heading=False),
                *_pictures(drawn, "comparison"),
                *(page.table(extra[name]) for name in ("unfinished", "published") if name in extra),
            ),
        ),
        page.Section("Ranking", (page.table(extra["ranking"], heading=False),) if "ranking" in extra else ()),
        page.Section("Learning curves", _pictures(drawn, "curves")),
        page.Section("Cost", (page.table(costs), *_pictures(drawn, "parameters", "time"))),
        page.Section("Classes", _pictures(drawn, "per_class")),
        page.Section("Rows", tuple(_row_details(study, index, drawn) for index in range(len(study.rows)))),
        page.Section(
            "All numbers",
            (
                *([page.table(extra["metrics"])] if "metrics" in extra else []),
                page.folded("All runs", [page.table(found[-1], heading=False)]),
            ),
        ),
        page.Section("Methods", tuple(page.paragraph(text) for text in METHODS)),
    ]
    files["report.html"] = page.page(study.title, study.question, [page.facts(facts)], sections).encode()
    return Report(files, shown)


FIGURES = {
    "comparison": "Mean and 95% interval of each row, its single seeds, and published values",
    "curves": "Learning curves of each row",
    "per_class": "Each class, row by row",
    "parameters": "Against the number of parameters",
    "time": "Against training time",
}


def _draw(study: StudyRecord, metric: Metric, rows: Sequence[RowStatistics]) -> dict[str, dict[str, bytes]]:
    """Return the figures that have content, by name."""
    kind = tables.class_metric(study.rows)
    drawn = {
        "comparison": figures.comparison([("", rows)], metric, study.title),
        "curves": figures.curves(study),
        "per_class": figures.per_class(study, kind) if kind else {},
        "parameters": figures.against(study, metric, rows, "parameters"),
        "time": figures.against(study, metric, rows, "seconds"),
    }
    for index, row in enumerate(study.rows):
        drawn[_confusion_name(study, index)] = figures.confusion(study, row)
    return {name: content for name, content in drawn.items() if content}


def _confusion_name(study: StudyRecord, index: int) -> str:
    return f"confusion_{index + 1:02}_{_slug(study.rows[index].name)}"


def _pictures(drawn: Mapping[str, Mapping[str, bytes]], *names: str) -> tuple[str, ...]:
    return tuple(
        page.picture(drawn[name]["svg"], "svg", FIGURES[name], FIGURES[name], wide=True)
        for name in names
        if name in drawn
    )


def _row_details(study: StudyRecord, index: int, drawn: Mapping[str, Mapping[str, bytes]]) -> str:
    """Return the part of the page about one row: settings, confusion matrix, mistakes, classes."""
    row, pictures = study.rows[index], []
    confusion = drawn.get(_confusion_name(study, index))
    if confusion:
        pictures.append(page.picture(confusion["png"], "png", f"Confusion matrix of {row.name}"))
    mistakes = figures.mistakes(row)
    if mistakes:
        of = f"{'Worst' if mistakes.stem == 'worst' else 'Wrong'} predictions of {mistakes.parent.parent.name}"
        pictures.append(page.picture(mistakes.read_bytes(), "png", f"{of}, {row.name}", of))
    classes = tables.per_class(row)
    entries = [("settings", " ".join(row.overrides)), ("note", row.note)]
    entries += [("published by", str(row.published.get("source") or ""))]
    values = ", ".join(f"{run.path.name}: {run.state}" for run in row.runs)
    parts = [
        page.facts((term, text) for term, text in (*entries, ("runs", values)) if text),
        page.pair(pictures) if pictures else "",
        page.table(classes) if classes else "",
    ]
    return page.folded(row.name, parts)


def _joined(found: Sequence[Table]) -> Table:
    """Join the data of several tables into one."""
    import pandas as pd

    return replace(found[0], data=pd.concat([table.data for table in found], ignore_index=True))


def build_comparison(first: StudyRecord, second: StudyRecord, metric: Metric, draw: bool = True) -> Report:
    """Make the report on two tables, rows of the same name set against each other.

    Args:
        first: A.
        second: B; differences are B less A.
        metric: What is compared.
        draw: Whether to make the figure.

    Returns:
        The report, not yet written.

    Raises:
        UserError: No row of the two has the same name, or no run has the metric.
    """
    found = [analyze(first, metric), analyze(second, metric)]
    table = tables.comparison(first, second, metric)
    if not table.rows:
        names = [", ".join(repr(row.name) for row in study.rows[:4]) for study in (first, second)]
        raise UserError(f"no row of '{first.path}' ({names[0]}) has the name of one of '{second.path}' ({names[1]})")
    missing = tables.unfinished([first, second], metric)
    drawn = (
        figures.comparison([(f"A: {first.name}", found[0]), (f"B: {second.name}", found[1])], metric, "A and B")
        if draw
        else {}
    )
    shown = [table, *([missing] if missing else [])]
    facts = [("A", str(first.path)), ("B", str(second.path)), ("metric", metric.name)]
    for label, study in (("A", first), ("B", second)):
        facts += [(f"{name} of {label}", text) for name, text in tables.provenance(study)]
    alt = "Means and 95% intervals of A and B, row by row"
    picture = page.picture(drawn["svg"], "svg", alt, alt, wide=True) if drawn else ""
    sections = [
        page.Section(
            "Comparison", (page.table(table, heading=False), picture, *(page.table(one) for one in shown[1:]))
        ),
        page.Section("Methods", tuple(page.paragraph(text) for text in METHODS)),
    ]
    title = f"{first.title} / {second.title}" if first.title != second.title else f"{first.name} / {second.name}"
    files = _forms(shown) | {f"figures/comparison.{form}": content for form, content in drawn.items()}
    parts = [*map(to_markdown, shown), *([f"![{alt}](figures/comparison.png)"] if drawn else [])]
    methods = ["### Methods", *(markdown(text) for text in METHODS)]
    files["report.md"] = _markdown(title, "", facts, [*parts, *methods])
    files["report.html"] = page.page(title, "", [page.facts(facts)], sections).encode()
    return Report(files, shown)


def write(report: Report, folder: Path) -> None:
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


def listing(folder: Path, found: Sequence[StudyRecord]) -> RichTable:
    """Return a table of what a folder holds, with the command that reports on each."""
    shown = RichTable(
        title=f"Runs in {folder}", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for name in ("what", "rows", "runs", "title and command"):
        shown.add_column(name, overflow="fold")
    for study in found:
        kind = "run" if study.kind == "runs" else study.kind
        states = "\n".join(f"{n} {state}" for state, n in study.states.items())
        command = f"python report.py {shlex.quote(str(study.path))}"
        text = Text.assemble((study.title, "bold" if kind == "study" else ""), "\n", command)
        shown.add_row(kind, str(len(study.rows)), states, text)
    return shown


class _Parser(argparse.ArgumentParser):
    """Argument errors as one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; `python report.py` shows the usage")


def _parser() -> _Parser:
    parser = _Parser(
        prog="python report.py",
        description=USAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "folders", nargs="*", type=typed_path, metavar="FOLDER", help="studies, sweeps, runs, or folders of them"
    )
    parser.add_argument("--metric", metavar="NAME", help="default: what the runs name, such as test/accuracy")
    parser.add_argument("--baseline", metavar="ROW", help="the row that the others are compared with")
    parser.add_argument("--compare", nargs=2, type=typed_path, metavar=("A", "B"), help="two studies or sweeps")
    parser.add_argument("--out", type=typed_path, metavar="DIR", help="where to write; default: FOLDER/report")
    parser.add_argument("--no-figures", action="store_true", help="tables only, in about a second")
    return parser


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        options = [name for action in parser._actions for name in action.option_strings]
        raise UserError(
            f"unknown option '{unknown[0]}'{did_you_mean(unknown[0], options)}; `python report.py` shows the usage"
        )
    return arguments


def _one(path: Path) -> StudyRecord:
    """Read a folder that has to be one table."""
    found = open_folder(path)
    if len(found) > 1 or found[0].path != path:
        raise UserError(f"'{path}' holds several studies or runs; --compare takes two single ones")
    return found[0]


def _with_baseline(study: StudyRecord, baseline: str | None) -> StudyRecord:
    if baseline is None:
        return study
    names = list(dict.fromkeys(name for row in study.rows for name in (row.name, row.base)))
    if baseline not in names:
        raise UserError(
            f"no row '{baseline}' in '{study.path}'{did_you_mean(baseline, names)}; rows: {', '.join(names)}"
        )
    return replace(study, baseline=baseline)


def _collect(folders: Sequence[Path]) -> tuple[list[StudyRecord], list[tuple[Path, list[StudyRecord]]]]:
    """Sort the given folders into tables to report on and folders to list."""
    studies, lists = [], []
    single = [folder for folder in folders if is_run(folder) and not (folder / "study.json").is_file()]
    if len(single) > 1:
        absolute = [Path(os.path.abspath(folder)) for folder in single]  # noqa: PTH100 (no links are followed)
        common = Path(os.path.relpath(os.path.commonpath(absolute)))
        studies.append(read_group(common, [Path(os.path.relpath(folder)) for folder in absolute], "runs"))
    for folder in folders:
        if len(single) > 1 and folder in single:
            continue
        try:
            found = open_folder(folder)
        except UserError as error:
            if len(folders) == 1 or not folder.is_dir():
                raise
            print(f"left out: {error}", file=sys.stderr)  # `outputs/runs/*/*` meets empty folders too
            continue
        if len(found) == 1 and found[0].path == folder:
            studies.append(found[0])
        else:
            lists.append((folder, found))
    if folders and not studies and not lists:
        raise UserError("none of these folders holds a run that can be read")
    return studies, lists


def report(arguments: argparse.Namespace, console: Console) -> None:
    """Do what the command line asks.

    Raises:
        UserError: Something about it, or about the folders, is wrong.
    """
    draw = not arguments.no_figures
    waiting = Console(stderr=True)
    made: list[tuple[str, Report, Path]] = []
    studies, lists = _collect(arguments.folders)
    for folder, found in lists:
        console.print(listing(folder, found))
    with Status("reading", console=waiting) as status:
        names: dict[str, int] = {}
        for one in studies:
            study = _with_baseline(one, arguments.baseline)
            status.update(f"report on {Text(study.name).plain}")
            out = arguments.out or study.path / "report"
            if arguments.out and len(studies) > 1:
                names[study.name] = names.get(study.name, 0) + 1
                out /= _slug(study.name) + (f"-{names[study.name]}" if names[study.name] > 1 else "")
            made.append((study.title, build(study, Metric(arguments.metric or study.headline), draw), out))
        if arguments.compare:
            first, second = (_one(path) for path in arguments.compare)
            out = arguments.out or second.path / "report" / f"against-{_slug(first.name)}"
            if arguments.out and studies:
                out /= "comparison"
            metric = Metric(arguments.metric or second.headline)
            made.append((f"{first.title} / {second.title}", build_comparison(first, second, metric, draw), out))
        for _, content, out in made:
            write(content, out)
    for title, content, out in made:
        console.rule(Text(title), align="left")
        for table in content.shown:
            console.print(to_rich(table))
        for name in ("report.html", "report.md"):
            console.print(Text(str(out / name)), soft_wrap=True)
    lacking = fonts.missing_characters_note()
    if lacking:
        print(f"note: {lacking}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments; those of the process by default.

    Returns:
        The exit status: 0, or 2 for a user's mistake.
    """
    return run_command(_work, argv)


def _work(argv: Sequence[str]) -> int:
    width: dict[str, Any] = {} if sys.stdout.isatty() or "COLUMNS" in os.environ else {"width": 100}
    arguments = _arguments(argv)
    if arguments.folders or arguments.compare:
        report(arguments, Console(highlight=False, markup=False, **width))
    else:
        _parser().print_help()
    return 0
