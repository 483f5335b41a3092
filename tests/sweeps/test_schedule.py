"""Tuned and settling studies, with a runner that only draws numbers."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from convolt.reports.sequential import USUAL_CRITICAL_VALUES
from convolt.sweeps.schedule import Finished, RowVerdict, Schedule, Settle, StudyRun
from convolt.sweeps.tuning import Range, Tune

RATES = {"sgd": 0.1, "momentum": 0.01, "adam": 0.001}
GAIN = {"sgd": 0.0, "momentum": 0.02, "adam": 0.0001}
ROWS = tuple(RATES)

Train = Callable[[StudyRun], Finished]


def train(run: StudyRun) -> Finished:
    """Return what a run would give: a best rate for each row, and noise by seed, of which rows share half."""
    row, common = (np.random.default_rng([run.seed, each]).standard_normal() for each in (ROWS.index(run.row), 99))
    noise = 0.004 * float(row + common)
    rate = run.trial.values["optim.lr"] if run.trial else 1.0
    assert isinstance(rate, float)
    lost = 0.05 * abs(math.log10(rate / RATES[run.row]))
    value = 0.9 + GAIN[run.row] - lost + noise
    if run.kind == "trial":
        return Finished(score=value, diverged=rate > 0.5)
    return Finished(value=value)


def tuned(**more: object) -> Schedule:
    space = {"optim.lr": Range(low=1e-4, high=1.0, log=True)}
    settings = {"tune": Tune(space=space, trials=8), "settle": Settle()} | more
    return Schedule(ROWS, "sgd", [()], [0, 1, 2], **settings)  # type: ignore[arg-type]


def finish(
    schedule: Schedule, train: Train, results: dict[StudyRun, Finished] | None = None
) -> dict[StudyRun, Finished]:
    """Run whatever is wanted until nothing is."""
    results = {} if results is None else results
    while new := [run for run in schedule.runs(results.get) if run not in results]:
        results |= {run: train(run) for run in new}
    return results


def test_planted_rates_are_found_by_the_same_trials_of_every_row() -> None:
    schedule = tuned()
    results = finish(schedule, train)
    for (row, _), choice in schedule.choices(results.get).items():
        rate = choice.trial.values["optim.lr"]
        assert isinstance(rate, float)
        assert abs(math.log10(rate / RATES[row])) < 0.3
        assert not choice.edges
    tried = {row: [run.trial for run in results if run.kind == "trial" and run.row == row] for row in ROWS}
    assert len(tried["sgd"]) == 8
    assert tried["sgd"] == tried["momentum"] == tried["adam"]
    assert {run.seed for run in results if run.kind == "trial"} == {1000}


def test_rows_stop_when_they_are_settled_and_the_baseline_runs_on() -> None:
    schedule = tuned()
    results = finish(schedule, train)
    verdicts = schedule.verdicts(results.get)
    seeds = {row: sorted(run.seed for run in results if run.kind == "run" and run.row == row) for row in ROWS}
    told, other = (verdicts[row, ()].judgment for row in ("momentum", "adam"))
    assert told is not None
    assert other is not None
    assert told.verdict == "told"
    assert told.mean == pytest.approx(0.02, abs=0.01)
    assert other.verdict in ("hopeless", "negligible", "open")
    assert len(seeds["momentum"]) == told.n < len(seeds["adam"]) == other.n == len(seeds["sgd"])
    assert seeds["sgd"] == list(range(other.n))  # they continue the page's
    untuned = [run for run in results if run.kind == "untuned"]
    assert sorted({run.seed for run in untuned}) == [0, 1, 2]
    assert len(untuned) == 9


@pytest.mark.parametrize("seed", range(8))
def test_kills_at_any_point_change_no_decision(seed: int) -> None:
    schedule = tuned(tune=Tune(space={"optim.lr": Range(low=0.02, high=1.0, log=True)}, trials=4, extend=1))
    whole = finish(schedule, train)
    generator = np.random.default_rng(seed)
    results: dict[StudyRun, Finished] = {}
    for _ in range(6):  # each start finishes some of what is wanted, in any order, and is killed
        new = [run for run in schedule.runs(results.get) if run not in results]
        some = generator.permutation(len(new))[: generator.integers(0, len(new) + 1)]
        results |= {new[place]: train(new[place]) for place in some}
    results = finish(schedule, train, results)
    assert results == whole
    assert schedule.choices(results.get) == schedule.choices(whole.get)
    assert schedule.verdicts(results.get) == schedule.verdicts(whole.get)


def test_an_edge_extends_the_range_for_every_row_alike() -> None:
    space = {"optim.lr": Range(low=0.02, high=1.0, log=True)}
    plain, extended = (tuned(tune=Tune(space=space, trials=4, extend=extend)) for extend in (0, 2))
    assert plain.choices(finish(plain, train).get)["adam", ()].edges == {"optim.lr": "low"}
    results = finish(extended, train)
    counts = [sum(run.kind == "trial" and run.row == row for run in results) for row in ROWS]
    assert counts == [12, 12, 12]
    rates = [run.trial.values["optim.lr"] for run in results if run.kind == "trial" and run.row == "sgd" and run.trial]
    assert min(rates) < 0.005  # type: ignore[type-var, operator]
    assert max(rates) < 1  # type: ignore[type-var, operator]


def test_a_trial_without_a_result_blocks_its_row_alone() -> None:
    schedule = tuned(settle=None)
    results = finish(schedule, train)
    lost = next(run for run in results if run.kind == "trial" and run.row == "adam")
    partial = {run: found for run, found in results.items() if run.kind == "trial" and run != lost}
    assert set(schedule.choices(partial.get)) == {("sgd", ()), ("momentum", ())}
    wanted = schedule.runs(partial.get)
    assert {run.row for run in wanted if run.kind == "run"} == {"sgd", "momentum"}
    assert lost in wanted


def test_a_diverged_seed_excludes_its_row_by_name() -> None:
    schedule = tuned(tune=None)

    def diverging(run: StudyRun) -> Finished:
        return Finished(diverged=True) if (run.row, run.seed) == ("adam", 1) else train(run)

    results = finish(schedule, diverging)
    verdicts = schedule.verdicts(results.get)
    assert verdicts["adam", ()] == RowVerdict(excluded="seed 1 diverged")
    assert verdicts["momentum", ()].stopped


def test_comparisons_count_rows_and_swept_values() -> None:
    schedule = Schedule(ROWS, "sgd", [("data=mnist",), ("data=digits",)], [5], settle=Settle())
    assert schedule.comparisons == 4
    assert schedule.design.critical_values == USUAL_CRITICAL_VALUES[4]
    assert schedule.all_seeds() == list(range(5, 25))
    assert len(schedule.runs({}.get)) == 2 * 3 * 3


def test_without_blocks_a_study_is_rows_times_seeds() -> None:
    schedule = Schedule(ROWS, "sgd", [()], [0, 7])
    assert [(run.seed, run.row) for run in schedule.runs({}.get)] == [(s, r) for s in (0, 7) for r in ROWS]
