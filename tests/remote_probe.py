"""A callback for tests of sweeps on Ray and SLURM: it writes down where a run ran, and can end it."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import Callback


class Probe(Callback):
    """Adds a line to `<folder>/<name>` at the start and the end of training.

    Args:
        folder: Where to.
        name: Of the run.
        once: raise or kill: what the run does when it starts for the first time.
        seconds: What an epoch takes longer.
    """

    def __init__(self, folder: str, name: str, once: str = "", seconds: float = 0) -> None:
        self.file = Path(folder) / name
        self.once = once
        self.seconds = seconds

    def say(self, word: str) -> None:
        gpu, slots = os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("CONVOLT_SLOTS")
        with self.file.open("a") as file:
            file.write(f"{word} {time.time()} {os.getpid()} {gpu} {slots}\n")

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        first = not self.file.exists()
        self.say("began")
        if first and self.once == "raise":
            raise ValueError("what a pity")
        if first and self.once == "kill":
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        time.sleep(self.seconds)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.say("ended")
