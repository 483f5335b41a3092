"""Time to a target, differences across datasets and interactions, on folders whose numbers are known."""

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convolt.errors import UserError
from convolt.reports.across_datasets import build_across_datasets, compare_datasets
from convolt.reports.collect import open_folder
from convolt.reports.formats import Metric
from convolt.reports.interactions import (
    build_interactions,
    describe_interactions,
    draw_interactions,
    find_interactions,
)
from convolt.reports.provenance import note_provenance
from convolt.reports.records import StudyRecord
from convolt.reports.report import main
from convolt.reports.swept_axes import find_grids, split_swept
from convolt.reports.table_parts import build_parts, show_parts
from convolt.reports.time_to_target import build_target_times, find_median, measure_times
from written_study import make_run, make_study

ACCURACY = Metric("test/accuracy")


def write_history(run: Path, values: list[float], name: str = "val/accuracy", seconds: float = 10.0) -> None:
    """Write a run's metric by epoch."""
    lines = [f"{epoch},{value},{seconds}" for epoch, value in enumerate(values, 1)]
    (run / "metrics.csv").write_text("\n".join([f"epoch,{name},seconds", *lines]))


def make_timed_study(folder: Path, curves: Mapping[str, Mapping[int, list[float]]], **more: Any) -> StudyRecord:
    """Write a study whose runs have these validation metrics by epoch, by row and seed."""
    name = more.pop("name", "val/accuracy")
    extra = {f"row_{row}": {"monitor": name} for row in curves}
    make_study(folder, {row: dict.fromkeys(seeds, 0.5) for row, seeds in curves.items()}, **extra, **more)
    for row, seeds in curves.items():
        for seed, values in seeds.items():
            write_history(folder / f"{row}/seed={seed}", values, name, seconds=10.0 + seed)
    return open_folder(folder)[0]


CURVES = {
    "sgd": {0: [0.5, 0.7, 0.8], 1: [0.5, 0.82, 0.81], 2: [0.6, 0.7, 0.79]},
    "adam": {0: [0.8, 0.9, 0.9], 1: [0.7, 0.9, 0.9], 2: [0.7, 0.7, 0.85]},
    "slow": {0: [0.5, 0.5, 0.8], 1: [0.1, 0.1, 0.1], 2: [0.1, 0.1, 0.2]},
}
# Final values of sgd: 0.8, 0.81, 0.79, median 0.8: sgd reaches it in epochs 3, 2, never; adam in 1, 2, 3; slow in 3,
# never, never. An epoch of seed s takes 10 + s seconds.


def test_time_to_the_baselines_final_median(tmp_path: Path) -> None:
    study = make_timed_study(tmp_path / "s", CURVES)
    times = measure_times(study)
    assert times is not None
    sgd, adam, slow = times.rows
    assert [one.target for one in times.rows] == [0.8, 0.8, 0.8]
    assert [run.epoch for run in sgd.runs.values()] == [3, 2, math.inf]
    assert [run.seconds for run in sgd.runs.values()] == [30, 22, math.inf]
    assert [run.epoch for run in adam.runs.values()] == [1, 2, 3]
    assert [one.reached for one in times.rows] == [2, 3, 1]
    # Seed by seed: adam 1 < 3, 2 = 2, 3 < never; slow 3 = 3, never > 2, never = never.
    assert (adam.sooner, adam.later, adam.pairs) == (2, 0, 3)
    assert (slow.sooner, slow.later, slow.pairs) == (0, 1, 3)
    assert adam.difference is None  # a seed of sgd never reaches it, so there is no mean of epochs
    table = build_target_times(study, times)
    texts = {row[0].text: [cell.text for cell in row[2:]] for row in table.rows}
    assert texts["sgd"][:3] == ["2 of 3", "3 [2, never]", "30.0 [22.0, never]"]
    assert texts["adam"] == ["3 of 3", "2 [1, 3]", "22.0 [10.0, 36.0]", "2, 0 of 3"]
    assert texts["slow"] == ["1 of 3", "never [3, never]", "never [30.0, never]", "0, 1 of 3"]
    assert "75% at 3 seeds" in table.caption  # 1 - 2 / 2**3
    assert table.records[2]["epochs_by_seed"] == "0: 3, 1: never, 2: never"


