"""A further process of a run on several devices; `convolt.training.ddp` starts it as a module."""

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from convolt.system.environment import set_up_process
from convolt.system.imports import fast_imports


def main() -> None:
    """Read what to do from the standard input, and take part in a run until it ends."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"):  # the first process is told, and tells the others
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    set_up_process()
    text = b""
    while not text.endswith(b"\n"):
        text += os.read(0, 2**16) or sys.exit(1)
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    order: dict[str, Any] = json.loads(text)
    sys.path[:] = order["path"]
    with fast_imports():
        from convolt.training.run import run_ddp_worker

    cfg = OmegaConf.create(order["cfg"])
    assert isinstance(cfg, DictConfig)
    run_ddp_worker(cfg, Path(order["run_dir"]), order["batch_size"], order["change"])


def _end_with_the_first() -> None:
    os.read(0, 1)  # until the first process closes it, or is gone
    os._exit(1)


if __name__ == "__main__":
    main()
