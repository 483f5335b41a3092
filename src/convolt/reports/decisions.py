"""What a study has decided by itself, as its `study.json` says: tuned settings, and differences that are settled."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from convolt.reports.formats import Metric
from convolt.reports.records import RunRecord, finite
from convolt.runs.files import Json

CLAIMS = ("told", "negligible")
VERDICTS = (*CLAIMS, "hopeless", "open", "undecided", "excluded")

ReadRun = Callable[[Path, int | None], RunRecord]


@dataclass(frozen=True)
class TrialRun:
    """One run of a trial.

    Attributes:
        run: What is on disk.
        score: Its validation metric; None where it has none (yet), or where it diverged.
        diverged: Whether its loss became infinite.
    """

    run: RunRecord
    score: float | None
    diverged: bool


@dataclass(frozen=True)
class TrialRecord:
    """One setting of the tuned keys.

    Attributes:
        number: Counted from 0.
        values: By key.
        runs: One for each tuning seed.
    """

    number: int
    values: Mapping[str, Any]
    runs: tuple[TrialRun, ...]

    @property
    def diverged(self) -> bool:
        """Whether any of its runs did, which makes it the worst there is."""
        return any(run.diverged for run in self.runs)

    @property
    def finished(self) -> bool:
        """Whether all its runs have a score or diverged."""
        return all(run.diverged or run.score is not None for run in self.runs)

    @property
    def score(self) -> float | None:
        """The mean over the tuning seeds; None for one that diverged or has not finished."""
        scores = [run.score for run in self.runs if run.score is not None]
        return fmean(scores) if scores and len(scores) == len(self.runs) and not self.diverged else None


@dataclass(frozen=True)
class ChoiceRecord:
    """What a row is run with.

    Attributes:
        trial: The number of the best trial.
        values: Its values by key.
        score: Its score; None where every trial diverged.
        edges: The keys of which no larger, or no smaller, value was tried, by the side: "low" or "high".
    """

    trial: int
    values: Mapping[str, Any]
    score: float | None
    edges: Mapping[str, str]


@dataclass(frozen=True)
class TunedRow:
    """The tuning of one row with one combination of swept values.

    Attributes:
        base: The study's row.
        swept: The swept overrides; empty where nothing is swept.
        space: By key, a list of values, or an object with `low`, `high` and `log`.
        trials: In the order of their numbers.
        choice: None until all trials have finished.
    """

    base: str
    swept: str
    space: Mapping[str, Any]
    trials: tuple[TrialRecord, ...]
    choice: ChoiceRecord | None

    @property
    def name(self) -> str:
        """As the row of a table is called."""
        return ", ".join(filter(None, (self.base, self.swept))) or "search"

    def is_log(self, key: str) -> bool:
        """Tell whether equal ratios of a key count alike."""
        return isinstance(self.space.get(key), dict) and bool(self.space[key].get("log"))


@dataclass(frozen=True)
class Tuning:
    """How the rows of a study were tuned.

    Attributes:
        seeds: Of each trial.
        monitor: The metric that chooses.
        rows: In the study's order.
    """

    seeds: tuple[int, ...]
    monitor: Metric
    rows: tuple[TunedRow, ...]

    @property
    def keys(self) -> list[str]:
        """Every tuned key, in the order of the spaces."""
        return list(dict.fromkeys(key for row in self.rows for key in row.space))

    @property
    def seed_list(self) -> str:
        """The seeds as text: "seed 1000", "seeds 1000, 1001"."""
        return f"seed{'s' if len(self.seeds) > 1 else ''} {', '.join(map(str, self.seeds))}"

    @property
    def runs(self) -> tuple[RunRecord, ...]:
        """The runs of all trials."""
        return tuple(each.run for row in self.rows for trial in row.trials for each in trial.runs)

    def choice_of(self, base: str, swept: str) -> ChoiceRecord | None:
        """Return what a row is run with; None where nothing is chosen (yet)."""
        return next((row.choice for row in self.rows if (row.base, row.swept) == (base, swept)), None)


@dataclass(frozen=True)
class VerdictRecord:
    """How far the comparison of a row with the baseline is.

    Attributes:
        word: One of `VERDICTS`.
        n: Seeds of the look; None before the first, and for an excluded row.
        mean: Of the paired differences at that look.
        low: Lower end of the repeated confidence interval.
        high: Its upper end.
        reason: Why the row is excluded.
    """

    word: str
    n: int | None = None
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    @property
    def half_width(self) -> float | None:
        """Half of the interval; None where there is none, which is so too where all differences are the same."""
        if self.mean is None or self.high is None or self.high == self.low:
            return None
        return self.high - self.mean


@dataclass(frozen=True)
class Settling:
    """The plan by which a study adds seeds, and what it has come to.

    Attributes:
        looks: Numbers of seeds at which the differences are judged.
        error: The chance of any wrong verdict in the whole study.
        margin: Differences smaller than this do not matter; None: no row is called negligible.
        metric: What is judged.
        comparisons: Rows beside the baseline, times swept values.
        critical_values: By look, what the standard error is multiplied by.
        verdicts: By the study's row and the swept overrides.
    """

    looks: tuple[int, ...]
    error: float
    margin: float | None
    metric: Metric
    comparisons: int
    critical_values: tuple[float, ...]
    verdicts: Mapping[tuple[str, str], VerdictRecord]

    @property
    def level(self) -> str:
        """The confidence of all intervals together, such as "95%"."""
        return f"{100 * (1 - self.error):g}%"


def join_swept(overrides: Any) -> str:
    """Return swept overrides as a row is named for them."""
    return ", ".join(map(str, overrides or ()))


def read_tuning(spec: Json, path: Path, read_run: ReadRun) -> Tuning | None:
    """Read the tuning of a study.

    Args:
        spec: The content of `study.json`.
        path: The study's folder.
        read_run: Reads the run in a folder, of a seed.

    Returns:
        The tuning; None for a study that tunes nothing.

    Raises:
        ValueError: It is damaged.
    """
    if (block := spec.get("tuning")) is None:
        return None
    try:
        monitor = Metric(str(block["monitor"]))
        rows = tuple(_read_tuned_row(cell, monitor, path, read_run) for cell in block["cells"])
        return Tuning(tuple(map(int, block["seeds"])), monitor, rows)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"tuning: {_describe(error)}") from None


def _read_tuned_row(cell: Json, monitor: Metric, path: Path, read_run: ReadRun) -> TunedRow:
    trials, space = [], dict(cell["space"])
    for entry in cell["trials"]:
        for key, values in space.items():
            value = entry["values"][key]
            if value not in values if isinstance(values, list) else finite(value) is None:
                raise ValueError(f"trial {entry['number']} of {cell['row']} has {key}={value}")
        runs = tuple(_read_trial_run(each, monitor, path, read_run) for each in entry["runs"])
        trials.append(TrialRecord(int(entry["number"]), dict(entry["values"]), runs))
    choice = None
    if (chosen := cell["choice"]) is not None:
        edges = {str(key): str(side) for key, side in (chosen.get("edges") or {}).items()}
        choice = ChoiceRecord(int(chosen["trial"]), dict(chosen["values"]), finite(chosen["score"]), edges)
    trials.sort(key=lambda trial: trial.number)
    return TunedRow(str(cell["row"]), join_swept(cell.get("swept")), space, tuple(trials), choice)


def _read_trial_run(entry: Json, monitor: Metric, path: Path, read_run: ReadRun) -> TrialRun:
    """Read one run; one that finished after `study.json` was written has its score in its result."""
    run, score, diverged = read_run(path / entry["dir"], entry.get("seed")), finite(entry.get("score")), False
    if entry.get("diverged"):
        score, diverged = None, True
    elif score is None:
        score = run.number(monitor.name)
    return TrialRun(run, score, diverged)


def read_settling(spec: Json) -> Settling | None:
    """Read the plan of a settling study and its verdicts.

    Args:
        spec: The content of `study.json`.

    Returns:
        The plan; None for a study of fixed seeds.

    Raises:
        ValueError: It is damaged.
    """
    if (block := spec.get("settling")) is None:
        return None
    try:
        return Settling(
            tuple(map(int, block["looks"])),
            float(block["error"]),
            None if block["margin"] is None else float(block["margin"]),
            Metric(str(block["metric"])),
            int(block["comparisons"]),
            tuple(map(float, block["critical_values"])),
            {(str(each["row"]), join_swept(each.get("swept"))): _read_verdict(each) for each in block["verdicts"]},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"settling: {_describe(error)}") from None


def _read_verdict(entry: Json) -> VerdictRecord:
    word, n = entry["verdict"], entry.get("n")
    if word not in VERDICTS:
        raise ValueError(f"the verdict of {entry['row']} is '{word}'")
    mean, low, high = (finite(entry.get(key)) for key in ("mean", "low", "high"))
    if word not in ("undecided", "excluded") and (n is None or mean is None or low is None or high is None):
        raise ValueError(f"{entry['row']} is {word}, without an interval")
    return VerdictRecord(word, None if n is None else int(n), mean, low, high, str(entry.get("reason") or ""))


def _describe(error: Exception) -> str:
    return f"there is no {error}" if isinstance(error, KeyError) else str(error)
