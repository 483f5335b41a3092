"""What runs say of the same test images: planted disagreements, reference values, and how often intervals hold."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import simulate_paired_images
from scipy import stats

from convolt.reports.collect import read_study
from convolt.reports.image_predictions import read_image_predictions
from convolt.reports.paired_images import measure_agreement, pair_images
from convolt.reports.paired_tables import pair_rows
from convolt.reports.report import main
from decided_study import ACCURACY, read, rewrite
from decided_study import write_study as write_settled_study
from written_study import make_run, make_study, write_predictions

ROW = np.array([[1, 1, 1, 1, 0, 1, 1, 0], [1, 1, 0, 1, 0, 1, 1, 0], [1, 1, 1, 1, 0, 0, 1, 0]], dtype=bool)
BASELINE = np.array([[1, 0, 0, 1, 1, 1, 0, 1], [1, 0, 0, 1, 1, 1, 1, 0], [1, 0, 1, 1, 0, 1, 0, 1]], dtype=bool)
TARGETS = [0, 1, 2, 0, 1, 2]


def table(report: Path, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((report / f"tables/{name}.csv").read_text().splitlines()))


def test_variances_are_those_of_the_two_way_layout() -> None:
    found = pair_images(ROW, BASELINE)
    assert (found.only_row, found.only_baseline) == ((3, 1, 2), (2, 1, 2))
    assert found.difference == pytest.approx(1 / 24)
    # statsmodels 0.15.0: anova_lm(ols("d ~ C(seed) + C(image)")) of these 24 numbers has these mean squares
    seeds, images, rest = 0.04166666666666667, 1.0892857142857142, 0.23214285714285715
    assert found.seed_variance == pytest.approx(seeds / 24)
    assert found.image_variance == pytest.approx((images - rest) / 24 + 1 / 64)
    assert found.rest_variance == pytest.approx(seeds / 24)  # seeds spread less than the rest alone would have them
    assert sum(found.shares) == pytest.approx(1)
    # t(0.975, 2) = 4.302653, t(0.975, 7) = 2.364624
    half = math.sqrt(4.302653**2 * 0.0017361111 + 2.364624**2 * 0.0513392857)
    assert found.find_half_width() == pytest.approx(half, rel=1e-6)
    assert found.find_half_width((10.0, 0.0)) == pytest.approx(10 * math.sqrt(seeds / 24))
    assert found.find_limit() == "images"


def test_never_narrower_than_the_t_interval_over_seeds() -> None:
    found = pair_images(ROW, BASELINE)
    differences = ROW.mean(1) - BASELINE.mean(1)
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert 4.302653 * math.sqrt(found.seed_variance) == pytest.approx((high - low) / 2, rel=1e-6)
    assert found.find_half_width() > (high - low) / 2


@pytest.mark.parametrize(
    ("only_row", "only_baseline", "p"),  # p: statsmodels 0.15.0, mcnemar(table, exact=True)
    [
        (10, 3, 0.09228515625),
        (25, 12, 0.04703102743951604),
        (0, 6, 0.03125),
        (141, 98, 0.006471864090315633),
        (7, 7, 1.0),
        (0, 0, 1.0),
    ],
)
def test_exact_mcnemar(only_row: int, only_baseline: int, p: float) -> None:
    row, baseline = np.ones((2, 1, 300), dtype=bool)
    baseline[0, :only_row] = False
    row[0, only_row : only_row + only_baseline] = False
    found = pair_images(row, baseline)
    assert found.p_values == (pytest.approx(p, rel=1e-9),)
    # One seed: of n differing images, the paired difference of proportions with Agresti and Min's half images.
    assert found.seed_variance == 0
    variance = np.var((row.astype(int) - baseline)[0], ddof=1) / 300 + 1 / 300**2
    assert found.find_half_width() == pytest.approx(stats.t.ppf(0.975, 299) * math.sqrt(variance))
    assert found.find_limit() == ""


def test_seeds_that_spread_are_the_limit() -> None:
    baseline = np.zeros((3, 1000), dtype=bool)
    row = np.arange(1000) < np.array([[100], [500], [900]])
    found = pair_images(row, baseline)
    assert found.find_limit() == "seeds"
    assert found.shares[0] > 0.95


def test_agreement_to_the_image() -> None:
    predicted = [np.array(one, dtype=np.int32) for one in ([0, 1, 2, 1, 2, 0], [0, 1, 2, 1, 0, 2], [0, 1, 2, 0, 1, 2])]
    found = measure_agreement(predicted, np.array(TARGETS, dtype=np.int32))
    assert found.predicted == pytest.approx(np.array([[1, 4 / 6, 0.5], [4 / 6, 1, 4 / 6], [0.5, 4 / 6, 1]]))
    # The first two are both wrong about images 3 and 4: both take 3 for class 1, and 4 for different ones.
    assert found.mistakes[0, 1] == 0.5
    assert math.isnan(found.mistakes[0, 2])


def test_intervals_hold_for_new_seeds_and_new_images() -> None:
    studies = 250
    least = 0.95 - 3 * math.sqrt(0.95 * 0.05 / studies)
    for scenario in simulate_paired_images.SCENARIOS:
        for seeds in (3, 10):
            held, _ = simulate_paired_images.simulate(scenario, seeds, 200, studies)
            assert held[0] >= least, (scenario.name, seeds)
            if scenario.name == "images dominate":  # which intervals over seeds do not see
                assert held[2] < 0.9


def test_settled_looks_hold_together() -> None:
    for ratio in (0.05, 1.0):
        assert simulate_paired_images.simulate_looks(1, ratio, 20_000)[1] < 0.05


def write_planted_study(folder: Path) -> Path:
    study = make_study(folder, {"sgd": {0: 0.5, 1: 0.5}, "adam": {0: 0.5, 1: 0.5, 2: 0.5}, "momentum": {0: 0.5}})
    write_predictions(study / "sgd/seed=0", [0, 1, 2, 0, 0, 0], TARGETS)  # wrong about 4 and 5
    write_predictions(study / "sgd/seed=1", [0, 1, 2, 1, 1, 0], TARGETS)  # 3 and 5
    write_predictions(study / "adam/seed=0", [0, 1, 2, 0, 1, 1], TARGETS)  # 5
    write_predictions(study / "adam/seed=1", [1, 1, 2, 0, 1, 2], TARGETS)  # 0
    write_predictions(study / "adam/seed=2", [1, 1, 1, 1, 0, 0], TARGETS)  # all but one: no such seed of sgd
    write_predictions(study / "momentum/seed=0", [0, 1, 2, 0, 0, 2], TARGETS)  # 4
    return study


def test_planted_disagreements_in_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = write_planted_study(tmp_path / "study")
    assert main([str(study), "--no-figures"]) == 0
    adam, momentum = table(study / "report", "paired_images")
    assert (adam["row"], adam["baseline"], adam["pairs"], adam["images"]) == ("adam", "sgd", "2", "6")
    assert (adam["only_row"], adam["only_baseline"]) == ("1.5", "0.5")  # 4; 3 and 5 | none; 0
    assert float(adam["difference"]) == pytest.approx(1 / 6)
    assert float(adam["share_seeds"]) + float(adam["share_images"]) + float(adam["share_rest"]) == pytest.approx(1)
    assert momentum["remark"] == "one seed: it says nothing about other seeds"
    assert float(momentum["difference_low"]) < 1 / 6 < float(momentum["difference_high"])
    assert momentum["share_images"] == ""
    seeds = [
        (one["row"], one["seed"], one["only_row"], one["only_baseline"]) for one in table(study / "report", "mcnemar")
    ]
    assert seeds == [("adam", "0", "1", "0"), ("adam", "1", "2", "1"), ("momentum", "0", "1", "0")]
    sgd = table(study / "report", "agreement")[0]
    assert float(sgd["same_class: its other seeds"]) == pytest.approx(4 / 6)
    # adam's seeds 1, 2 beside sgd's 0; 0, 2 beside 1: equal classes of 3, 2; 4, 4 images... of six
    equal = [np.mean(np.array(a) == b) for a, b in ADAM_AND_SGD]
    assert float(sgd["same_class: adam"]) == pytest.approx(np.mean(equal))
    page = (study / "report/report.html").read_text()
    assert "<h2>Images</h2>" in page
    assert "Each seed by itself" in page
    assert "Banerjee" in page
    assert "mcnemar" not in (study / "report/report.md").read_text()
    assert "The same images, beside the baseline" in capsys.readouterr().out


ADAM_AND_SGD = [
    ([1, 1, 2, 0, 1, 2], [0, 1, 2, 0, 0, 0]),
    ([1, 1, 1, 1, 0, 0], [0, 1, 2, 0, 0, 0]),
    ([0, 1, 2, 0, 1, 1], [0, 1, 2, 1, 1, 0]),
    ([1, 1, 1, 1, 0, 0], [0, 1, 2, 1, 1, 0]),
]
"""Pairs of runs of different seeds."""


def test_two_runs_without_a_study(tmp_path: Path) -> None:
    for name, seed, predicted in (("b", 0, [0, 1, 2, 0, 0, 2]), ("a", 1, [0, 1, 2, 1, 1, 0])):
        make_run(tmp_path / name, 0.5, seed, overrides=(f"optim={name}",))
        write_predictions(tmp_path / name, predicted, TARGETS)
    out = tmp_path / "out"
    assert main([str(tmp_path / "b"), str(tmp_path / "a"), "--no-figures", "--out", str(out)]) == 0
    (found,) = table(out, "paired_images")
    assert (found["row"], found["baseline"]) == ("optim=a", "optim=b")  # the first given
    assert (found["only_row"], found["only_baseline"]) == ("1.0", "2.0") or (
        found["only_row"],
        found["only_baseline"],
    ) == ("1", "2")
    assert found["remark"] == "two networks of different seeds: it says nothing about the rows with other seeds"

    make_run(tmp_path / "c", 0.5, 1, overrides=("optim=c",), dataset_hash="e" * 64)
    write_predictions(tmp_path / "c", [0, 1, 2, 1, 1, 0], TARGETS)
    assert main([str(tmp_path / "a"), str(tmp_path / "c"), "--no-figures", "--out", str(out)]) == 0
    (found,) = table(out, "paired_images")
    assert found["remark"] == "no predictions of these images"
    line = "1 run not compared image by image, another prepared dataset: 'optim=c'"
    assert (out / "report.md").read_text().count(line) == 1


def test_two_studies_compared(tmp_path: Path) -> None:
    first, second = write_planted_study(tmp_path / "first"), write_planted_study(tmp_path / "second")
    write_predictions(second / "sgd/seed=0", TARGETS, TARGETS)
    assert main(["--compare", str(first), str(second), "--no-figures", "--out", str(tmp_path / "out")]) == 0
    sgd, adam, momentum = table(tmp_path / "out", "paired_images")
    assert (sgd["row"], sgd["baseline"], sgd["pairs"]) == ("B: sgd", "A: sgd", "2")
    assert (sgd["only_row"], sgd["only_baseline"]) == ("1.0", "0.0") or float(sgd["only_row"]) == 1
    assert float(adam["only_row"]) == float(momentum["only_row"]) == 0


def test_settled_study_has_the_interval_of_its_look(tmp_path: Path) -> None:
    study, count = write_settled_study(tmp_path / "study"), 1000
    right = {row: [round(count * value) for value in values] for row, values in ACCURACY.items()}
    for row, values in right.items():
        for seed, number in enumerate(values):
            predicted = np.where(np.arange(count) < number, 1, 2).tolist()
            write_predictions(study / f"{row}/seed={seed}", predicted, [1] * count)
    record = read_study(study)
    predictions = read_image_predictions(record)
    assert predictions is not None
    found = {one.row.name: one for one in pair_rows(record, predictions)}
    adam = found["adam"]
    assert (adam.look, adam.keys) == (3, (0, 1, 2))
    assert adam.found is not None
    d = np.stack(
        [
            (np.arange(count) < a).astype(float) - (np.arange(count) < b)
            for a, b in zip(right["adam"], right["sgd"], strict=False)
        ]
    )
    rest = d - d.mean(0) - d.mean(1, keepdims=True) + d.mean()
    of_images = d.mean(0).var(ddof=1) / count - (rest**2).sum() / (2 * 999) / (3 * count) + 1e-6
    # s = 0.001 over the seeds; 16.284 is the first look's critical value, 4.15 the last one's
    assert adam.half_width == pytest.approx(math.sqrt(16.284**2 * 0.001**2 / 3 + 4.15**2 * of_images))
    assert adam.remark == "the test set is the limit"
    assert found["momentum"].look == 5

    assert main([str(study), "--no-figures"]) == 0
    assert not (study / "report/tables/mcnemar.csv").exists()
    text = (study / "report/report.md").read_text()
    assert "Verdicts are about new seeds on these test images" in text
    assert "1,000 test images of one dataset" in text

    (study / "adam/seed=1/predictions.npz").unlink()
    spec = read(study)
    spec["settling"]["verdicts"][0] |= {"verdict": "undecided", "n": None, "mean": None, "low": None, "high": None}
    rewrite(study, spec)
    record = read_study(study)
    predictions = read_image_predictions(record)
    assert predictions is not None
    found = {one.row.name: one for one in pair_rows(record, predictions)}
    assert (found["adam"].half_width, found["momentum"].half_width) == (None, None)
    assert found["adam"].remark == "not all predictions of its look are here: no claim"
    assert found["momentum"].remark == "no look judges it: no claim"
