"""Sequential verdicts: boundaries against published and simulated values, and each verdict on planted differences."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from simulate_settle import read_noise, resample

from convolt.reports.sequential import (
    USUAL_CRITICAL_VALUES,
    USUAL_LOOKS,
    Design,
    chance_of_verdict,
    critical_values,
    judge,
    simulate_critical_values,
)
from written_study import make_study


def test_first_boundary_is_exact_and_the_table_is_what_the_simulation_finds() -> None:
    found = simulate_critical_values(USUAL_LOOKS, 0.05 / 4)
    assert found == pytest.approx(USUAL_CRITICAL_VALUES[4], abs=6e-5)
    assert found[0] == pytest.approx(stats.t.isf(0.05 / 4 * 3 / 20 / 2, 2))
    assert critical_values(USUAL_LOOKS, 0.05, 4) == USUAL_CRITICAL_VALUES[4]


def test_one_look_is_the_t_test() -> None:
    assert simulate_critical_values((6,), 0.05)[0] == pytest.approx(stats.t.isf(0.025, 5))


@pytest.mark.parametrize("comparisons", [1, 3])
def test_family_wise_error_is_held_with_a_shared_baseline(comparisons: int) -> None:
    """Rows that do not differ from a baseline of their own noise: any verdict of "told" is a false alarm."""
    values = np.array(critical_values(USUAL_LOOKS, 0.05, comparisons))
    generator = np.random.default_rng(7)
    studies = 20_000
    runs = generator.standard_normal((studies, comparisons + 1, 20))
    differences = runs[:, 1:] - runs[:, :1]
    alarms = np.zeros((studies, comparisons), dtype=bool)
    for n, value in zip(USUAL_LOOKS, values, strict=True):
        x = differences[..., :n]
        alarms |= np.abs(x.mean(-1)) > value * x.std(-1, ddof=1) / np.sqrt(n)
    any_alarm = alarms.any(axis=1).sum()
    assert stats.binomtest(int(any_alarm), studies).proportion_ci(0.98).high <= 0.056
    assert any_alarm / studies > 0.03  # and the error is spent, not hoarded


def test_verdicts_on_planted_differences() -> None:
    design = Design.plan(USUAL_LOOKS, 0.05, 1, margin=0.003)
    noise = np.random.default_rng(4).standard_normal(20)
    told = judge(design, list(0.02 + 0.005 * noise))
    assert told is not None
    assert (told.verdict, told.n) == ("told", 5)
    assert told.low > 0
    equal = judge(design, list(0.0005 * noise))
    assert equal is not None
    assert equal.verdict == "negligible"
    assert -0.003 < equal.low < equal.high < 0.003
    hopeless = judge(Design.plan(USUAL_LOOKS, 0.05, 11, margin=0.0001), list(0.01 * (noise - noise[:5].mean())))
    assert hopeless is not None
    assert hopeless.verdict == "hopeless"
    assert hopeless.n < 20
    assert hopeless.chance is not None
    assert hopeless.chance < 0.1


def test_no_verdict_before_the_first_look_and_open_after_the_last() -> None:
    design = Design.plan((2, 4), 0.05, 1, margin=None)
    assert judge(design, [0.1]) is None
    undecided = judge(design, [0.1, 0.3, 0.2])
    assert undecided is not None
    assert (undecided.verdict, undecided.n, undecided.mean) == ("undecided", 2, pytest.approx(0.2))
    last = judge(design, [0.1, 0.3, 0.2, -0.1, 99.0])  # more than the looks need
    assert last is not None
    assert (last.verdict, last.n, last.mean) == ("open", 4, pytest.approx(0.125))
    assert last.high - last.mean == pytest.approx(design.critical_values[1] * np.std([0.1, 0.3, 0.2, -0.1], ddof=1) / 2)


def test_equal_numbers_are_no_evidence() -> None:
    """Accuracies of few test images agree by rounding: an interval without width tells nothing."""
    judgment = judge(Design.plan((2, 3), 0.05, 1, margin=0.1), [0.01, 0.01, 0.01])
    assert judgment is not None
    assert judgment.verdict == "open"


def test_a_verdict_stands_whatever_comes_after() -> None:
    design = Design.plan(USUAL_LOOKS, 0.05, 1, margin=None)
    first = [0.1, 0.101, 0.099, 0.1005, 0.0995]
    assert judge(design, first) == judge(design, [*first, *[-0.2] * 15])


def test_predicted_chance_is_what_happens() -> None:
    """Studies that look alike at the second look: as many come to a verdict as was predicted."""
    design = Design.plan(USUAL_LOOKS, 0.05, 1, margin=None)
    predicted = chance_of_verdict(design, 1, mean=0.5, deviation=1.0)
    generator = np.random.default_rng(3)
    true = []
    for _ in range(1500):  # the same posterior, drawn number by number
        sigma = np.sqrt(4 / generator.chisquare(4))
        mean = 0.5 + sigma / np.sqrt(5) * generator.standard_normal()
        base = np.array([-1.0, -1.0, 0.0, 1.0, 1.0]) / np.sqrt(4 / 4) + 0.5
        x = np.concatenate([base, mean + sigma * generator.standard_normal(15)])
        judged = [
            abs(x[:n].mean()) > c * x[:n].std(ddof=1) / np.sqrt(n)
            for n, c in zip(USUAL_LOOKS[2:], design.critical_values[2:], strict=True)
        ]
        true.append(any(judged))
    assert predicted == pytest.approx(np.mean(true), abs=0.04)


def test_simulated_studies_with_the_noise_of_real_runs(tmp_path: Path) -> None:
    accuracy = {"adam": {0: 0.7, 1: 0.8, 2: 0.9}, "sgd": {0: 0.5, 1: 0.6, 2: 0.4, 3: 0.1}}
    study = make_study(tmp_path / "study", {row: dict(values) for row, values in accuracy.items()}, baseline="sgd")
    noise = read_noise(study)  # differences 0.2, 0.2, 0.5: mean 0.3, s = √0.03
    assert noise == pytest.approx(np.array([[0, 0.1, -0.1], [-0.1, 0, 0.1]]) / 0.03**0.5)
    drawn = resample(noise)(np.random.default_rng(0), 2)
    assert drawn.shape == (2, 20)
    assert {tuple(each) for each in drawn.T} == {tuple(each) for each in noise.T}  # rows keep their pairs
