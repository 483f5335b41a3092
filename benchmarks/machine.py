"""What every benchmark writes beside its figures: date, command, hardware, versions."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from convolt.config.compose import compose
from convolt.config.settings import Settings
from convolt.runs.code_state import code_state
from convolt.runs.directory import versions
from convolt.training.machine import Machine


def this_machine(*overrides: str) -> Machine:
    """Return what a run with these overrides would compute on."""
    return Machine.of(Settings.of(compose(overrides)).trainer)


def record(results: Any) -> dict[str, Any]:
    """Return a benchmark's figures with where they come from."""
    machine = this_machine()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "device": machine.device_name,
        "precision": machine.precision,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "versions": versions(),
        "git_commit": code.commit if (code := code_state()) else None,
        "results": results,
    }


def write(results: Any, file: Path | None) -> None:
    """Write a benchmark's figures as JSON, where a file is wanted."""
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(record(results), indent=1) + "\n")
