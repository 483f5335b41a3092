"""Imported by every Python process that has this folder on its path: gives the runs of a sweep a killer."""

import os
import sys
from pathlib import Path

_FAULT = os.environ.get("FAULT_AT")
if _FAULT:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from killer import Killer

    _at, _how, _share, _once, _below = _FAULT.split("|")
    Killer(int(_at), _how, float(_share), Path(_once), _below).install()
