"""What the commands share: a parser whose errors are one line, and exit statuses."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from convolt.errors import UserError, did_you_mean
from convolt.system.environment import set_up_process
from convolt.system.files import expand_home
from convolt.system.installation import command_name
from convolt.system.signals import Interrupted
from convolt.system.terminal import OutputEndedError, check_working_directory, fail_on_output_errors


def typed_path(text: str) -> Path:
    """Return a path that was typed, perhaps in quotes, so that the shell left its `~`."""
    return Path(expand_home(text))


class Parser(argparse.ArgumentParser):
    """A parser of arguments whose errors are one line, with what was probably meant."""

    def __init__(self, name: str, usage: str, *, takes_run: bool = True) -> None:
        layout = argparse.RawDescriptionHelpFormatter
        prog = command_name(name)
        usage = usage.replace(f"python {name}.py", prog)
        super().__init__(prog, description=usage, formatter_class=layout, allow_abbrev=False)
        if takes_run:
            self.add_argument("run", metavar="RUN_DIR", type=typed_path, help="directory of a finished run")

    def error(self, message: str) -> NoReturn:
        """Raise a UserError."""
        raise UserError(f"{message}; `{self.prog} --help` shows the usage")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse arguments; an unknown option is named with those that resemble it."""
        arguments, unknown = self.parse_known_args(argv)
        if unknown:
            options = [name for action in self._actions for name in action.option_strings]
            self.error(f"unknown option '{unknown[0]}'{did_you_mean(unknown[0], options)}")
        return arguments


def accept_late_help() -> None:
    """Have argparse check help that is a text, and leave alone help that becomes one only when it is shown.

    Python 3.14 checks all help where an option is added, and so refuses Hydra's parser up to Hydra 1.3.8
    (https://github.com/facebookresearch/hydra/issues/3121). Does nothing in older Pythons.
    """
    check = getattr(argparse.ArgumentParser, "_check_help", None)
    if check is None:
        return

    def check_texts(parser: argparse.ArgumentParser, action: argparse.Action) -> None:
        if isinstance(action.help, str):
            check(parser, action)

    argparse.ArgumentParser._check_help = check_texts  # type: ignore[attr-defined]


def run_command(work: Callable[[Sequence[str]], int], argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: what `work` returns, or that of the mistake or signal that ended it.

    Args:
        work: From arguments to an exit status.
        argv: Arguments; those of the process by default.
    """
    set_up_process()
    try:
        with fail_on_output_errors():
            check_working_directory()
            return work(list(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted as error:
        hint = "the same command, or resume=RUN_DIR, resumes after the last completed epoch"
        print(f"interrupted {error}: {hint}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except OutputEndedError:
        return 0
