"""What the steps of gpu.py are made of: a step, its place, and the project's commands as a user types them."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LAST_LINES = 15
"""Lines of a command's output that are shown where it fails."""

KEPT_LINES = 80
"""Lines of a step's output that its row keeps where it fails."""


class FailedError(Exception):
    """A step did not show what it was to show."""


class LeftOutError(Exception):
    """A step cannot be done here."""


@dataclass(frozen=True)
class Step:
    """Something to check or to measure, in a process of its own.

    Attributes:
        name: By which it is chosen.
        work: Returns its figures, or raises.
        limit: Seconds after which it is killed.
        about: Seconds that it is guessed to take on an H100; it is left out where less time than that remains.
        needs: Packages beyond those that every run imports.
        cuda: Whether it makes sense on a GPU only.
        small: Whether `--small` does it too.
        alone: Whether nothing may run beside it.
    """

    name: str
    work: Callable[["Place"], dict[str, Any]]
    limit: float
    about: float
    needs: tuple[str, ...] = ()
    cuda: bool = False
    small: bool = True
    alone: bool = False


@dataclass(frozen=True)
class Place:
    """Where a step works.

    Attributes:
        folder: Its own, empty.
        data: The folder of prepared datasets.
        cuda: Whether there is a GPU.
        small: Tiny images, few epochs.
    """

    folder: Path
    data: Path
    cuda: bool
    small: bool

    @cached_property
    def images(self) -> Path:
        """A folder of generated images of ten classes, each a pattern in noise, as data=arrays reads it."""
        import numpy as np

        folder = self.folder / "arrays"
        folder.mkdir()
        random = np.random.default_rng(0)
        patterns = random.integers(0, 128, (10, 32, 32, 3), np.uint8)
        for split, count in (("train", 200 if self.small else 8192), ("test", 50 if self.small else 500)):
            labels = np.arange(count) % 10
            noise = random.integers(0, 128, (count, 32, 32, 3), np.uint8)
            np.save(folder / f"x_{split}.npy", patterns[labels] + noise)
            np.save(folder / f"y_{split}.npy", labels)
        return folder

    @property
    def hardware(self) -> list[str]:
        """The overrides that name the device, so that no run takes another one without a word."""
        return ["trainer=gpu"] if self.cuda else ["trainer=cpu", "trainer.threads=1"]

    @property
    def on_images(self) -> list[str]:
        """The overrides of a run on the generated images."""
        return [*self.hardware, "data=arrays", f"data.path={self.images}", f"data.root={self.folder / 'data'}",
                "pictures.enabled=false"]  # fmt: skip

    def train(self, name: str, *overrides: str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Run `python train.py` on the generated images, in a folder of that name; return its result."""
        command("train.py", *self.on_images, f"hydra.run.dir={self.folder / name}", *overrides, env=env)
        return result_of(self.folder / name)

    def sweep(
        self, name: str, runs: int, *overrides: str, slots: int | str, env: Mapping[str, str] | None = None
    ) -> tuple[list[dict[str, Any]], str]:
        """Run a sweep over so many seeds, so many at a time on the one device; return the results, and what it said."""
        folder = self.folder / name
        share = [f"hydra.launcher.jobs_per_gpu={slots}"] if self.cuda else []
        line = ["-m", f"seed=range({runs})", *self.on_images, f"hydra.launcher.n_jobs={slots}", *share]
        said = command("train.py", *line, f"hydra.sweep.dir={folder}", *overrides, env=env)
        results = [result_of(file.parent) for file in sorted(folder.glob("*/result.json"))]
        expect(len(results) == runs, f"{len(results)} of {runs} runs have a result\n{tail(said)}")
        return results, said


def result_of(run: Path) -> dict[str, Any]:
    """Return a run's result."""
    result: dict[str, Any] = json.loads((run / "result.json").read_text())
    return result


def epochs_of(run: Path) -> list[dict[str, float]]:
    """Return the rows of a run's metrics.csv."""
    with (run / "metrics.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def command(script: str, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """Run a script of the project to its end; return its standard output.

    Raises:
        FailedError: Where its exit status is not 0.
    """
    line = [sys.executable, str(ROOT / script), *arguments]
    done = subprocess.run(line, env=os.environ | dict(env or {}), capture_output=True, text=True, check=False)
    if done.returncode:
        said = tail(done.stdout + done.stderr)
        raise FailedError(f"exit status {done.returncode}: {script} {' '.join(arguments)}\n{said}")
    return done.stdout


def tail(text: str, lines: int = LAST_LINES) -> str:
    """Return the last lines of an output, long ones shortened."""
    return "\n".join(line[-400:] for line in text.rstrip().splitlines()[-lines:])


def expect(holds: bool, otherwise: str) -> None:
    """Raise where something does not hold.

    Raises:
        FailedError: With what is the case instead.
    """
    if not holds:
        raise FailedError(otherwise)