def test_a_given_target_and_the_difference_in_epochs(tmp_path: Path) -> None:
    study = make_timed_study(tmp_path / "s", CURVES)
    times = measure_times(study, 0.7)
    assert times is not None
    # sgd: 2, 2, 2; adam: 1, 1, 1: differences of -1 each, an interval of no width.
    adam = times.rows[1].difference
    assert adam is not None
    assert (adam.mean, adam.low, adam.high, adam.n) == (-1, -1, -1, 3)
    times = measure_times(study, 0.75)  # sgd: 3, 2, 3; adam: 1, 2, 3: -2, 0, 0, s = 2 / √3, half = 4.302653 · s / √3
    assert times is not None
    adam = times.rows[1].difference
    assert adam is not None
    assert (adam.mean, adam.high) == pytest.approx((-2 / 3, -2 / 3 + 4.302653 * 2 / 3), rel=1e-6)
    for wrong in (80.0, -0.1, math.nan):
        with pytest.raises(UserError, match="val/accuracy is a fraction from 0 to 1"):
            measure_times(study, wrong)


def test_lower_is_better_and_no_baseline(tmp_path: Path) -> None:
    curves = {"a": {0: [0.9, 0.5], 1: [0.7, 0.4]}, "b": {0: [0.45, 0.3], 1: [0.9, 0.7]}}
    study = make_timed_study(tmp_path / "s", curves, name="val/loss", baseline=None)
    times = measure_times(study)
    assert times is not None
    # Final losses 0.5, 0.4, 0.3, 0.7: median 0.45. a: never, 2; b: 1, never.
    assert [one.target for one in times.rows] == pytest.approx([0.45, 0.45])
    assert [[run.epoch for run in one.runs.values()] for one in times.rows] == [[math.inf, 2], [1, math.inf]]
    assert "all rows" in build_target_times(study, times).caption
    alone = replace(study, rows=study.rows[:1])
    assert measure_times(alone) is None  # its own end is no target
    assert measure_times(alone, 0.6) is not None
    with pytest.raises(UserError, match="--target nan: val/loss is a number"):
        measure_times(study, math.nan)


def test_runs_without_epochs_are_told(tmp_path: Path) -> None:
    study = make_timed_study(tmp_path / "s", CURVES)
    (study.path / "adam/seed=0/metrics.csv").write_text("epoch,val/accuracy,seconds\n1,x,2")
    (study.path / "adam/seed=1/metrics.csv").unlink()
    (study.path / "slow/seed=0/result.json").unlink()
    study = open_folder(study.path)[0]
    times = measure_times(study)
    assert times is not None
    assert [len(one.runs) for one in times.rows] == [3, 1, 2]
    table = build_target_times(study, times)
    assert table.rows[1][2].text == "1 of 1"
    assert table.rows[1][3].text == "3"  # one seed has no interval
    assert "2 runs without a result or without the metric by epoch not counted" in table.footnotes.values()
    for file in study.path.rglob("metrics.csv"):
        file.write_text("epoch,train/loss,seconds\n1,0.5,10")
    assert measure_times(study) is None
    with pytest.raises(UserError, match=r"no run in .* kept val/accuracy of its epochs: leave out --target"):
        measure_times(study, 0.9)


@pytest.mark.parametrize(
    ("n", "ends", "level"),
    [
        (2, (1, 2), 0.5),  # 1 - 2 / 2**2
        (5, (1, 5), 0.9375),
        (6, (1, 6), 0.96875),
        (9, (2, 8), 1 - 2 * 10 / 2**9),  # P(Binomial(9, 1/2) < 2) = (1 + 9) / 2**9; with 3, 2 · 46 / 2**9 is too much
        (10, (2, 9), 1 - 2 * 11 / 2**10),
    ],
)
def test_the_interval_of_a_median(n: int, ends: tuple[int, int], level: float) -> None:
    found = find_median([*range(n, 0, -1)])
    assert (found.low, found.high) == ends
    assert found.level == pytest.approx(level, rel=1e-12)
    assert found.median == (n + 1) // 2


