"""`python train.py ...` typed into the tests' own process: the start of another one takes 5 s of processor time."""

import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from convolt.cli.train import main


def type_here(arguments: Sequence[str], folder: Path) -> "CompletedProcess[str]":
    """Do what `python train.py ARGUMENTS` does in a folder; sweeps of one process share one server of forks.

    Returns:
        What `subprocess.run` would: the exit status and what was written to the standard streams.
    """
    output, errors = io.StringIO(), io.StringIO()
    status: object = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["train.py", *arguments])
        try:
            status = main()
        except SystemExit as end:
            status = end.code
    assert isinstance(status, int), status
    return CompletedProcess(list(arguments), status, output.getvalue(), errors.getvalue())
