"""Finds studies and runs on disk.

A folder is a *study* when it holds `study.json`, and a *run* when it holds what a run leaves.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from convolt.errors import UserError, did_you_mean
from convolt.runs.files import RunFiles
from convolt.system.installation import command_name

NOT_RUNS = re.compile(r"\.hydra|checkpoints|figures|report|.*\.old\d+|.*-rerun\d*")
"""Folders that are not searched; the last two are runs that were moved aside, and reruns, which are checks."""

SIDE_RUNS = ("tuning", "untuned", "candidates")
"""Folders in that of a study's row whose runs belong to its tuning, or to the choice of what a report leaves open."""


def natural_order(text: str) -> list[tuple[int, float, str]]:
    """Return a sort key under which "lr=0.01" < "lr=0.1" and "b8" < "b16"."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", text)
    return [(0, float(part), "") if index % 2 else (1, 0.0, part) for index, part in enumerate(parts)]


def is_study(path: Path) -> bool:
    """Return whether a folder is a study's."""
    return (path / "study.json").is_file()


def find(path: Path) -> Iterator[Path]:
    """Yield the studies and runs in a folder, which may itself be one, in natural order; not what is inside of them."""
    if is_study(path) or RunFiles(path).is_run():
        yield path
    else:
        yield from find_below(path)


def find_below(path: Path) -> Iterator[Path]:
    """Yield the studies and runs below a folder, in natural order."""
    try:
        children = [Path(entry) for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for child in sorted(children, key=lambda child: natural_order(child.name)):
        if NOT_RUNS.fullmatch(child.name) or (child.name in SIDE_RUNS and is_study(path.parent)):
            continue
        yield from find(child)


def check_folder(path: Path) -> None:
    """Check that a folder exists.

    Raises:
        UserError: It does not exist, or is a file; names folders of similar names.
    """
    if path.is_dir():
        return
    if path.exists():
        raise UserError(f"'{path}' is a file; give the folder of a study, a sweep or a run")
    siblings = [child.name for child in path.parent.glob("*") if child.is_dir()]
    studies = [str(child) for child in Path("outputs/studies").glob("*")]
    similar = (
        did_you_mean(path.name, siblings)
        or did_you_mean(path.name, studies)
        or did_you_mean(f"outputs/studies/{path.name}", studies)
        or (f"; `{command_name('report')} outputs` lists what there is" if Path("outputs").is_dir() else "")
        or f"; there are no outputs yet: `{command_name('train')}` makes some"
    )
    raise UserError(f"no folder '{path}'{similar}")
