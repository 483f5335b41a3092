"""The report of studies that tune and settle, on folders whose numbers are known."""
# ruff: noqa: RUF001 (the dash of empty cells)

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from convolt.reports import tuning_tables
from convolt.reports.collect import open_folder, read_study
from convolt.reports.find import find
from convolt.reports.report import main
from convolt.reports.sequential import Design, judge
from decided_study import SETTLING, VERDICTS, read, rewrite, write_run, write_search, write_study

WORDS_OF_FIXED_SEEDS = ("Student", "p-value", "Holm", "95% interval of", "t(0.975")


def report(folder: Path, *arguments: str) -> str:
    """Make the report without figures; return the page in Markdown."""
    assert main([str(folder), "--no-figures", *arguments]) == 0
    return (folder / "report/report.md").read_text()


def table(folder: Path, name: str) -> dict[str, dict[str, str]]:
    """Read a CSV of a report by row."""
    lines = list(csv.DictReader((folder / f"report/tables/{name}.csv").read_text().splitlines()))
    return {line["row"]: line for line in lines}


def numbers(line: dict[str, str], *keys: str) -> list[float]:
    return [float(line[key]) for key in keys]


def test_the_fixture_is_what_judging_says() -> None:
    design = Design((3, 5, 8), 0.05, 2, 0.01, tuple(SETTLING["critical_values"]))  # type: ignore[arg-type]
    told = judge(design, [0.70 - 0.60, 0.721 - 0.62, 0.742 - 0.64])
    assert told is not None
    assert (told.verdict, told.n) == ("told", 3)
    assert [told.mean, told.low, told.high] == pytest.approx([VERDICTS[1][key] for key in ("mean", "low", "high")])
    later = Design((5, 8), 0.05, 2, None, (6.565, 4.15))
    open_yet = judge(later, [0.01, -0.02, 0.03, 0.0, 0.02])
    assert open_yet is not None
    assert [open_yet.low, open_yet.high] == pytest.approx([VERDICTS[0]["low"], VERDICTS[0]["high"]], abs=1e-6)


def test_a_settled_study_shows_the_repeated_interval_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = write_study(tmp_path / "s")
    text = report(study)
    assert "| sgd | 5 | 62.00 | 1.58 | baseline | – | – | – | – |" in text
    assert "| momentum | 5 | 62.80 | 3.03 | +0.80 ± 5.65 | 5 seeds | undecided | – | – |" in text
    assert "| adam | 3 | 72.10 | 2.10 | +10.10 ± 0.94 | 3 seeds | told | 75.00 | -2.90 |" in text
    assert "at all looks (3, 5, 8 seeds) hold the true differences together in 95% of studies" in text
    assert "'negligible': it lies within ± 1.00, so they differ by less than what matters" in text
    assert "c = 16.28 at 3, 6.565 at 5, 4.15 at 8 seeds" in text
    adam = table(study, "results")["adam"]
    assert numbers(adam, "difference", "repeated_interval_low", "repeated_interval_high", "look") == pytest.approx(
        [0.101, 0.101 - 0.0094016, 0.101 + 0.0094016, 3]
    )
    assert not {"p_value", "p_value_holm", "interval_low", "interval_high", "published_in_interval"} & {*adam}
    published = table(study, "published")["adam"]
    assert "published_in_interval" not in published
    assert "| adam | test accuracy | 75.00 | 72.10 | -2.90 | somebody 2020 |" in text
    assert "| sgd | 62.00 | 0.3800 | 62.00 |" in text  # all test metrics, without intervals
    shown = capsys.readouterr().out
    page = (study / "report/report.html").read_text()
    for form in (text, page, shown, *(file.read_text() for file in (study / "report/tables").glob("*.tex"))):
        for words in WORDS_OF_FIXED_SEEDS:
            assert words not in form
    assert r"+10.10 $\pm$ 0.94 & 3 seeds & told" in (study / "report/tables/results.tex").read_text()


