"""What a run takes, from short runs of its settings: about a second of steps, evaluated, tested, drawn and written."""

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from convolt.config.settings import Settings
from convolt.runs.files import PREDICTIONS, Json, RunFiles
from convolt.runs.history import Row, read_rows
from convolt.sweeps.jobs import Job, State
from convolt.system.files import count_bytes

RunAll = Callable[[Sequence[Job]], None]
"""Runs jobs to their end, and sets the state and result of each."""

_SECONDS = 1.0
"""Of training steps."""

_FIRST_BATCHES, _FEWEST_BATCHES = 2, 4
_FORWARD_SHARE = 1 / 3
"""Of a training step's time, an evaluation's: the backward pass takes about twice the forward pass."""


@dataclass(frozen=True)
class Measurement:
    """What a run of some settings takes.

    Attributes:
        start_seconds: Once: building, the first steps' excess, the last files.
        epoch_seconds: A whole epoch with its evaluation and checkpoint.
        test_seconds: The test, and the pictures after it.
        threads: CPU threads.
        device: As a result records it.
        memory_bytes: At its peak: a GPU's memory, else the process's.
        disk_bytes: Without checkpoints and what the test leaves.
        checkpoint_bytes: Checkpoints.
        test_bytes: Predictions and pictures.
        cores: Processor time to a second of the clock; on a machine that others share, less than its threads.
    """

    start_seconds: float
    epoch_seconds: float
    test_seconds: float
    threads: int
    device: str
    memory_bytes: int
    disk_bytes: int
    checkpoint_bytes: int
    test_bytes: int
    cores: float

    def seconds(self, epochs: int, *, tested: bool) -> float:
        """Return what a run of so many epochs takes."""
        return self.start_seconds + epochs * self.epoch_seconds + (self.test_seconds if tested else 0)


def measure_runs(jobs: Sequence[Job], run_all: RunAll) -> list[Measurement | None]:
    """Measure what runs would take, by two short ones of each: the first finds how many steps take a second.

    Args:
        jobs: What is measured; unchanged, and nothing is written to their directories.
        run_all: Runs the short ones.

    Returns:
        None where a short run failed.
    """
    with tempfile.TemporaryDirectory(prefix="convolt-measure-") as folder:
        first = [
            _shorten(
                job, Path(folder) / f"first{n}", {"debug.limit_batches": _FIRST_BATCHES, "pictures.enabled": False}
            )
            for n, job in enumerate(jobs)
        ]
        run_all(first)
        second = {
            n: _shorten(jobs[n], Path(folder) / f"second{n}", _choose_size(jobs[n], short))
            for n, short in enumerate(first)
            if short.state == State.FINISHED
        }
        run_all(list(second.values()))
        return [
            _extrapolate(jobs[n], first[n], second[n]) if n in second and second[n].state == State.FINISHED else None
            for n in range(len(jobs))
        ]


def is_tested(settings: Settings) -> bool:
    """Tell whether a run opens the test images; a trial does not."""
    return str(settings.trainer.test) != "none"


def _shorten(job: Job, run_dir: Path, changes: dict[str, int | bool]) -> Job:
    """Return a job of fewer batches and epochs."""
    settings = Settings.of(job.cfg)
    limit = settings.debug.limit_batches
    batches = int(changes["debug.limit_batches"])
    cfg = settings.replaced(
        {"debug.epochs": 2, **changes, "debug.limit_batches": min(batches, limit or batches), "force": False}
    ).cfg
    return Job(job.name, cfg, run_dir, environment=job.environment)


def _choose_size(job: Job, short: Job) -> dict[str, int | bool]:
    """Return how many batches and epochs take a second, at least: two epochs, of which the first warms up."""
    times = _Times.of(job, short)
    steps = times.count("train") / times.batch
    batches = max(_FEWEST_BATCHES, math.ceil(_SECONDS / (times.image_seconds * times.batch)))
    if batches < steps:
        return {"debug.limit_batches": batches, "debug.epochs": 2}
    epochs = 1 + math.ceil(_SECONDS / (times.image_seconds * times.count("train")))
    return {"debug.limit_batches": math.ceil(steps), "debug.epochs": max(2, min(epochs, Settings.of(job.cfg).epochs))}


