"""`convolt study`: a study and then its report; without a name, the list of studies."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from convolt.cli import train
from convolt.config.own_pages import own_folder
from convolt.errors import UserError
from convolt.system.arguments import run_command
from convolt.system.installation import CONF, command_name

USAGE = """\
usage: convolt study STUDY [OVERRIDES...]    runs what is missing of a study, then writes its report
In a checkout, ./multirun.sh STUDY [OVERRIDES...] does the same.

  convolt study optimizers data=mnist seed=0,1,2          further overrides apply to every row
  convolt study optimizers optim.weight_decay=0,5e-4      swept ones multiply
  convolt study optimizers hydra.sweeper.tune=null        at the options' own rates, not tuned
  convolt study optimizers hydra.sweeper.settle=true      seeds until each difference is settled
  convolt study optimizers hydra.sweeper.dry_run=true     lists what would run, and how far it is
  convolt study optimizers 'hydra.sweeper.rows=[sgd,adam]'   these rows alone; the report lists the others as missing
  convolt study optimizers hydra.sweeper.have=study.zip   takes finished runs from a bundle (convolt report --bundle)
  convolt study PUBLISHED hydra.sweeper.candidates=true   tries what a published table leaves open, not the table
  convolt study optimizers hydra.launcher.n_jobs=4        runs at a time (jobs_per_gpu, retries, timeout, on_error)

The same command goes on where it was cut off. Exit status: 0 when every run finished, 1 when some did not, 2 for a
mistake, 130 or 143 when interrupted.

Studies (conf/study):
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a study and write its report, or list the studies; return the exit status.

    Args:
        argv: Arguments; those of the process by default.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and not arguments[0].startswith("-") and "=" not in arguments[0]:
        return train.main([f"study={arguments[0]}", "hydra.sweeper.report=true", *arguments[1:]])
    return run_command(_answer, arguments)


def _answer(arguments: Sequence[str]) -> int:
    """Answer what names no study: list them, or refuse."""
    if arguments and arguments[0] not in ("-h", "--help"):
        raise UserError(f"{arguments[0]}: the name of a study comes first; {command_name('study')} lists them")
    print(USAGE, end="")
    for name, title in list_studies().items():
        print(f"  {name:<32} {title}".rstrip())
    return 0


def list_studies() -> dict[str, str]:
    """Return the titles of all studies by name: those of `conf/study`, here and in Convolt."""
    folders = [folder for folder in (CONF, own_folder()) if folder]
    pages = {
        page.stem: page for folder in folders for page in sorted((folder / "study").glob("*.yaml")) if page.is_file()
    }
    return {name: _title(page) for name, page in pages.items()}


def _title(page: Path) -> str:
    """Return the line of a page that says its title, without parsing the page: there are many, and it takes long."""
    found = re.search(r"^title: *(['\"]?)(.*?)\1 *$", page.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    return found[2] if found else ""
