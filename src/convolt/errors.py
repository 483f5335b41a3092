"""What went wrong, told in one line."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A mistake of the user's: its message names the mistake and the mend in one line; exit status 2."""


class RunError(RuntimeError):
    """A run failed for a reason that is told in one line: what happened and what to do; exit status 1."""


def near(word: str, candidates: Iterable[str]) -> str:
    """Name the candidates that resemble a misspelt word.

    Args:
        word: What the user wrote.
        candidates: What would have been right.

    Returns:
        "; did you mean 'a' or 'b'?", or an empty string where nothing is near.
    """
    matches = get_close_matches(str(word), list(dict.fromkeys(candidates)), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(match) for match in matches)}?" if matches else ""
