"""Which runs a study needs next: trials of tuned settings, then seeds until every difference is settled.

A schedule is a pure function of the study and of the results that there are, so that the same command goes on after
any kill, and two people who start a study at once decide alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from convolt.reports.sequential import USUAL_ERROR, USUAL_LOOKS, Design, Judgment, critical_values, judge
from convolt.sweeps.tuning import Choice, Space, Trial, Tune, choose, edges_of, farthest_trials, trials

Swept = tuple[str, ...]
Cell = tuple[str, Swept]
"""A row of the study with one combination of the swept values."""

UNTUNED_SEEDS = 3
"""Runs of a tuned row at its option's own defaults."""


class Settle(BaseModel):
    """The block `settle` of a study's page.

    Attributes:
        looks: Numbers of seeds at which the differences from the baseline are judged.
        error: The chance of any wrong verdict in the whole study.
        margin: Differences smaller than this do not matter; None: no row is called negligible.
        metric: What is judged.
    """

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)

    looks: list[Annotated[int, Field(ge=2)]] = Field(default=list(USUAL_LOOKS), min_length=1)
    error: Annotated[float, Field(gt=0, lt=0.5)] = USUAL_ERROR
    margin: Annotated[float, Field(gt=0)] | None = 0.003
    metric: str = "test/accuracy"

    @model_validator(mode="after")
    def _check(self) -> "Settle":
        if any(later <= earlier for earlier, later in zip(self.looks, self.looks[1:], strict=False)):
            raise ValueError(f"looks must increase, not {self.looks}")
        return self


@dataclass(frozen=True)
class StudyRun:
    """One run of a study.

    Attributes:
        kind: "trial" of a tuned setting, "run" of a row, "untuned": a tuned row at its option's own defaults, or
            "candidate": a row with settings that a published table leaves open.
        row: The study's row.
        swept: The values of the swept overrides.
        seed: The run's seed.
        trial: Of a trial, which; of a run of a tuned row, the one that was chosen.
        candidate: Of a candidate, its name.
    """

    kind: Literal["trial", "run", "untuned", "candidate"]
    row: str
    swept: Swept
    seed: int
    trial: Trial | None = None
    candidate: str = ""


@dataclass(frozen=True)
class Finished:
    """What a schedule needs of a finished run.

    Attributes:
        score: Of a trial, the metric that chooses checkpoints, at the checkpoint that would be tested.
        value: Of a run, the metric that is judged; None where the result lacks it.
        diverged: Whether its loss became infinite: a trial's worst score, the end of a row's comparison.
        lower_is_better: Whether the score is a loss.
    """

    score: float | None = None
    value: float | None = None
    diverged: bool = False
    lower_is_better: bool = False


Results = Callable[[StudyRun], Finished | None]
"""Looks a run's result up; None where it has none (yet)."""


@dataclass(frozen=True)
class RowVerdict:
    """How far the comparison of a row with the baseline is.

    Attributes:
        judgment: At the look at which it stopped, or the last one reached; None before the first.
        excluded: Why the row is left out; empty where it is not.
    """

    judgment: Judgment | None = None
    excluded: str = ""

    @property
    def stopped(self) -> bool:
        """Whether the row needs no more seeds."""
        return bool(self.excluded) or (self.judgment is not None and self.judgment.verdict != "undecided")


