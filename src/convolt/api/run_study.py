"""A study in processes of its own, as the command line would run it, shown live."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from convolt.api.interrupted import StoppedByUser
from convolt.api.study import Study
from convolt.errors import RunError, UserError
from convolt.system.installation import command_name
from convolt.system.notebook import LiveLine, in_notebook

_COMMAND = """
import os, sys
from convolt.system.signals import die_with_parent
die_with_parent(lambda: os.read(0, 1))
from convolt.cli.train import main
sys.exit(main())
"""
"""The command line, in a process that ends with this one: when its standard input is closed."""

_EVENT = re.compile(r"\[ *(\d+)/(\d+)\] (.*)")
"""A line of a sweep that says how far it is."""

_END = re.compile(r"\d+ of \d+ runs finished")
"""The line after the last one."""


def study(name: str, *overrides: str) -> Study:
    """Run what is missing of a study, in processes of its own, as `python train.py study=NAME` does.

    Args:
        name: Of its page, conf/study/NAME.yaml.
        overrides: As on the command line; they apply to every row: `study("optimizers", "data=digits", "seed=0,1,2")`.

    Returns:
        The study, with all that has finished; `Study.status` counts what has not.

    Raises:
        UserError: When something is wrong with the study or an override; nothing was started then.
        RunError: When the study's own process failed.
        KeyboardInterrupt: When it was interrupted; the same call goes on.
    """
    if not isinstance(name, str) or not name or "=" in name or name.startswith("-"):
        raise UserError(f'{name}: the name of a study comes first, such as study("optimizers", "data=digits")')
    for text in overrides:
        if not isinstance(text, str) or text.startswith("-"):
            raise UserError(f'{text}: study() takes overrides as text, such as "data=digits"')
        if text.startswith("hydra.sweeper.dry_run="):
            raise UserError(
                f"{text}: a dry run makes no study: {command_name('train')} study={name} {text} lists its runs"
            )
    status, lines = _run([f"study={name}", *overrides])
    last = next((line for line in reversed(lines) if line.strip()), "")
    if status == 2:
        raise UserError(last.removeprefix("error: "))
    if not Path(last).is_dir():
        raise RunError(last or f"the study's process ended with status {status}")
    return Study(last)


def _run(arguments: Sequence[str]) -> tuple[int, list[str]]:
    """Run the command line and show what it prints; return its exit status and its lines.

    Raises:
        KeyboardInterrupt: When this process was interrupted; its runs were then, too.
    """
    python_path = os.pathsep.join(path for path in sys.path if path)
    inherited = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"}  # a kernel's
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _COMMAND, *arguments],
        env=inherited | {"PYTHONPATH": python_path, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # an interrupt reaches it once, from here
        encoding="utf-8",
        errors="replace",
    )
    assert process.stdout is not None
    lines: list[str] = []
    try:
        try:
            _show(process.stdout, lines)
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            _show(process.stdout, lines)
            raise StoppedByUser("its runs have stopped; the same call goes on") from None
        return process.wait(), lines
    finally:
        assert process.stdin is not None
        process.stdin.close()  # which ends it, where it has not ended
        process.stdout.close()
        process.wait()


def _show(output: IO[str], lines: list[str]) -> None:
    """Show lines as they come, those that say how far it is in one that changes in place, where there is a notebook."""
    live, end = LiveLine() if in_notebook() else None, ""
    for text in output:
        line = text.rstrip("\n")
        lines.append(line)
        event = _EVENT.fullmatch(line)
        if live and event:
            done, total = int(event[1]), int(event[2])
            live.show(f"{done} of {total} runs  {event[3]}", done / max(1, total))
        elif live and _END.fullmatch(line):
            live.show(end := line)
        elif live and end:  # the folder
            live.show(f"{end}, {line}")
        elif not line.startswith("error: "):
            print(line, flush=True)
