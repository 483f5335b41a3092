"""What a process inherits from the terminal, notebook or launcher that started it."""

import logging
import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path

from convolt.errors import UserError

RANK_VARIABLES = (
    "RANK", "LOCAL_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "JSM_NAMESPACE_RANK",
)  # fmt: skip
"""Where torchrun, srun, mpirun and jsrun tell a process its number among those that they started."""

_NO_LOG = logging.NullHandler()


def set_up_process() -> None:
    """Make a command of ours independent of what it inherits; a run that Python code starts leaves all this alone.

    A notebook's `MPLBACKEND` names a module that another environment lacks, which ends `import matplotlib`;
    a terminal of no columns gets no output; `PYTHONWARNINGS=error` makes errors of the warnings of libraries.
    """
    os.environ["MPLBACKEND"] = "agg"
    logging.getLogger("matplotlib").addHandler(_NO_LOG)  # its messages about the place of its cache
    for name in ("COLUMNS", "LINES"):
        if not os.environ.get(name, "").isdecimal() or int(os.environ[name]) == 0:
            os.environ.pop(name, None)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # characters that the terminal's encoding lacks
    actions = [option.split(":")[0] for option in sys.warnoptions]
    if any(action and "error".startswith(action) for action in actions):
        sys.warnoptions.clear()  # processes that are started take it from here or there
        os.environ.pop("PYTHONWARNINGS", None)
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
    _find_own_modules()


def _find_own_modules() -> None:
    """Let `_target_` name modules of the working directory, however the process was started.

    It is searched last, so that a file of the user's hides no library.
    """
    with suppress(FileNotFoundError):  # the folder is gone, which is refused where it matters
        if (folder := str(Path.cwd())) not in sys.path:
            sys.path.append(folder)


def forget_rank() -> None:
    """Drop the number of the process that started this one, such as a Ray worker's own in srun."""
    for name in RANK_VARIABLES:
        os.environ.pop(name, None)


def check_environment() -> None:
    """Refuse variables by which Lightning would change a run behind its settings, or that make it one of several.

    Raises:
        UserError: For defaults of Lightning's Trainer, and in all processes but the first of srun, torchrun or mpirun.
    """
    for name, value in os.environ.items():
        if name.startswith("PL_TRAINER_") and value:
            raise UserError(
                f"{name}={value} in the environment would change the run behind its settings: unset {name}, "
                "and set a key of `trainer` instead, such as trainer.max_epochs=3"
            )
    for name in RANK_VARIABLES:
        value = os.environ.get(name, "0")
        if not value.isdecimal():
            raise UserError(f"{name}={value} in the environment is no number of a process: unset {name}")
        if int(value):
            raise UserError(
                f"{name}={value}: a further process of srun, torchrun or mpirun would train the same run: start one "
                f"(--ntasks=1), trainer=ddp starts its own; or unset {name} where each process has a run of its own"
            )
