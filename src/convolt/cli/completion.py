"""What a shell completes after `convolt`: names of commands and of studies; then Hydra, groups, options and keys.

eval "$(convolt train --shell-completion install=bash)"      # or zsh; for fish: ... install=fish | source
"""

import os
from collections.abc import Iterable, Sequence

from convolt.cli import study, train


def complete(arguments: Sequence[str], commands: Iterable[str]) -> int:
    """Print what may come next on the line that a shell has in `COMP_LINE`; return the exit status.

    Args:
        arguments: What Hydra's script for the shell calls the command with: `-sc query=bash`.
        commands: Their names.
    """
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    done = len(words) if line[-1:].isspace() else len(words) - 1
    if done <= 1:
        print(*commands)
    elif words[1] == "study" and done == 2:
        print(*study.list_studies())
    elif words[1] in ("train", "study"):
        typed = words[2:] if words[1] == "train" else words[3:]
        os.environ["COMP_LINE"] = " ".join([words[0], *typed, *([""] if done == len(words) else [])])
        return train.main(arguments)
    return 0
