"""What checkpoints cost the thread that trains: python benchmarks/checkpoints.py [--epochs 24] [KEY=VALUE ...].

One run, whose epochs in turn have their checkpoint written while the training stands still, as Lightning does, and by a
thread; each network with its best weights written at every epoch and at none. "cost" is what the training thread spends
at an epoch's end and before the first step; "wait" is what it waits for the thread at the next epoch's end, which is
nothing in a run whose epochs take longer than a write; "epoch" is all from one checkpoint to the next. Medians in
milliseconds: of the clock, of the training thread's processor time, and of all threads'.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from convolt.config.compose import compose
from convolt.runs.checkpoints import BEST
from convolt.training.callbacks.keep_checkpoints import KeepCheckpoints
from convolt.training.run import run
from machine import write

CLOCKS = (time.perf_counter, time.thread_time, time.process_time)
NAMES = ("clock", "thread", "process")
ALWAYS = ("trainer.threads=1", "pictures.enabled=false", "data=digits", "trainer.test=none")
FEW = ("debug.limit_batches=3", "data.batch_size=8", "data.eval_batch_size=8")
NETWORKS = {
    "lenet, momentum": ["model=lenet", "optim=momentum"],
    "resnet18, momentum": ["model=resnet18", "optim=momentum", *FEW],
    "resnet18, adam": ["model=resnet18", "optim=adam", *FEW],
}


class InTurn(KeepCheckpoints):
    """Writes every other epoch's checkpoints without a thread, and measures."""

    best = True
    spent: dict[str, list[np.ndarray]]
    _mark: np.ndarray
    _cost: np.ndarray

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget the run before."""
        InTurn.spent = {f"{kind} {what}": [] for kind in ("thread", "still") for what in ("cost", "wait", "epoch")}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write, in turn without a thread, and add up what the checkpoint before has cost."""
        began = now()
        self._background.wait()
        if trainer.current_epoch > 3:  # buffers and files are warm
            kind = "still" if trainer.current_epoch % 2 == 0 else "thread"  # of the checkpoint before
            self.spent[f"{kind} cost"].append(self._cost)
            self.spent[f"{kind} wait"].append(now() - began)
            self.spent[f"{kind} epoch"].append(now() - self._mark)
        self._mark = now()
        if trainer.current_epoch % 2 == 0:
            super().on_train_epoch_end(trainer, pl_module)
        else:
            self._is_best(0)
            path = self.folder / f"epoch-{trainer.current_epoch + 1:04d}.ckpt"
            trainer.save_checkpoint(path)
            if self.best:
                trainer.save_checkpoint(self.folder / BEST, weights_only=True)
            for old in sorted(self.folder.glob("epoch-*.ckpt"))[:-2]:
                trainer.strategy.remove_checkpoint(old)
        self._cost = now() - self._mark

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Measure how long the first step waits."""
        began = now()
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if trainer.current_epoch:
            self._cost += now() - began

    def _is_best(self, score: float) -> bool:
        return self.best


def now() -> np.ndarray:
    """Return all clocks."""
    return np.array([clock() for clock in CLOCKS])


def measure(names: list[str], epochs: int, overrides: list[str]) -> dict[str, Any]:
    """Return the medians of each network, with its best weights and without."""
    results: dict[str, Any] = {}
    for name in names:
        for InTurn.best in (True, False):
            cfg = compose([*ALWAYS, *NETWORKS[name], f"trainer.max_epochs={epochs}", *overrides])
            with tempfile.TemporaryDirectory() as folder, patch("convolt.training.trainer.KeepCheckpoints", InTurn):
                run(cfg, Path(folder) / "run")
            results[f"{name}, {'with' if InTurn.best else 'without'} best weights"] = {
                key: dict(zip(NAMES, (1000 * np.median(rows, axis=0)).round(3).tolist(), strict=True))
                for key, rows in InTurn.spent.items()
            }
    return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--only", default="", help="networks whose names begin so")
    parser.add_argument("--out", type=Path, help="JSON file")
    chosen, overrides = parser.parse_known_args()
    names = [name for name in NETWORKS if name.startswith(chosen.only)]
    results = measure(names, chosen.epochs, overrides)
    for what, found in results.items():
        print(what, *(f"{key}: {value}" for key, value in found.items()), sep="\n  ")
    write(results, chosen.out)


if __name__ == "__main__":
    main()