def test_another_metric_carries_no_claim(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    text = report(study, "--metric", "test/loss")
    assert "| adam | 3 | 0.2790 | 0.0210 | -0.1010 |\n" in text
    assert "carry no interval and no claim" in text
    results = table(study, "results")
    assert numbers(results["momentum"], "difference", "pairs") == pytest.approx([-0.008, 5])
    assert not {"verdict", "look", "p_value", "difference_low"} & {*results["adam"]}
    for words in ("verdict |", "told", *WORDS_OF_FIXED_SEEDS):
        assert words not in text.split("### Methods")[0]


@pytest.mark.parametrize(
    ("verdict", "cells", "note"),
    [
        (
            {"verdict": "excluded", "reason": "seed 2 diverged"},
            "– | – | excluded<sup>a</sup>",
            "excluded: seed 2 diverged",
        ),
        (
            {"verdict": "undecided", "reason": "", "n": None, "mean": None, "low": None, "high": None},
            "– | – | undecided",
            "'undecided': more seeds to come, no claim",
        ),
        (
            {"verdict": "negligible", "n": 8, "mean": 0.001, "low": -0.004, "high": 0.006},
            "+0.10 ± 0.50 | 8 seeds | negligible",
            "",
        ),
        (
            {"verdict": "open", "n": 8, "mean": 0.0, "low": 0.0, "high": 0.0},
            "+0.00<sup>a</sup> | 8 seeds | open",
            "all differences are the same, which is no evidence: no interval, no claim",
        ),
    ],
)
def test_verdicts(tmp_path: Path, verdict: dict[str, Any], cells: str, note: str) -> None:
    study = write_study(tmp_path / "s")
    spec = read(study)
    spec["settling"]["verdicts"][0] = {"row": "momentum", "swept": []} | verdict
    rewrite(study, spec)
    text = report(study)
    assert f"| momentum | 5 | 62.80 | 3.03 | {cells} |" in text
    assert note in text


def test_choices_trials_and_defaults(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    text = report(study)
    assert "| momentum | 1, highest tried | false | 93.00 | 4 | 0 | 8.0 |" in text  # 8 runs, 30 s, 2 threads
    assert "| adam | 0.01, lowest tried | true | 94.00 | 4 | 2 | 8.0 |" in text
    assert "24.0 min in sum" in text
    assert "at the chosen settings; how much another search would have chosen differently is not in the" in text
    choices = table(study, "choices")
    assert (choices["momentum"]["optim.lr edge"], choices["sgd"]["optim.lr edge"]) == ("high", "")
    assert numbers(choices["sgd"], "optim.lr", "score", "trial", "processor_seconds") == [0.1, 0.91, 1, 480]
    trials = list(csv.DictReader((study / "report/tables/trials.csv").read_text().splitlines()))
    assert [(line["trial"], line["score"], line["state"]) for line in trials[:4]] == [
        ("0", "0.81", "finished"), ("1", "0.91", "chosen"), ("2", "0.86", "finished"), ("3", "", "diverged"),
    ]  # fmt: skip
    assert trials[0]["score seed=1000"] == "0.8"
    untuned = table(study, "untuned")
    # momentum: 0.61 - 0.1, 0.60 - 0.2, 0.67 - 0.3: mean 0.426667
    assert numbers(untuned["momentum"], "n_untuned", "untuned", "tuned", "gain") == pytest.approx(
        [3, 0.4266667, 0.628, 0.2013333]
    )
    page = (study / "report/report.html").read_text()
    assert "<dt>chosen by tuning</dt><dd>optim.lr=0.1 optim.nesterov=false</dd>" in page
    assert "<dt>trials</dt><dd>24 finished</dd>" in page


def test_a_tuned_study_of_fixed_seeds_keeps_its_t_intervals(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    rewrite(study, {key: value for key, value in read(study).items() if key != "settling"})
    text = report(study)
    assert "| momentum | 5 | 62.80 ± 3.77 | 3.03 |" in text  # 2.776445 * 0.0303315 / √5
    assert "Holm" in text
    assert "Rows are tuned: everything here is at the chosen settings" in text


def test_figures(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    assert main([str(study)]) == 0
    drawn = {path.stem for path in (study / "report/figures").glob("*.svg")}
    assert {"comparison", "sensitivity", "best_so_far"} <= drawn
    text = (study / "report/report.md").read_text()
    assert "its difference from sgd with repeated interval](figures/comparison.png)" in text
    assert "95% interval of each row" not in text


def test_works_half_finished(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    spec = read(study)
    for row in spec["rows"].values():
        row |= {"runs": [], "untuned": []}
    spec["settling"]["verdicts"] = [
        {"row": row, "swept": [], "verdict": "undecided", "reason": ""} for row in ("momentum", "adam")
    ]
    for cell in spec["tuning"]["cells"]:
        cell["choice"] = None
        for trial in cell["trials"]:
            for run in trial["runs"]:
                run["score"] = None  # finished since study.json was written
    rewrite(study, spec)
    for path in [each for row in spec["rows"] for each in (study / row).iterdir() if each.name != "tuning"]:
        shutil.rmtree(path)
    shutil.rmtree(study / "momentum/tuning/trial=03,seed=1000")
    failed = study / "adam/tuning/trial=01,seed=1001"
    (failed / "result.json").unlink()
    (failed / "status.json").write_text(json.dumps({"state": "failed", "error": "out of memory"}))
    assert main([str(study)]) == 0
    text = (study / "report/report.md").read_text()
    assert "| momentum | – | – | –<sup>a</sup> | 3 of 4 | 0 | 7.0<sup>b</sup> |" in text
    assert "no choice yet: trials have not finished" in text
    assert "of 7 of 8 runs; the others record no time" in text
    assert "| adam | 1001 | failed | out of memory | adam/tuning/trial=01,seed=1001 |" in text
    assert "| momentum | 0 | – | – | – | – | undecided |" in text
    trials = list(csv.DictReader((study / "report/tables/trials.csv").read_text().splitlines()))
    assert [line["state"] for line in trials[4:8]] == ["finished"] * 3 + ["missing, finished"]
    assert trials[0]["score"] == "0.81"


def test_nothing_has_run_yet(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    spec = read(study)
    for cell in spec["tuning"]["cells"]:
        cell |= {"choice": None, "trials": []}
    for row in spec["rows"].values():
        row |= {"runs": [], "untuned": []}
    spec["settling"]["verdicts"] = []
    rewrite(tmp_path / "new", spec)
    assert main([str(tmp_path / "new")]) == 0


def test_swept_values_have_their_own_choices_and_verdicts(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    spec = read(study)
    swept = ["data.batch_size=32"]
    spec["sweep"] = {"data.batch_size": ["32"]}
    for part in (*spec["tuning"]["cells"], *spec["settling"]["verdicts"]):
        part["swept"] = swept
    for row in spec["rows"].values():
        for run in (*row["runs"], *row["untuned"]):
            run["overrides"] = swept
    rewrite(study, spec)
    text = report(study)
    assert "| adam, data.batch_size=32 | 3 | 72.10 | 2.10 | +10.10 ± 0.94 | 3 seeds | told |" in text
    assert "| adam, data.batch_size=32 | 0.01, lowest tried | true |" in text
    assert list(table(study, "untuned")) == [f"{row}, data.batch_size=32" for row in ("sgd", "momentum", "adam")]


def test_a_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search = write_search(tmp_path / "find")
    assert main([str(search)]) == 0
    text = (search / "report/report.md").read_text()
    assert "- best setting: optim.lr=0.1 optim.nesterov=false, val accuracy 91.00%" in text
    assert "- run and test it: python train.py model=lenet optim.lr=0.1 optim.nesterov=false" in text
    assert "- trials: 8 finished" in text
    assert "| search | 3 | 1 | false | – | diverged |" in text
    assert "Results" not in text
    assert {path.stem for path in (search / "report/figures").glob("*.png")} == {"sensitivity", "best_so_far"}
    spec = read(search)
    spec["tuning"]["cells"][0]["choice"] = None
    rewrite(search, spec)
    assert "- best so far: optim.lr=0.1" in report(search)
    capsys.readouterr()
    assert main([str(tmp_path)]) == 0
    assert "8 finished" in capsys.readouterr().out
    assert open_folder(tmp_path)[0].kind == "search"


def test_the_smallest_loss_is_best() -> None:
    from convolt.reports.decisions import TrialRecord, TrialRun, TunedRow, Tuning
    from convolt.reports.formats import Metric
    from convolt.reports.records import RunRecord

    run = RunRecord(Path("x"), 0, "finished")
    trials = tuple(TrialRecord(i, {"optim.lr": x}, (TrialRun(run, x, False),)) for i, x in enumerate((0.3, 0.1, 0.2)))
    tuning = Tuning((0,), Metric("val/loss"), (TunedRow("a", "", {"optim.lr": [0.3, 0.1, 0.2]}, trials, None),))
    best = tuning_tables.find_best(tuning)
    assert best is not None
    assert best[2] == 0.1


def test_trials_are_no_runs_of_their_own(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    assert read_study(study).notes == ()
    assert [path.name for path in find(study / "adam")] == ["seed=0", "seed=1", "seed=2"]
    write_run(study / "adam/tuning/trial=99,seed=1000", 1000, {})  # of an older plan
    write_run(study / "adam/seed=9", 9, {})
    assert read_study(study).notes == ("1 run in this folder is not in study.json and left out: adam/seed=9",)
    write_run(tmp_path / "outputs/tuning/a", 0, {"test/accuracy": 0.5})  # a folder that happens to have the name
    assert [path.name for path in find(tmp_path / "outputs")] == ["a"]


def test_seeds_added_after_a_report_are_told(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    spec = {key: value for key, value in read(study).items() if key not in ("settling", "tuning")}
    runs = spec["rows"]["sgd"]["runs"]
    spec["rows"] = {"sgd": spec["rows"]["sgd"], "momentum": spec["rows"]["momentum"]}
    note = "note: seeds were added after a report was made: p-values and intervals of fixed-seed studies do not hold"

    def extend(n: int, **also: Any) -> str:
        spec["rows"]["sgd"]["runs"] = runs[:n]
        rewrite(study, spec | also)
        return report(study)

    assert note not in extend(1)
    assert note not in extend(3)  # one seed had no interval
    assert note not in extend(3)
    assert note in extend(4)
    assert table(study, "results")["sgd"]["seeds_at_first_report"] == "3"
    assert note in report(study, "--metric", "test/loss")  # and it is not forgotten
    assert note in extend(5)
    assert note not in extend(5, settling=SETTLING)


def test_planned_seeds_that_finish_later_are_not_added(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    rewrite(study, {key: value for key, value in read(study).items() if key not in ("settling", "tuning")})
    shutil.move(study / "sgd/seed=4", tmp_path / "later")
    report(study)
    shutil.move(tmp_path / "later", study / "sgd/seed=4")
    assert "seeds were added" not in report(study)
    (study / "report/tables/results.csv").write_bytes(b"\xff\x00row")
    assert "seeds were added" not in report(study)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tuning": {"seeds": [0], "cells": []}}, "damaged (tuning: there is no 'monitor')"),
        ({"tuning": {"seeds": [0], "monitor": "val/loss", "cells": 3}}, "(tuning: 'int' object is not iterable)"),
        ({"settling": SETTLING | {"looks": None}}, "(settling: 'NoneType' object is not iterable)"),
        ({"settling": SETTLING | {"verdicts": [{"row": "adam", "verdict": "won"}]}}, "the verdict of adam is 'won'"),
        ({"settling": SETTLING | {"verdicts": [{"row": "adam", "verdict": "told"}]}}, "adam is told, without an"),
        ({"kind": "search", "tuning": None}, "damaged (tuning: a search needs it)"),
    ],
)
def test_damage_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], message: str
) -> None:
    study = write_study(tmp_path / "s")
    rewrite(study, read(study) | change)
    assert main([str(study)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_a_trial_without_its_value_is_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = write_study(tmp_path / "s")
    spec = read(study)
    spec["tuning"]["cells"][0]["trials"][1]["values"]["optim.lr"] = "x"
    rewrite(study, spec)
    assert main([str(study)]) == 2
    assert "damaged (tuning: trial 1 of sgd has optim.lr=x)" in capsys.readouterr().err


def test_what_would_break_the_promise_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, search = write_study(tmp_path / "s"), write_search(tmp_path / "find")
    report(study, "--baseline", "sgd")
    capsys.readouterr()
    for arguments, message in (
        ([study, "--baseline", "adam"], "are planned for differences from 'sgd'; leave out --baseline"),
        (["--compare", study, study], "results decided how many seeds a settled study ran"),
        (["--compare", search, search], "is a search, whose trials are not tested"),
    ):
        assert main([*map(str, arguments), "--no-figures"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert message in error
