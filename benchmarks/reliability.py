"""What checkpoints, digests and locks cost: python benchmarks/reliability.py [--rounds 3] [data.root=...].

Three epochs of LeNet on MNIST, with them and without them in turn, in one process; and the seconds that were spent
in them by the clock, which noise on the machine touches less.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from convolt.config.compose import compose
from convolt.data.module import ImageDataModule
from convolt.runs.checkpoints import load_weights
from convolt.runs.directory import RunDirectory
from convolt.training import resume
from convolt.training.callbacks.keep_checkpoints import KeepCheckpoints
from convolt.training.run import run

spent = [0.0]


def timed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add up the seconds of a function."""

    def wrapped(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            spent[0] += time.perf_counter() - began

    return wrapped


def one(overrides: list[str], protected: bool) -> float:
    """Return the seconds of a run."""
    keep, enter = KeepCheckpoints.on_train_epoch_end, RunDirectory.__enter__
    cfg = compose(["data=mnist", "model=lenet", "trainer.max_epochs=3", "trainer.threads=1", *overrides])
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        if protected:
            stack.enter_context(patch.object(KeepCheckpoints, "on_train_epoch_end", timed(keep)))
            stack.enter_context(patch.object(RunDirectory, "__enter__", timed(enter)))
            stack.enter_context(patch("convolt.training.run.load_weights", timed(load_weights)))
            stack.enter_context(patch("convolt.training.resume.find_checkpoint", timed(resume.find_checkpoint)))
            see = ImageDataModule.verify_unchanged
            stack.enter_context(patch.object(ImageDataModule, "verify_unchanged", timed(see)))
        else:

            def make(self: RunDirectory) -> RunDirectory:
                self.path.mkdir(parents=True)
                return self

            stack.enter_context(patch.object(KeepCheckpoints, "on_train_epoch_end", lambda *_: None))
            stack.enter_context(patch.object(RunDirectory, "__enter__", make))
        began = time.perf_counter()
        run(cfg, Path(folder) / "run")
        return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    chosen, overrides = parser.parse_known_args()
    torch.set_num_threads(1)
    one([*overrides, "debug=smoke"], True)
    spent[0] = 0.0
    rounds = [(one(overrides, True), one(overrides, False)) for _ in range(chosen.rounds)]
    for with_them, without in rounds:
        print(f"with {with_them:.2f} s, without {without:.2f} s: {with_them / without - 1:+.1%}")
    total = sum(with_them for with_them, _ in rounds)
    print(f"median of the ratios {statistics.median(a / b for a, b in rounds) - 1:+.1%}")
    print(f"by the clock {spent[0] / len(rounds):.3f} s of {total / len(rounds):.2f} s: {spent[0] / total:.2%}")


if __name__ == "__main__":
    main()