@dataclass(frozen=True)
class Schedule:
    """A study's rows, seeds and blocks.

    Attributes:
        rows: Names, in the study's order.
        baseline: The row that the others are compared with.
        swept: The combinations of swept values; one empty one where nothing is swept.
        seeds: Of the page, in its order; a settling study continues them.
        tune: How rows are tuned; None: not at all.
        spaces: Rows with a space of their own.
        settle: When seeds are enough; None: the page's seeds.
        critical_values: By look, where a former start of the study has recorded them; None: worked out.
    """

    rows: Sequence[str]
    baseline: str
    swept: Sequence[Swept]
    seeds: Sequence[int]
    tune: Tune | None = None
    spaces: dict[str, Space] = field(default_factory=dict)
    settle: Settle | None = None
    critical_values: tuple[float, ...] | None = None

    @property
    def cells(self) -> list[Cell]:
        """Every row with every combination of swept values."""
        return list(product(self.rows, self.swept))

    @property
    def comparisons(self) -> int:
        """Rows beside the baseline, times combinations of swept values."""
        return max(1, (len(self.rows) - 1) * len(self.swept))

    def all_seeds(self) -> list[int]:
        """Return the seeds that may run, in order: the page's, and those that continue them up to the last look."""
        return list(self.seeds) if self.settle is None else continue_seeds(self.seeds, self.settle.looks[-1])

    def space(self, row: str) -> Space:
        """Return the space of a row."""
        assert self.tune is not None
        return self.spaces.get(row, self.tune.space)

    def runs(self, results: Results) -> list[StudyRun]:
        """Return all runs that are known to be needed, given the results so far; finished ones too."""
        planned = self.trial_runs(results)
        choices = self.choices(results)
        known = self.cells if self.tune is None else [cell for cell in self.cells if cell in choices]
        seeds = self._seeds_wanted(results, choices)
        runs = [
            StudyRun("run", row, swept, seed, choices[row, swept].trial if self.tune else None)
            for seed, (row, swept) in product(self.all_seeds(), known)
            if seed in seeds[row, swept]
        ]
        untuned = [
            StudyRun("untuned", row, swept, seed)
            for seed, (row, swept) in product(self.all_seeds()[:UNTUNED_SEEDS], known if self.tune else [])
        ]
        return [*planned, *runs, *untuned]

    def unchosen_runs(self, results: Results) -> list[StudyRun]:
        """Return the runs to come of rows that are not tuned yet, as far as their number is known: without a choice."""
        if self.tune is None:
            return []
        choices = self.choices(results)
        cells = [cell for cell in self.cells if cell not in choices]
        seeds = self.all_seeds()[: self.settle.looks[0]] if self.settle else self.all_seeds()
        runs = [StudyRun("run", row, swept, seed) for seed, (row, swept) in product(seeds, cells)]
        untuned = product(self.all_seeds()[:UNTUNED_SEEDS], cells)
        return [*runs, *(StudyRun("untuned", row, swept, seed) for seed, (row, swept) in untuned)]

    # Tuning

    def trial_runs(self, results: Results) -> list[StudyRun]:
        """Return the trials of all rows, those of extensions where earlier ones have finished."""
        if self.tune is None:
            return []
        edges = self._extensions(results)
        return [
            StudyRun("trial", row, swept, seed, trial)
            for row, swept in self.cells
            for trial in trials(self.space(row), self.tune.trials, edges)
            for seed in self.tune.seeds
        ]

    def trial_corners(self) -> list[StudyRun]:
        """Return the trials of the first round, and those farthest out that extensions may reach, with one seed."""
        if self.tune is None:
            return []
        seed = self.tune.seeds[0]
        return [
            StudyRun("trial", row, swept, seed, trial)
            for row, swept in self.cells
            for trial in [
                *trials(self.space(row), self.tune.trials),
                *farthest_trials(self.space(row), self.tune.extend),
            ]
        ]

    def choices(self, results: Results) -> dict[Cell, Choice]:
        """Return what each row is run with; rows of which a trial has no result are missing."""
        if self.tune is None:
            return {}
        edges = self._extensions(results)
        complete = len(edges) == self.tune.extend or self._edges(results, edges) == {}
        return self._choices(results, edges) if complete else {}

    def _extensions(self, results: Results) -> list[dict[str, set[str]]]:
        """Return beyond which edges each extension looks."""
        assert self.tune is not None
        found: list[dict[str, set[str]]] = []
        while len(found) < self.tune.extend and (edges := self._edges(results, found)):
            found.append(edges)
        return found

    def _edges(self, results: Results, so_far: Sequence[dict[str, set[str]]]) -> dict[str, set[str]] | None:
        """Return the edges at which choices lie after some extensions; None where a trial is missing."""
        choices = self._choices(results, so_far)
        return edges_of(list(choices.values())) if len(choices) == len(self.cells) else None

    def _choices(self, results: Results, edges: Sequence[dict[str, set[str]]]) -> dict[Cell, Choice]:
        assert self.tune is not None
        chosen = {}
        for row, swept in self.cells:
            space = self.space(row)
            tried = []
            lower = False
            for trial in trials(space, self.tune.trials, edges):
                found = [results(StudyRun("trial", row, swept, seed, trial)) for seed in self.tune.seeds]
                if any(each is None for each in found):
                    break
                scores = [float("nan") if r.diverged or r.score is None else r.score for r in found if r]
                lower = lower or any(r.lower_is_better for r in found if r)
                tried.append((trial, scores))
            else:
                chosen[row, swept] = choose(tried, space, lower_is_better=lower)
        return chosen

    # Settling

    @property
    def design(self) -> Design:
        """The looks with their critical values."""
        assert self.settle is not None
        looks, error, margin = tuple(self.settle.looks), self.settle.error, self.settle.margin
        values = self.critical_values or critical_values(looks, error, self.comparisons)
        return Design(looks, error, self.comparisons, margin, values)

    def verdicts(self, results: Results) -> dict[Cell, RowVerdict]:
        """Judge every row beside the baseline, look by look, as far as its results and the baseline's reach."""
        return self._settled(results, self.choices(results))[0]

    def _seeds_wanted(self, results: Results, choices: dict[Cell, Choice]) -> dict[Cell, set[int]]:
        if self.settle is None:
            return {cell: set(self.seeds) for cell in self.cells}
        return self._settled(results, choices)[1]

    def _settled(
        self, results: Results, choices: dict[Cell, Choice]
    ) -> tuple[dict[Cell, RowVerdict], dict[Cell, set[int]]]:
        """Return the verdicts, and the seeds that each row has run or is to run."""
        assert self.settle is not None
        design, seeds = self.design, self.all_seeds()
        verdicts: dict[Cell, RowVerdict] = {}
        wanted: dict[Cell, set[int]] = {cell: set() for cell in self.cells}
        for cell in self.cells:
            baseline = (self.baseline, cell[1])
            wanted[cell] |= set(seeds[: self.settle.looks[0]])
            if cell == baseline:
                continue
            verdicts[cell] = RowVerdict()
            for n in self.settle.looks:
                wanted[cell] |= set(seeds[:n])
                wanted[baseline] |= set(seeds[:n])
                own, base = (
                    [self._value(results, each, seed, choices) for seed in seeds[:n]] for each in (cell, baseline)
                )
                if None in own or None in base:
                    break
                verdicts[cell] = _verdict(design, own, base, seeds)
                if verdicts[cell].stopped:
                    break
        return verdicts, wanted

    def _value(self, results: Results, cell: Cell, seed: int, choices: dict[Cell, Choice]) -> Finished | None:
        row, swept = cell
        if self.tune is None:
            return results(StudyRun("run", row, swept, seed))
        return results(StudyRun("run", row, swept, seed, choices[cell].trial)) if cell in choices else None


def continue_seeds(seeds: Sequence[int], count: int) -> list[int]:
    """Return so many seeds: those given, and the whole numbers after the largest of them."""
    return [*seeds, *range(max(seeds) + 1, max(seeds) + 1 + max(0, count - len(seeds)))][:count]


def _verdict(
    design: Design, own: Sequence[Finished | None], baseline: Sequence[Finished | None], seeds: Sequence[int]
) -> RowVerdict:
    """Judge one row at a look whose runs have all finished."""
    differences = []
    for seed, row, base in zip(seeds, own, baseline, strict=False):
        assert row is not None
        assert base is not None
        for who, run in (("", row), ("the baseline's ", base)):
            if run.diverged:
                return RowVerdict(excluded=f"{who}seed {seed} diverged")
            if run.value is None:
                return RowVerdict(excluded=f"{who}seed {seed} has no such metric")
        assert row.value is not None
        assert base.value is not None
        differences.append(row.value - base.value)
    return RowVerdict(judge(design, differences))
