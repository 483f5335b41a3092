"""The state of this code: its commit, and what was changed since."""

import hashlib
import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MAX_PATCH_BYTES = 2**20
"""A larger patch is left out, and a note says so."""

_DIGEST_LENGTH = 8

_TIMEOUT = 10.0
"""Seconds that git may take: changed files of hundreds of megabytes take it longer."""

_OTHER_REPOSITORY = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR")
"""What git's hooks tell the commands that they run: a repository that need not be this code's."""


@dataclass(frozen=True)
class CodeState:
    """A checkout of this code.

    Attributes:
        commit: Its commit; with `-dirty:` and the digest of its changes where tracked files differ from that.
        patch: Those changes, for `git apply`, or a note that they are too large, or that git did not list them and
            the digest is missing; empty where there are none.
    """

    commit: str
    patch: bytes


@cache
def code_state() -> CodeState | None:
    """Return the state of the checkout when it is first asked for; None where this code lies in none, as a wheel.

    Later changes are not looked for: what a process has imported stays as it was.
    """
    return read_code_state(Path(__file__))


def read_code_state(file: Path) -> CodeState | None:
    """Return the state of the checkout that a tracked file lies in; None where it is in none, or git is missing.

    Untracked files are left out.
    """
    try:
        # an environment below somebody's checkout is no part of it
        _git(file, "ls-files", "--error-unmatch", file.name)
        commit = _git(file, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*").decode().strip()
        if not commit.endswith("-dirty"):
            return CodeState(commit, b"")
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    try:  # diff-index: the same changes make the same patch, whatever the user's git is told of `git diff`
        patch = _git(file, "diff-index", "--patch", "--binary", "--no-ext-diff", "--no-textconv", "HEAD")
    except (OSError, subprocess.SubprocessError) as error:
        return CodeState(commit, f"left out: git does not list the changes: {error}\n".encode())
    digest = hashlib.sha256(patch).hexdigest()
    if len(patch) > MAX_PATCH_BYTES:
        note = f"left out: the changes take {len(patch):,} bytes, more than {MAX_PATCH_BYTES:,}; SHA-256 {digest}\n"
        patch = note.encode()
    return CodeState(f"{commit}:{digest[:_DIGEST_LENGTH]}", patch)


def _git(file: Path, *arguments: str) -> bytes:
    command = ["git", "-C", str(file.parent), *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in _OTHER_REPOSITORY}
    return subprocess.run(command, capture_output=True, check=True, timeout=_TIMEOUT, env=environment).stdout
