"""The command line of `report.py`: reads folders of runs, shows their tables, writes the report's files."""

import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rich import box
from rich.console import Console
from rich.status import Status
from rich.table import Table as RichTable
from rich.text import Text

from convolt.errors import UserError, did_you_mean
from convolt.figures import fonts
from convolt.reports.bundle import describe_bundle, join_bundles, list_runs, open_bundle, pack_study
from convolt.reports.collect import open_folder, read_group
from convolt.reports.compare import build_comparison_report
from convolt.reports.document import Report, slug, write_report
from convolt.reports.find import is_study
from convolt.reports.formats import Metric
from convolt.reports.records import StudyRecord
from convolt.reports.study_report import build_report
from convolt.reports.table import to_rich
from convolt.runs.bundle import is_bundle, read_bundle, write_bundle
from convolt.runs.files import RunFiles
from convolt.system.arguments import Parser, run_command, typed_path
from convolt.system.installation import command_name
from convolt.system.terminal import table_width

USAGE = """\
Tables, figures and one page from finished runs. Reads files only: runs may still be in progress.

  python report.py outputs                                   list what there is
  python report.py outputs/studies/optimizers                report on a study, a sweep or a single run
  python report.py outputs/studies/*                         on several, each by itself
  python report.py outputs/runs/*/*                          single runs given together become one table
  python report.py RUN_A RUN_B                               B beside A, image by image
  python report.py STUDY --metric test/loss                  another metric of result.json
  python report.py STUDY --baseline adam                     compare rows with another baseline
  python report.py STUDY --target 0.9                        epochs and time until validation reaches it
  python report.py STUDY --bundle study.zip                  all results without weights, as one file
  python report.py study.zip                                 report on it, beside it; other options as for a folder
  python report.py a.zip b.zip --bundle whole.zip            join parts of one study
  python report.py --compare outputs/studies/A outputs/studies/B
                                                             two studies, sweeps or runs, row by row, paired by
                                                             seed and image
"""