def test_the_interval_of_a_median_holds_it_as_often_as_it_says() -> None:
    import numpy as np

    draws = np.random.default_rng(0).exponential(size=(500, 6))
    draws[draws > 1.2] = np.inf  # those that never reach the target; the median is ln 2 = 0.693
    found = [find_median(list(each)) for each in draws]
    held = np.mean([one.low <= math.log(2) <= one.high for one in found if one.low and one.high])
    assert held == pytest.approx(0.96875, abs=4 * math.sqrt(0.97 * 0.03 / 500))


def make_swept_study(folder: Path, cells: Mapping[tuple[str, str], Mapping[int, float | None]], **more: Any) -> Path:
    """Write a study of rows by swept values: accuracy by seed; None for a run that is missing."""
    rows: dict[str, Any] = {}
    for (row, swept), values in cells.items():
        content = rows.setdefault(row, {"overrides": [f"batchnorm={row}"], "published": None, "runs": []})
        for seed, accuracy in values.items():
            run = {"dir": f"{row}/seed={seed},{swept}", "seed": seed, "overrides": [swept]}
            content["runs"].append(run)
            if accuracy is not None:
                make_run(folder / run["dir"], accuracy, seed, (f"batchnorm={row}", swept))
    sweep: dict[str, list[str]] = {}
    for _, swept in cells:
        key, value = swept.split("=")
        sweep.setdefault(key, []).append(value)
    folder.mkdir(parents=True, exist_ok=True)
    spec = {"name": "s", "title": "T", "baseline": next(iter(rows)), "sweep": sweep, "rows": rows}
    (folder / "study.json").write_text(json.dumps(spec | more))
    return folder


PLANTED: dict[tuple[str, str], dict[int, float | None]] = {
    ("before", "optim=sgd"): {0: 0.50, 1: 0.52, 2: 0.54},
    ("before", "optim=adam"): {0: 0.60, 1: 0.61, 2: 0.62},
    ("after", "optim=sgd"): {0: 0.60, 1: 0.61, 2: 0.65},
    ("after", "optim=adam"): {0: 0.60, 1: 0.60, 2: 0.63},
    ("none", "optim=sgd"): {0: 0.40, 1: 0.45, 2: 0.41},
    ("none", "optim=adam"): {0: 0.51, 1: 0.52, 2: 0.51},
}
# after - before: sgd 0.10, 0.09, 0.11 (mean 0.10); adam 0, -0.01, 0.01 (mean 0). Changes: -0.10 each.
# none - before: sgd -0.10, -0.07, -0.13 (mean -0.10); adam -0.09, -0.09, -0.11 (mean -0.09666667).
# Changes: 0.01, -0.02, 0.02: mean 0.00333333, s = √(0.00043333) = 0.02081666, half = 4.302653 · s / √3 = 0.0517115


def test_interactions_of_a_study(tmp_path: Path) -> None:
    cells = PLANTED | {("after", "optim=adam"): {0: 0.60, 1: 0.601, 2: 0.629}}
    # Changes of after: -0.10, -0.099, -0.101: mean -0.10, s = 0.001, half = 4.302653 · 0.001 / √3 = 0.00248414,
    # t = 0.1 / (0.001 / √3) = 173.205, p = 1 - t / √(2 + t²) = 3.33322e-5; Holm over two changes: 6.66644e-5
    study = open_folder(make_swept_study(tmp_path / "s", cells))[0]
    (found,) = find_interactions(study, ACCURACY)
    after, none = found.found
    assert (after.label, after.at_reference) == ("after (adam against sgd)", pytest.approx(0.1))
    assert after.at_value == pytest.approx(0.0)
    assert after.change is not None
    assert none.change is not None
    assert (after.change.mean, after.change.high) == pytest.approx((-0.1, -0.1 + 0.00248414), abs=1e-8)
    assert (after.change.p_value, after.change.p_holm) == pytest.approx((3.33322e-5, 6.66644e-5), rel=1e-4)
    assert (none.change.mean, none.change.high) == pytest.approx((0.00333333, 0.00333333 + 0.0517115), abs=1e-7)
    assert (after.told, none.told) == (True, False)
    assert describe_interactions(study, ACCURACY, found) == (
        "The difference of 'after' from 'before' is 10.00 points [9.75, 10.25] lower with optim=adam than with "
        "optim=sgd: +0.00 against +10.00, told by 3 seeds. Whether differences change with optim is not told by 3 "
        "seeds: none (adam against sgd)."
    )
    table = build_interactions(study, ACCURACY, found)
    assert [cell.text for cell in table.rows[0]] == [
        *("after (adam against sgd)", "3", "+0.00", "+10.00", "-10.00 ± 0.25", "<0.001"),
    ]
    assert "Holm-corrected over 2 changes" in table.caption


