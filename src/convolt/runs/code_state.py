"""The state of this code: its commit, and what was changed since."""

import hashlib
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MAX_PATCH_BYTES = 2**20
"""A larger patch is left out, and a note says so."""

_DIGEST_LENGTH = 8


@dataclass(frozen=True)
class CodeState:
    """A checkout of this code.

    Attributes:
        commit: Its commit; with `-dirty:` and the digest of its changes where tracked files differ from that.
        patch: Those changes, for `git apply`, or a note that they are too large; empty where there are none.
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
        _git(
            file, "ls-files", "--error-unmatch", file.name
        )  # an environment below somebody's checkout is no part of it
        commit = _git(file, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*").decode().strip()
        if not commit.endswith("-dirty"):
            return CodeState(commit, b"")
        patch = _git(file, "diff", "--binary", "--no-color", "--no-ext-diff", "--no-textconv", "--no-relative", "HEAD")
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    digest = hashlib.sha256(patch).hexdigest()
    if len(patch) > MAX_PATCH_BYTES:
        note = f"left out: the changes take {len(patch):,} bytes, more than {MAX_PATCH_BYTES:,}; SHA-256 {digest}\n"
        patch = note.encode()
    return CodeState(f"{commit}:{digest[:_DIGEST_LENGTH]}", patch)


def _git(file: Path, *arguments: str) -> bytes:
    command = ["git", "-C", str(file.parent), *arguments]
    return subprocess.run(command, capture_output=True, check=True, timeout=10).stdout
