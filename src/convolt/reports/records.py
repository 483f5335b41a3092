"""What reports know of runs: one run, a row of runs that differ in the seed, and a study or sweep of such rows."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from convolt.runs.files import Json, RunFiles

if TYPE_CHECKING:
    from convolt.reports.candidates import CandidatesRecord
    from convolt.reports.decisions import Settling, Tuning

State = Literal["finished", "running", "interrupted", "cut off", "failed", "missing"]


def finite(value: object) -> float | None:
    """Return a finite number as float; None for anything else, `true` and text included."""
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    return number if math.isfinite(number) else None


@dataclass(frozen=True)
class RunRecord:
    """What is known of one training run on disk, or of the place where a study expects one.

    Attributes:
        path: The run directory.
        seed: Its seed; None where it is not recorded.
        state: "running" with a free lock is "cut off"; "missing" left no status.
        reason: Why there is no result, in one line; empty for finished runs.
        result: The content of `result.json`; empty unless finished.
        overrides: The Hydra overrides that it was started with, without the seed.
    """

    path: Path
    seed: int | None
    state: State
    reason: str = ""
    result: Json = field(default_factory=dict)
    overrides: tuple[str, ...] = ()

    @property
    def key(self) -> int | str:
        """What pairs this run with one of another row: its seed; the path where there is none."""
        return str(self.path) if self.seed is None else self.seed

    def number(self, key: str) -> float | None:
        """Return a metric ("test/accuracy") or a top-level number ("seconds") of the result.

        Args:
            key: A key of `metrics`, or of `result.json` itself.

        Returns:
            The number; None where it is absent or not finite.
        """
        return finite(self.result.get("metrics", {}).get(key, self.result.get(key)))

    @property
    def diverged(self) -> bool:
        """Whether the loss of a run without a test became infinite, which ends it with a result without metrics."""
        return bool(self.result.get("diverged"))

    @property
    def extended(self) -> str:
        """Say that the run was tested before and then trained for more epochs; empty if it was not."""
        changes = self.result.get("changed_settings")
        found = [
            (epochs, each.get("earlier_result"))
            for each in (changes if isinstance(changes, list) else [])
            if isinstance(each, dict) and (epochs := (each.get("changes") or {}).get("trainer.max_epochs"))
        ]
        last = found[-1][0][1] if found else 0  # one that was cut off may have been given fewer again
        earlier = [(before, result) for (before, _), result in found if result and before < last]
        tested = dict.fromkeys(before for before, result in earlier if result.get("metrics") != {})  # no trial
        return f"tested before, extended from {' to '.join(map(str, [*tested, last]))} epochs" if tested else ""

    def provenance(self, key: str) -> str:
        """Return one of the facts that a result depends on, as text.

        Args:
            key: "git_commit", "dataset_hash", "device", "precision", "checkpoint" or "torch".

        Returns:
            The value; "not recorded" if the run has none.
        """
        value = self.result.get(key, self.result.get("versions", {}).get(key))
        if key == "precision" and value is None:
            value = (RunFiles(self.path).raw_settings().get("trainer") or {}).get("precision")
        return "not recorded" if value is None else str(value)


@dataclass(frozen=True)
class Row:
    """One row of a table: the runs that differ in the seed only.

    Attributes:
        name: As shown; for a study with swept overrides, the study's row and the swept values.
        base: The study's row without the swept values.
        swept: The swept overrides, e.g. "optim.lr=0.1"; empty where nothing is swept.
        runs: By seed.
        overrides: What makes this row.
        published: Published metrics as fractions, and their "source"; empty where there are none.
        published_per_class: Published numbers of each class.
        note: What the study's author wrote about the row.
        untuned: Of a tuned row, the runs at its option's own defaults.
    """

    name: str
    base: str
    swept: str
    runs: tuple[RunRecord, ...]
    overrides: tuple[str, ...] = ()
    published: Mapping[str, Any] = field(default_factory=dict)
    published_per_class: tuple[Json, ...] = ()
    note: str = ""
    untuned: tuple[RunRecord, ...] = ()

    @property
    def finished(self) -> tuple[RunRecord, ...]:
        """The runs that have a result."""
        return tuple(run for run in self.runs if run.state == "finished")

    def values(self, key: str) -> dict[int | str, float]:
        """Return a number of every finished run that has it, by seed."""
        return {run.key: value for run in self.finished if (value := run.number(key)) is not None}

    def mean(self, key: str) -> float | None:
        """Return the mean of a number over the finished runs; None where no run has it."""
        values = self.values(key)
        return fmean(values.values()) if values else None

    def per_class(self) -> dict[str, dict[str, float]]:
        """Return the per-class numbers, each the mean over the finished runs, by class in the dataset's order."""
        sums: dict[str, dict[str, list[float]]] = {}
        for run in self.finished:
            for entry in (each for each in run.result.get("per_class") or [] if isinstance(each, dict)):
                numbers = sums.setdefault(str(entry.get("class")), {})
                for key, value in entry.items():
                    if key != "class" and (number := finite(value)) is not None:
                        numbers.setdefault(key, []).append(number)
        return {name: {key: fmean(each) for key, each in entry.items()} for name, entry in sums.items()}


@dataclass(frozen=True)
class StudyRecord:
    """What is known of a study, of a sweep, or of single runs compared with each other, row by row.

    Attributes:
        path: The folder.
        kind: What it is.
        name: The study's name, or the folder's.
        title: For the page's head.
        rows: In the order of the study; a sweep's in natural order.
        question: What the study asks.
        base: Overrides that every row shares.
        fixed: Overrides given on the command line for every row.
        baseline: The row that the others are compared with.
        notes: One-line remarks about the folder as a whole.
        tuning: How its rows were tuned; None: not at all.
        settling: By what plan seeds were added; None: the seeds were fixed.
        candidates: Settings that were tried for what a published report leaves open; None: none.
        source: The bundle that was unpacked to the folder; None where the runs are where they ran.
    """

    path: Path
    kind: Literal["study", "sweep", "runs", "search"]
    name: str
    title: str
    rows: tuple[Row, ...]
    question: str = ""
    base: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    baseline: str | None = None
    notes: tuple[str, ...] = ()
    tuning: "Tuning | None" = None
    settling: "Settling | None" = None
    candidates: "CandidatesRecord | None" = None
    source: Path | None = None

    @property
    def shown_path(self) -> Path:
        """What the user has typed: the folder, or the bundle."""
        return self.source or self.path

    @property
    def runs(self) -> tuple[RunRecord, ...]:
        """All runs, row by row."""
        return tuple(run for row in self.rows for run in row.runs)

    @property
    def states(self) -> dict[str, int]:
        """How many runs are in each state, the most frequent first; of a search, those of its trials."""
        runs = self.tuning.runs if self.kind == "search" and self.tuning else self.runs
        return dict(Counter(run.state for run in runs).most_common())

    @property
    def headline(self) -> str:
        """The metric by which the runs are judged: what most of them name, or else test/accuracy."""
        named = Counter(str(run.result["headline"]) for run in self.runs if run.result.get("headline"))
        return named.most_common(1)[0][0] if named else "test/accuracy"

    def baseline_of(self, row: Row) -> Row | None:
        """Return the baseline row with the same swept values as `row`; None for a baseline itself or where none is."""
        if self.baseline in (None, row.name, row.base):
            return None
        same = [other for other in self.rows if other.base == self.baseline and other.swept == row.swept]
        named = [other for other in self.rows if other.name == self.baseline]
        return next(iter(same + named), None)