def test_equal_changes_carry_no_claim(tmp_path: Path) -> None:
    study = open_folder(make_swept_study(tmp_path / "s", PLANTED))[0]
    (found,) = find_interactions(study, ACCURACY)
    after = found.found[0]
    assert after.change is not None
    assert after.change.mean == pytest.approx(-0.1)
    assert (after.change.p_value, after.told) == (None, False)
    table = build_interactions(study, ACCURACY, found)
    assert "all differences are the same: an interval of zero width, no test" in table.footnotes.values()


def test_interactions_of_incomplete_grids(tmp_path: Path) -> None:
    cells: dict[tuple[str, str], dict[int, float | None]] = {
        **PLANTED,
        ("after", "optim=adam"): {0: 0.6, 1: None, 2: None},  # one common seed: 0 - 0.10 = -0.10, no interval
        ("none", "optim=adam"): {0: None, 1: None, 2: None},
        ("none", "optim=rmsprop"): {0: 0.4, 1: 0.4},  # and no baseline there
    }
    study = open_folder(make_swept_study(tmp_path / "s", cells))[0]
    (found,) = find_interactions(study, ACCURACY)
    table = build_interactions(study, ACCURACY, found)
    texts = {row[0].text: [cell.text for cell in row] for row in table.rows}
    assert texts["after (adam against sgd)"] == ["after (adam against sgd)", "1", "+0.00", "+10.00", "-10.00"]
    assert len(texts) == 4
    assert {text[1] for name, text in texts.items() if name != "after (adam against sgd)"} == {"\N{EN DASH}"}
    assert describe_interactions(study, ACCURACY, found) == ""
    assert draw_interactions(study, ACCURACY, found)["png"].startswith(b"\x89PNG")


def test_another_baseline_and_first_value(tmp_path: Path) -> None:
    make_swept_study(tmp_path / "s", PLANTED, baseline="after, optim=adam")
    study = open_folder(tmp_path / "s")[0]
    (grid,) = find_grids(study)
    assert grid.values == ("optim=adam", "optim=sgd")
    assert grid.baselines == {"before": "after", "none": "after"}


