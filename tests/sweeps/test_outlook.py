"""What a plan says a study can see."""

import math
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from convolt.reports.sequential import USUAL_LOOKS, Design, judge
from convolt.sweeps.jobs import Job
from convolt.sweeps.outlook import describe_power, find_deviation, half_width, pool_deviation, smallest_told
from convolt.sweeps.schedule import Settle


def test_the_power_of_looks_is_what_simulated_studies_have() -> None:
    design = Design.plan(USUAL_LOOKS, 0.05, 2, None)
    difference = smallest_told(design)
    assert difference == pytest.approx(0.81, abs=0.01)
    random = np.random.default_rng(1)
    told = [judge(design, list(difference + random.standard_normal(20))) for _ in range(150)]
    assert np.mean([each is not None and each.verdict == "told" for each in told]) == pytest.approx(0.8, abs=0.1)


def test_the_last_interval_of_twenty_seeds() -> None:
    widths = [half_width(Design.plan(USUAL_LOOKS, 0.05, m, 0.003)) for m in (1, 11)]
    assert [round(width, 2) for width in widths] == [0.54, 0.80]


def test_lines_of_fixed_seeds() -> None:
    assert describe_power(2, 3, None, None) == [
        "3 seeds, 2 comparisons: a difference of 4.62 SD is seen with a power of 80% "
        "(SD: standard deviation of the difference from the baseline, seed by seed)",
        "half a point (0.005) takes 5 seeds if SD is 0.002, 13 seeds if SD is 0.005, 41 seeds if SD is 0.01; "
        "SD is not known before three seeds of two rows have finished",
    ]
    assert describe_power(2, 3, 0.004, None) == [
        "3 seeds, 2 comparisons: a difference of 4.62 SD = 0.018 is seen with a power of 80% "
        "(SD: standard deviation of the difference from the baseline, seed by seed; here SD = 0.004, as runs so far "
        "differ)",
        "half a point (0.005) takes 9 seeds",
    ]


def test_lines_of_a_settling_study() -> None:
    assert describe_power(1, 3, None, Settle())[2:] == [
        "margin 0.003: at 20 seeds the interval reaches 0.54 SD to each side, so it can be met where SD is below 0.0056"
    ]
    assert describe_power(1, 3, 0.004, Settle()) == [
        "up to 20 seeds, 1 comparison: a difference of 0.72 SD = 0.0029 is seen with a power of 80% "
        "(SD: standard deviation of the difference from the baseline, seed by seed; here SD = 0.004, as runs so far "
        "differ)",
        "half a point (0.005) takes 8 seeds where their number is fixed",
        "margin 0.003: at 20 seeds the interval reaches 0.54 SD = 0.0022 to each side, so it can be met",
    ]
    assert describe_power(1, 3, 0.01, Settle())[2] == (
        "margin 0.003: at 20 seeds the interval reaches 0.54 SD = 0.0054 to each side, so it cannot be met, "
        "unless seeds come to differ less"
    )
    assert len(describe_power(1, 3, 0.01, Settle(margin=None))) == 2


def test_one_seed_sees_nothing_and_one_row_compares_nothing() -> None:
    assert describe_power(2, 1, None, None) == [
        "one seed sees no difference: two are needed to know how much seeds differ"
    ]
    assert describe_power(0, 3, None, None) == []
    assert "takes 2 seeds" in describe_power(1, 3, 0.0, None)[1]


def test_deviations_are_pooled_over_rows_of_three_seeds() -> None:
    assert pool_deviation([[0.1, 0.2]]) is None
    assert pool_deviation([[1, 2, 3], [0, 0, 0, 0], [9, 5]]) == pytest.approx(math.sqrt(2 / 5))


def test_the_deviation_of_a_study_pairs_seeds_with_the_baseline(tmp_path: Path) -> None:
    values = {
        ("sgd", ()): {0: 0.5, 1: 0.6, 2: 0.7, 3: 0.1},
        ("adam", ()): {0: 0.6, 1: 0.8, 2: 1.0},
        ("momentum", ()): {0: 0.5, 1: 0.9},
    }
    jobs, cells = [], []
    for cell, own in values.items():
        for seed, value in own.items():
            result = {"metrics": {"test/accuracy": value}}
            jobs.append(Job("", OmegaConf.create({"seed": seed}), tmp_path, result=result))
            cells.append(cell)
    assert find_deviation(jobs, cells, "sgd", "test/accuracy") == pytest.approx(0.1)
    assert find_deviation(jobs, cells, "sgd", "test/f1") is None
