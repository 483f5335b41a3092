"""The command `convolt`: what follows its first word goes to the command of that name."""

import sys
from collections.abc import Sequence
from importlib import import_module

from convolt import __version__
from convolt.errors import UserError, did_you_mean
from convolt.system.arguments import run_command

COMMANDS = {
    "train": "convolt.cli.train",
    "study": "convolt.cli.study",
    "report": "convolt.reports.report",
    "evaluate": "convolt.inference.evaluate",
    "predict": "convolt.inference.predict",
    "export": "convolt.inference.export",
    "init": "convolt.cli.new_project",
}
"""The modules whose `main` does each of them; only the one that was typed is imported."""

USAGE = """\
usage: convolt COMMAND [ARGUMENTS...]

  convolt train model=resnet18 data=cifar10    train a network, or many with -m
  convolt train resume=RUN_DIR                 resume a run that was cut off
  convolt study                                list the studies; with a name: run one, then report on it
  convolt report outputs                       list what there is; with a folder of it: tables, figures and a page
  convolt evaluate RUN_DIR                     the classification report of a finished run
  convolt predict RUN_DIR image.png            classes and probabilities of images of your own
  convolt export RUN_DIR                       the network as files for other programs
  convolt init FOLDER                          a small project of your own: a network, pages, a study, a test

`convolt COMMAND --help` says more. All is written below the working directory, to outputs/ and data/; pages in its
folder conf/ and modules of its own are found.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Args:
        argv: Arguments; those of the process by default.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        status: int = import_module(COMMANDS[arguments[0]]).main(arguments[1:])
        return status
    if arguments and arguments[0] == "-sc":  # a shell asks
        from convolt.cli.completion import complete

        return complete(arguments, COMMANDS)
    return run_command(_answer, arguments)


def _answer(arguments: Sequence[str]) -> int:
    """Answer what is no command: a flag, or a mistake."""
    first = arguments[0] if arguments else "--help"
    if first in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if first == "--version":
        print(f"convolt {__version__}")
        return 0
    if first in ("resume", "rerun"):
        raise UserError(f"{first}: there is no such command; did you mean 'convolt train {first}=RUN_DIR'?")
    if "=" in first or first in ("-m", "--multirun"):
        raise UserError(f"{first}: a command comes first; did you mean 'convolt train {' '.join(arguments)}'?")
    hint = did_you_mean(first, (*COMMANDS, "--help", "--version")) or f"; there are {', '.join(COMMANDS)}"
    raise UserError(f"{first}: there is no such command{hint}")
