"""What stands on disk, as objects."""

import os
from pathlib import Path

from convolt.api.run import Run
from convolt.api.study import Study
from convolt.reports.find import is_study
from convolt.runs.files import RunFiles
from convolt.system.files import expand_home


def load(path: str | os.PathLike[str]) -> Run | Study:
    """Load a run's directory, or the folder of a study, of a sweep or of several runs, or a bundle of these.

    Args:
        path: The folder, or the zip file that `report.py STUDY --bundle` has written.

    Returns:
        The run; or the study, which also a sweep, several runs in one folder and every bundle are.

    Raises:
        UserError: When there is no such folder, no run in it, or the bundle cannot be read.
    """
    place = Path(expand_home(os.fspath(path)))
    return Run(place) if RunFiles(place).is_run() and not is_study(place) else Study(place)
