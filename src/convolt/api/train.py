"""One run in this process, as the command line would do it."""

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig

from convolt.api.interrupted import StoppedByUser
from convolt.api.run import Run
from convolt.config.compose import compose_run
from convolt.config.overrides import override_values
from convolt.errors import UserError
from convolt.reports.collect import read_run
from convolt.runs.config_hash import config_hash
from convolt.runs.files import Change, RunFiles
from convolt.system.files import expand_home
from convolt.system.installation import command_name
from convolt.system.signals import Interrupted

_HYDRAS_KEYS = ("hydra.run.dir", "hydra.searchpath")
"""Keys of Hydra's own that say something of one run."""


def train(*overrides: str, run_dir: str | os.PathLike[str] | None = None) -> Run:
    """Train a network in this process, and test it once.

    What `python train.py` does with the same overrides: the same settings, numbers, files and errors. A finished run
    of the same settings in the directory is returned as it is; one that was cut off goes on after its last complete
    epoch, to the bits of an uninterrupted run.

    Args:
        overrides: As on the command line: `train("model=resnet18", "data=cifar10", "optim.lr=0.1")`. With
            `"resume=RUN_DIR"` a run goes on with its own settings.
        run_dir: The run's directory. None: a new one, below outputs/runs, unless a run of the same settings was cut
            off there, which then goes on.

    Returns:
        The run, finished.

    Raises:
        UserError: When the settings cannot be run; nothing was written then.
        RunError: When the run failed for a reason that a line explains: no memory, no disk, an infinite loss.
        KeyboardInterrupt: When it was interrupted; the same call goes on.
    """
    cfg, directory, change = _settings(overrides, run_dir)
    from convolt.training.start import import_run

    run = import_run(cfg, freeze=False)
    from convolt.api.process_state import restore_process_state

    try:
        with restore_process_state():
            run(cfg, directory, change=change)
    except (Interrupted, KeyboardInterrupt) as error:
        if isinstance(error, Interrupted) and error.number != signal.SIGINT:
            os.kill(os.getpid(), error.number)  # to whom it was sent: the whole process
        raise StoppedByUser(f"{directory}: the same call goes on after the last complete epoch") from None
    return Run(directory)


def _settings(
    overrides: Sequence[str], run_dir: str | os.PathLike[str] | None
) -> tuple[DictConfig, Path, Change | None]:
    """Return checked settings, the directory of their run, and what they change of a run that is resumed."""
    for text in overrides:
        if not isinstance(text, str) or text.startswith("-"):
            raise UserError(f'{text}: train() takes overrides as text, such as train("model=lenet", "optim.lr=0.1")')
    typed = _read_values(overrides)
    if "study" in typed:
        raise UserError(f'study={typed["study"]} is many runs: study("{typed["study"]}") runs them')
    if "rerun" in typed:
        raise UserError(f"rerun=RUN_DIR is a command: {command_name('train')} rerun=RUN_DIR compares every number")
    for key in typed:
        if key.startswith("hydra") and key not in _HYDRAS_KEYS:
            raise UserError(f"{key}: it says nothing of one run; train() takes {' and '.join(_HYDRAS_KEYS)} of Hydra's")
    if run_dir is not None and (named := {"resume", "hydra.run.dir"} & typed.keys()):
        raise UserError(f"run_dir={run_dir}: {named.pop()} names a directory too; give one of them")
    if "resume" in typed:
        from convolt.training.extend import resumed_settings

        directory = Path(expand_home(str(typed["resume"])))
        cfg, change = resumed_settings(directory, overrides)
        return cfg, directory, change
    cfg, directory = compose_run(overrides)
    if run_dir is not None:
        directory = Path(expand_home(os.fspath(run_dir)))
    elif "hydra.run.dir" not in typed and not cfg.force:
        directory = _find_cut_off(directory.parent, config_hash(cfg)) or directory
    return cfg, directory, None


def _read_values(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the overrides' values by key; none where one cannot be read, which composing them explains."""
    with suppress(HydraException):
        return override_values(overrides)
    return {}


def _find_cut_off(folder: Path, settings_hash: str) -> Path | None:
    """Return the newest run of some settings in a folder that was interrupted or killed; None where there is none."""
    for path in sorted(folder.glob("*/status.json"), reverse=True):
        same = RunFiles(path.parent).status().get("config_hash") == settings_hash
        if same and read_run(path.parent).state in ("interrupted", "cut off"):
            return path.parent
    return None
