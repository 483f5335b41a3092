"""A further process of a run on several devices; `convolt.training.ddp` starts it as a module."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from convolt.system.environment import set_up_process
from convolt.system.imports import fast_imports
from convolt.system.signals import STOP_SIGNALS, die_with_parent, existing_signals


def main() -> None:
    """Read the run's settings from the standard input, and take part in the run until it ends."""
    for number in (*STOP_SIGNALS, *existing_signals("SIGUSR2")):  # the first process handles them for all
        signal.signal(number, signal.SIG_IGN)
    set_up_process()
    text = b""
    while not text.endswith(b"\n"):
        text += os.read(0, 2**16) or sys.exit(1)
    die_with_parent(lambda: os.read(0, 1))  # returns when the first process closes it, or is gone
    order: dict[str, Any] = json.loads(text)
    sys.path[:] = order["path"]
    with fast_imports():
        from convolt.training.run import run_ddp_worker

    cfg = OmegaConf.create(order["cfg"])
    assert isinstance(cfg, DictConfig)
    run_ddp_worker(cfg, Path(order["run_dir"]), order["batch_size"], order["change"])


if __name__ == "__main__":
    main()