def test_several_swept_keys_hold_the_others_fixed(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    rows: dict[str, Any] = {}
    for row in ("a", "b"):
        runs = []
        for lr in ("0.1", "1"):
            for size in ("8", "9"):
                swept = [f"optim.lr={lr}", f"data.batch_size={size}"]
                runs.append({"dir": f"{row}/{lr},{size}", "seed": 0, "overrides": swept})
                make_run(folder / runs[-1]["dir"], 0.5, 0, tuple(swept))
        rows[row] = {"overrides": [], "runs": runs}
    sweep = {"optim.lr": [], "data.batch_size": []}
    (folder / "study.json").write_text(json.dumps({"name": "s", "baseline": "a", "sweep": sweep, "rows": rows}))
    grids = find_grids(open_folder(folder)[0])
    assert [grid.key for grid in grids] == ["optim.lr", "data.batch_size"]
    assert grids[0].baselines == {f"b, data.batch_size={n}": f"a, data.batch_size={n}" for n in (8, 9)}
    assert grids[1].values == ("data.batch_size=8", "data.batch_size=9")
    assert split_swept("a.b=[1, 2], +c={x: 1, y: 2}") == ["a.b=[1, 2]", "+c={x: 1, y: 2}"]


def make_plain_sweep(folder: Path, missing: str = "", typed: bool = True) -> StudyRecord:
    """Write a sweep of two axes, with the numbers planted above."""
    for (row, swept), values in PLANTED.items():
        for seed, accuracy in values.items():
            if f"{row},{swept}" != missing:
                make_run(folder / f"{row},{swept},{seed}", accuracy, seed, ("model=vgg", swept, f"batchnorm={row}"))
    task = "[model=vgg, 'optim=sgd,adam', 'batchnorm=before,after,none', 'seed=0,1,2']"
    if typed:
        (folder / "multirun.yaml").write_text(f"hydra: {{overrides: {{task: {task}}}}}")
    return open_folder(folder)[0]


def test_a_plain_sweep_of_two_axes(tmp_path: Path) -> None:
    study = make_plain_sweep(tmp_path / "sweeps/now")
    assert study.kind == "sweep"
    (found,) = find_interactions(study, ACCURACY)
    assert found.grid.values == ("optim=sgd", "optim=adam")  # as typed, where the alphabet has adam first
    after, none = found.found
    assert (after.name, after.baseline) == ("batchnorm=after", "batchnorm=before")
    assert none.change is not None
    assert none.change.high == pytest.approx(0.00333333 + 0.0517115, abs=1e-7)
    assert find_interactions(make_plain_sweep(tmp_path / "sweeps/part", missing="none,optim=adam"), ACCURACY) == []
    untyped = find_grids(make_plain_sweep(tmp_path / "sweeps/untyped", typed=False))
    assert [grid.values[0] for grid in untyped] == ["optim=adam"]  # natural order


DATASETS: dict[tuple[str, str], dict[int, float | None]] = {
    ("sgd", "data=mnist"): {0: 0.90, 1: 0.91, 2: 0.92},
    ("sgd", "data=digits"): {0: 0.80, 1: 0.80, 2: 0.80},
    ("adam", "data=mnist"): {0: 0.93, 1: 0.92, 2: 0.94},  # differences 0.03, 0.01, 0.02: mean 0.02, s = 0.01
    ("adam", "data=digits"): {0: 0.79, 1: 0.78, 2: None},  # -0.01, -0.02: mean -0.015, s = 0.00707107
    ("slow", "data=mnist"): {0: 0.91, 1: 0.91, 2: 0.91},
    ("slow", "data=digits"): {0: 0.80, 1: 0.80, 2: 0.80},
}
# Half widths: 4.302653 · 0.01 / √3 = 0.024841; 12.706205 · 0.00707107 / √2 = 0.063531
# Ranks on mnist: adam 1, then sgd and slow with 0.91 each: 2.5; on digits: sgd and slow 1.5, adam 3.


def test_datasets_stand_side_by_side(tmp_path: Path) -> None:
    study = open_folder(make_swept_study(tmp_path / "s", DATASETS))[0]
    found = compare_datasets(study, ACCURACY)
    assert found is not None
    assert find_interactions(study, ACCURACY) == []  # datasets differ in scale
    assert found.ranks == {"sgd": 2.0, "adam": 2.0, "slow": 2.0}
    mnist, digits = (found.differences["adam", f"data={data}"] for data in ("mnist", "digits"))
    assert (mnist.mean, mnist.high, mnist.pairs) == pytest.approx((0.02, 0.02 + 0.024841, 3), abs=1e-6)
    assert (digits.mean, digits.high, digits.pairs) == pytest.approx((-0.015, -0.015 + 0.063531, 2), abs=1e-6)
    table = build_across_datasets(study, ACCURACY, found)
    assert [cell.text for cell in table.rows[0]] == ["sgd", "mean 91.00", "mean 80.00", "2.00"]
    assert [cell.text for cell in table.rows[1]] == ["adam", "+2.00 ± 2.48", "-1.50 ± 6.35", "2.00"]
    assert "2 datasets are too few, a signed-rank test has p = 0.5 at best (Demšar 2006" in table.caption
    loss = compare_datasets(study, Metric("test/loss"))  # 1 - accuracy: the same ranks, the other way round
    assert loss is not None
    assert loss.ranks == found.ranks


def test_ranks_are_over_datasets_that_every_row_has(tmp_path: Path) -> None:
    cells = DATASETS | {("slow", "data=digits"): {0: None}}
    study = open_folder(make_swept_study(tmp_path / "s", cells))[0]
    found = compare_datasets(study, ACCURACY)
    assert found is not None
    assert found.ranks == {"sgd": 2.5, "adam": 1.0, "slow": 2.5}
    table = build_across_datasets(study, ACCURACY, found)
    assert "over 1 dataset (not digits, where rows have no result)" in table.caption
    assert table.rows[2][2].text == "\N{EN DASH}"


def test_other_data_are_marked_within_a_dataset_alone(tmp_path: Path) -> None:
    folder = make_swept_study(tmp_path / "s", DATASETS)
    for (row, swept), values in DATASETS.items():
        for seed in (seed for seed, value in values.items() if value is not None):
            file = folder / f"{row}/seed={seed},{swept}/result.json"
            digest = "e" * 64 if (row, swept) == ("adam", "data=mnist") else str(len(swept) % 10) * 64
            file.write_text(json.dumps(json.loads(file.read_text()) | {"dataset_hash": digest}))
    assert [note.row for note in note_provenance(open_folder(folder)[0])] == ["adam, data=mnist"]


def test_settled_studies_claim_by_their_own_intervals_alone(tmp_path: Path) -> None:
    verdict = {"row": "adam", "swept": ["data=mnist"], "verdict": "told", "n": 3, "mean": 0.02}
    settling = {"looks": [3], "error": 0.05, "margin": None, "metric": "test/accuracy", "comparisons": 4}
    settling |= {"critical_values": [5.0], "verdicts": [verdict | {"low": 0.01, "high": 0.03}]}
    study = open_folder(make_swept_study(tmp_path / "s", DATASETS, settling=settling))[0]
    found = compare_datasets(study, ACCURACY)
    assert found is not None
    assert [*found.differences] == [("adam", "data=mnist")]
    assert found.differences["adam", "data=mnist"].high == 0.03
    assert "repeated interval" in build_across_datasets(study, ACCURACY, found).caption
    other = compare_datasets(study, Metric("test/f1"))
    assert other is not None
    assert {one.high for one in other.differences.values()} == {None}

    study = open_folder(make_swept_study(tmp_path / "x", PLANTED, settling=settling | {"verdicts": []}))[0]
    (interactions,) = find_interactions(study, ACCURACY)
    none = interactions.found[1].change
    assert none is not None
    assert none.mean == pytest.approx(0.00333333, abs=1e-7)
    assert (none.low, none.p_value, none.p_holm) == (None, None, None)
    table = build_interactions(study, ACCURACY, interactions)
    assert "there is no claim" in table.caption
    assert [column.label for column in table.columns][-1] == "change"
    times = measure_times(study)
    assert times is not None
    assert "difference_low" not in str(build_target_times(study, times).records)
    assert "epochs_low" not in build_target_times(study, times).records[0]


def test_the_report_has_the_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, cells in (("x", PLANTED), ("y", DATASETS)):
        make_swept_study(tmp_path / name, cells)
        assert main([str(tmp_path / name), "--target", "0.5", "--no-figures"]) == 0
        page = (tmp_path / name / "report/report.html").read_text()
        assert ("<h2>Interactions</h2>" in page, "<h2>Across datasets</h2>" in page) == (name == "x", name == "y")
        assert ("<h2>Ranking</h2>" in page) == (name == "x"), "accuracies on two datasets are not ranked as one"
        said = "Whether differences change with optim is not told by 3 seeds: none (adam against sgd)."
        assert page.count(said) == (name == "x")
        assert "<h3>Time to a target</h3>" in page
        assert "Time to a target" in capsys.readouterr().out
    lines = list(csv.DictReader((tmp_path / "x/report/tables/time_to_target.csv").read_text().splitlines()))
    # Validation is the accuracy - 0.3 after epoch 1, - 0.15 after epoch 2: 0.65 of after with sgd, seed 2, reaches 0.5.
    assert [line["reached"] for line in lines if line["row"] == "after, optim=sgd"] == ["1"]
    assert main([str(tmp_path / "x"), "--target", "50", "--no-figures"]) == 2
    assert capsys.readouterr().err == "error: --target 50: val/accuracy is a fraction from 0 to 1, such as 0.9\n"


def test_parts_have_figures(tmp_path: Path) -> None:
    study = open_folder(make_swept_study(tmp_path / "s", DATASETS))[0]
    parts = build_parts(study, ACCURACY, target=0.6)
    assert [part.table.name for part in parts] == ["across_datasets", "time_to_target"]
    for part in parts:
        assert sorted(part.figure) == ["png", "svg"]
        assert f"<h3>{part.caption}</h3>" in "".join(show_parts(parts, part.heading))
    assert not any(part.figure for part in build_parts(study, ACCURACY, draw=False))
