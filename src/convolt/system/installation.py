"""Where Convolt runs from, an installed package or a checkout, and what is typed there."""

import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def find_configs() -> Path:
    """Return the folder of the configs: in the package where it was built, else at the top of the checkout."""
    inside = _PACKAGE / "conf"
    return inside if inside.is_dir() else _PACKAGE.parents[1] / "conf"


CONF = find_configs()
"""The folder of the configs."""

CHECKOUT: Path | None = None if CONF.parent == _PACKAGE else CONF.parent
"""The top of the checkout; None where Convolt was installed without one."""


def command_name(name: str) -> str:
    """Return what is typed before the arguments of a command: `python report.py`, or `convolt report`.

    Where there is no checkout, or `convolt` was typed, it is `convolt`; else the script, as it always was.

    Args:
        name: train, study, report, evaluate, predict or export.
    """
    typed = Path(sys.argv[0] if sys.argv else "")
    if CHECKOUT is None or typed.stem == "convolt" or typed.parts[-2:] == ("convolt", "__main__.py"):
        return f"convolt {name}"
    return "./multirun.sh" if name == "study" else f"python {name}.py"