def build_folder_listing(folder: Path, found: Sequence[StudyRecord]) -> RichTable:
    """Return a table of what a folder holds, with the command that reports on each."""
    shown = RichTable(
        title=f"Runs in {folder}", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for name in ("what", "rows", "runs", "title and command"):
        shown.add_column(name, overflow="fold")
    for study in found:
        kind = "run" if study.kind == "runs" else study.kind
        rows = len(study.tuning.rows) if study.kind == "search" and study.tuning else len(study.rows)
        states = "\n".join(f"{n} {state}" for state, n in study.states.items())
        line = f"{command_name('report')} {shlex.quote(str(study.shown_path))}"
        text = Text.assemble((study.title, "bold" if kind == "study" else ""), "\n", line)
        shown.add_row(kind, str(rows), states, text)
    return shown


def _make_parser() -> Parser:
    parser = Parser("report", USAGE, takes_run=False)
    parser.add_argument(
        "folders", nargs="*", type=typed_path, metavar="FOLDER", help="studies, sweeps, runs, folders of them, bundles"
    )
    parser.add_argument("--metric", metavar="NAME", help="default: what the runs name, such as test/accuracy")
    parser.add_argument("--baseline", metavar="ROW", help="the row that the others are compared with")
    parser.add_argument(
        "--target",
        type=float,
        metavar="VALUE",
        help="of the validation metric; default: the baseline's median at the end",
    )
    parser.add_argument("--compare", nargs=2, type=typed_path, metavar=("A", "B"), help="two studies or sweeps")
    parser.add_argument(
        "--bundle", type=typed_path, metavar="FILE", help="write the results as one file, and no report"
    )
    parser.add_argument(
        "--out", type=typed_path, metavar="DIR", help="where to write; default: FOLDER/report, FILE-report"
    )
    parser.add_argument("--no-figures", action="store_true", help="tables only, in about a second")
    return parser


def _read_single(path: Path, unpacked: Path) -> StudyRecord:
    """Read a folder or a bundle that has to be one table."""
    found = [open_bundle(path, unpacked)] if is_bundle(path) else open_folder(path)
    if len(found) > 1 or found[0].shown_path != path:
        raise UserError(f"'{path}' holds several studies or runs; --compare takes two single ones")
    study = found[0]
    if study.settling:
        raise UserError(
            f"'{path}': results decided how many seeds a settled study ran, so no interval of --compare holds; "
            "make both settings rows of one study"
        )
    if study.kind == "search":
        raise UserError(f"'{path}' is a search, whose trials are not tested; --compare takes studies, sweeps or runs")
    return study


def set_baseline(study: StudyRecord, baseline: str | None) -> StudyRecord:
    """Return a table with another baseline; None: with its own.

    Raises:
        UserError: When there is no such row, or the study is settled against another one.
    """
    if baseline is None:
        return study
    if study.settling and baseline != study.baseline:
        raise UserError(
            f"'{study.shown_path}': the looks of a settled study are planned for differences from '{study.baseline}'; "
            "leave out --baseline"
        )
    names = list(dict.fromkeys(name for row in study.rows for name in (row.name, row.base)))
    if baseline not in names:
        raise UserError(
            f"no row '{baseline}' in '{study.shown_path}'{did_you_mean(baseline, names)}; rows: {', '.join(names)}"
        )
    return replace(study, baseline=baseline)


def _name_first_as_baseline(study: StudyRecord, first: Path) -> StudyRecord:
    """Make the row of the run that was given first the baseline, where there is only one other to compare with it."""
    named = [row.name for row in study.rows if first in [run.path for run in row.runs]]
    return replace(study, baseline=named[0]) if named and len(study.rows) == 2 else study


def _sort_folders(
    folders: Sequence[Path], unpacked: Path
) -> tuple[list[StudyRecord], list[tuple[Path, list[StudyRecord]]]]:
    """Sort the given folders and bundles into tables to report on and folders to list.

    Args:
        folders: As they were typed.
        unpacked: An empty folder for what is in the bundles.
    """
    studies, lists = [], []
    single = [folder for folder in folders if RunFiles(folder).is_run() and not is_study(folder)]
    if len(single) > 1:
        absolute = [Path(os.path.abspath(folder)) for folder in single]  # noqa: PTH100 (no links are followed)
        common = Path(os.path.relpath(os.path.commonpath(absolute)))
        given = [Path(os.path.relpath(folder)) for folder in absolute]
        group = read_group(common, given, "runs")
        if len(given) == 2 and len(group.runs) == 1:
            raise UserError(
                f"'{given[0]}' and '{given[1]}' have the same settings and seed; "
                f"{command_name('report')} --compare {shlex.join(map(str, given))} sets one beside the other"
            )
        studies.append(_name_first_as_baseline(group, given[0]))
    for folder in folders:
        if len(single) > 1 and folder in single:
            continue
        if is_bundle(folder):
            studies.append(open_bundle(folder, unpacked / str(len(studies))))
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


def _refuse_unused_options(arguments: Namespace) -> None:
    """Refuse options that would change nothing.

    Raises:
        UserError: Names the first.
    """
    reasons = {}
    if arguments.bundle:
        reasons = dict.fromkeys(("compare", "metric", "baseline", "target", "out"), "--bundle keeps all results")
        if not arguments.folders:
            raise UserError("--bundle needs the folder of a study, a sweep or a run")
    elif arguments.compare and not arguments.folders:
        reasons = {"baseline": "--compare sets B beside A", "target": "--compare has no times to a target"}
    for option, reason in reasons.items():
        if getattr(arguments, option) is not None:
            raise UserError(f"{reason}: leave out --{option}")


def _refuse_for_search(study: StudyRecord, arguments: Namespace) -> None:
    """Refuse options that say something of test results, which a search does not have."""
    for option in ("metric", "baseline", "target"):
        if study.kind == "search" and getattr(arguments, option) is not None:
            raise UserError(
                f"'{study.shown_path}' is a search, whose trials have a score and no tests: leave out --{option}"
            )


def _execute(argv: Sequence[str]) -> int:
    """Do what the command line asks."""
    parser = _make_parser()
    arguments = parser.parse(argv)
    _refuse_unused_options(arguments)
    arguments.folders = list(dict.fromkeys(arguments.folders))
    if not arguments.folders and not arguments.compare:
        parser.print_help()
        return 0
    with TemporaryDirectory(prefix="convolt-") as unpacked:
        if arguments.bundle:
            return _write_bundle(arguments, Path(unpacked))
        return _write_reports(arguments, Path(unpacked))


def _write_bundle(arguments: Namespace, unpacked: Path) -> int:
    """Write the results of a table, or of the parts of one, as a bundle."""
    bundles = [(str(path), read_bundle(path)) for path in arguments.folders if is_bundle(path)]
    studies, lists = _sort_folders([path for path in arguments.folders if not is_bundle(path)], unpacked)
    if lists:
        raise UserError(f"'{lists[0][0]}' holds several studies or runs; a bundle is of one study, sweep or run")
    packed = [(str(study.path), pack_study(study)) for study in studies]
    bundle = join_bundles([*bundles, *packed]) if len(bundles) + len(packed) > 1 else [*bundles, *packed][0][1]
    write_bundle(bundle, arguments.bundle)
    folders = [run.path for study in studies for run in list_runs(study) if run.state == "finished"]
    for line in describe_bundle(bundle, arguments.bundle, folders):
        print(line)
    return 0


def default_report_folder(study: StudyRecord) -> Path:
    """Return where a report is written: in the folder, or beside the bundle."""
    return study.source.with_name(f"{study.source.stem}-report") if study.source else study.path / "report"


def _write_reports(arguments: Namespace, unpacked: Path) -> int:
    """Write the report on each table, and the comparison of two."""
    console = Console(highlight=False, markup=False, width=table_width())
    draw = not arguments.no_figures
    made: list[tuple[str, Report, Path]] = []
    studies, lists = _sort_folders(arguments.folders, unpacked)
    for folder, found in lists:
        console.print(build_folder_listing(folder, found))
    with Status("reading", console=Console(stderr=True)) as status:
        names: dict[str, int] = {}
        for one in studies:
            _refuse_for_search(one, arguments)
            study = set_baseline(one, arguments.baseline)
            status.update(f"report on {Text(study.name).plain}")
            out = arguments.out or default_report_folder(study)
            if arguments.out and len(studies) > 1:
                names[study.name] = names.get(study.name, 0) + 1
                out /= slug(study.name) + (f"-{names[study.name]}" if names[study.name] > 1 else "")
            metric = Metric(arguments.metric or study.headline)
            made.append((study.title, build_report(study, metric, draw, arguments.target), out))
        if arguments.compare:
            first, second = (
                _read_single(path, unpacked / name) for name, path in zip("ab", arguments.compare, strict=True)
            )
            out = arguments.out or default_report_folder(second) / f"against-{slug(first.name)}"
            if arguments.out and studies:
                out /= "comparison"
            metric = Metric(arguments.metric or second.headline)
            made.append((f"{first.title} / {second.title}", build_comparison_report(first, second, metric, draw), out))
        for _, content, out in made:
            write_report(content, out)
    for title, content, out in made:
        console.rule(Text(title), align="left")
        for sentence in content.summary:
            console.print(Text(f"- {sentence}"))
        for table in content.shown:
            console.print(to_rich(table))
        for name in ("report.html", "report.md"):
            console.print(Text(str(out / name)), soft_wrap=True)
    lacking = fonts.missing_characters_note()
    if lacking:
        print(f"note: {lacking}", file=sys.stderr)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, or 2 for a user's mistake.

    Args:
        argv: Arguments; those of the process by default.
    """
    return run_command(_execute, argv)