@dataclass(frozen=True)
class _Times:
    """What the epochs of a short run say, the first one left out.

    Attributes:
        settings: Of the short run.
        whole: Batches of each split at most in the run that is measured; None: all.
        result: Of the short run.
        rows: Its epochs.
    """

    settings: Settings
    whole: int | None
    result: Json
    rows: Sequence[Row]

    @classmethod
    def of(cls, job: Job, short: Job) -> "_Times":
        """Read a finished short run."""
        assert short.result is not None
        rows = read_rows(RunFiles(short.run_dir).history_file)
        return cls(Settings.of(short.cfg), Settings.of(job.cfg).debug.limit_batches, short.result, rows)

    @property
    def batch(self) -> int:
        """Training images of a batch."""
        return int(self.result["batch_size"])

    @property
    def image_seconds(self) -> float:
        """What a training image takes."""
        return fmean(1 / row["images_per_second"] for row in self.rows[1:])

    @property
    def rest_seconds(self) -> float:
        """What an epoch takes beside its training."""
        return self.epoch_seconds - self.image_seconds * self.count("train", short=True)

    @property
    def epoch_seconds(self) -> float:
        """What an epoch of the short run takes."""
        return fmean(row["seconds"] for row in self.rows[1:])

    def count(self, split: str, *, short: bool = False) -> int:
        """Return the images of a split in an epoch, of the whole run or of the short one."""
        copies = self.settings.cfg.augmentation.get("copies", 0) if split == "train" else 0
        images = int(self.result["images"].get(split, 0)) * (1 + copies)
        size = self.batch if split == "train" else self.settings.data.eval_batch_size or max(self.batch, 256)
        limit = self.settings.debug.limit_batches if short else self.whole
        return images if limit is None else min(images, limit * size)


def _extrapolate(job: Job, first: Job, second: Job) -> Measurement:
    """Work out a whole run from two short ones."""
    few, more = _Times.of(job, first), _Times.of(job, second)
    counts = [each.count("val", short=True) for each in (few, more)]
    if not counts[1]:
        evaluation = _FORWARD_SHARE * more.image_seconds
        overhead = more.rest_seconds
    else:
        evaluation = more.rest_seconds / counts[1]
        if counts[1] > counts[0]:
            evaluation = min(evaluation, max(0, (more.rest_seconds - few.rest_seconds) / (counts[1] - counts[0])))
        overhead = more.rest_seconds - evaluation * counts[1]
    tested = is_tested(Settings.of(job.cfg))
    images = (more.count("test", short=True), more.count("test")) if tested else (0, 0)
    pictures = float(more.result.get("pictures_seconds", 0))
    files = RunFiles(second.run_dir)
    predictions = count_bytes(files.path / PREDICTIONS)
    drawn = count_bytes(files.path / "figures")
    checkpoints = count_bytes(files.checkpoints)
    once = more.result["seconds"] - len(more.rows) * more.epoch_seconds - images[0] * evaluation - pictures
    return Measurement(
        start_seconds=max(0, once),
        epoch_seconds=more.count("train") * more.image_seconds + more.count("val") * evaluation + overhead,
        test_seconds=images[1] * evaluation + pictures,
        threads=int(more.result["threads"]),
        device=str(more.result["device"]),
        memory_bytes=int(more.result["peak_memory_bytes"]),
        disk_bytes=count_bytes(files.path) - predictions - drawn - checkpoints,
        checkpoint_bytes=checkpoints,
        test_bytes=drawn + (round(predictions * images[1] / images[0]) if images[0] else predictions),
        cores=more.result["cpu_seconds"] / more.result["seconds"],
    )
