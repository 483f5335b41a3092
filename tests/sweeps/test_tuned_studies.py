"""Tuned and settling studies and searches from the command line to their end, on values."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import yaml

from convolt.reports.report import main as report
from convolt.reports.sequential import Design, judge
from convolt.sweeps import dry_run
from convolt.sweeps.cost import Cost
from convolt.sweeps.study import CommandLine, read_study
from convolt.sweeps.study_plan import StudyPlan
from convolt.sweeps.sweep import _recorded_critical_values
from in_process import type_here

ROOT = Path(__file__).resolve().parents[2]
ROWS = ("plain", "dropout")
PAGE = """\
# @package hydra.sweeper.study
title: Dropout
question: Does it help?
base: [model=lenet, data=digits, data.train_size=200, trainer.max_epochs=1, optim=sgd]
baseline: plain
seeds: [0, 1]
tune:
  space: {optim.lr: {low: 0.01, high: 1, log: true}, optim.weight_decay: [0, 0.001]}
  trials: 2
  extend: 1
settle: {looks: [2, 3], margin: 0.003}
runs:
  plain: {}
  dropout: {overrides: [model.dropout=0.5]}
"""
SEARCH = (
    "-m", "optim.lr=interval(1e-3,1)", "hydra.sweeper.trials=3", "seed=0,1", "optim=sgd", "data=digits",
    "data.train_size=200", "trainer.max_epochs=1", "hydra.sweep.dir=found",
)  # fmt: skip


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def write_page(folder: Path, old: str = "", new: str = "") -> None:
    page = folder / "pages/study/dropout.yaml"
    page.parent.mkdir(parents=True, exist_ok=True)
    assert old in PAGE
    page.write_text(PAGE.replace(old, new, 1) if old else PAGE)


def arguments(folder: Path, data_root: Path, *typed: str) -> list[str]:
    usual = [f"data.root={data_root}", "trainer.threads=1", "pictures.enabled=false"]
    study = ["study=dropout", f"hydra.searchpath=[file://{folder / 'pages'}]", "hydra.sweep.dir=study"]
    return [str(ROOT / "train.py"), *([] if "-m" in typed else study), *usual, *typed]


def start(folder: Path, data_root: Path, *typed: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *arguments(folder, data_root, *typed)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(folder: Path, data_root: Path, *typed: str) -> str:
    done = type_here(arguments(folder, data_root, *typed)[1:], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def decisions(study: dict[str, Any]) -> Any:
    cells = [(cell["row"], cell["choice"]) for cell in study["tuning"]["cells"]]
    return cells, study["settling"]["verdicts"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> tuple[Path, str]:
    """A study that nobody interrupted, and what it said."""
    folder = tmp_path_factory.mktemp("whole")
    write_page(folder)
    return folder, finish(folder, data_root, "hydra.sweeper.report=true")


def test_trials_choices_and_verdicts_come_from_a_bundle_and_nothing_runs_again(
    whole: tuple[Path, str], data_root: Path, tmp_path: Path
) -> None:
    write_page(tmp_path)
    assert report([str(whole[0] / "study"), "--bundle", str(tmp_path / "study.zip")]) == 0
    said = finish(tmp_path, data_root, "hydra.sweeper.have=study.zip")
    study, before = (read(folder / "study/study.json") for folder in (tmp_path, whole[0]))
    assert decisions(study) == decisions(before)
    assert all(study[key] == before[key] for key in ("rows", "seeds", "tuning"))
    runs = len([*(tmp_path / "study").rglob("result.json")])
    assert f"{runs} finished runs taken from study.zip\n" in said
    assert f"{runs} runs, {runs} finished before" in said
    assert not [*(tmp_path / "study").rglob("run.log")]


def test_trials_are_scored_on_validation_images_and_the_best_one_is_chosen(whole: tuple[Path, str]) -> None:
    folder, said = whole[0] / "study", whole[1]
    tuning = read(folder / "study.json")["tuning"]
    assert {key: tuning[key] for key in ("trials", "seeds", "extend", "monitor")} == {
        "trials": 2, "seeds": [1000], "extend": 1, "monitor": "val/accuracy",
    }  # fmt: skip
    assert [(cell["row"], cell["swept"]) for cell in tuning["cells"]] == [("plain", []), ("dropout", [])]
    points = [[trial["values"] for trial in cell["trials"]] for cell in tuning["cells"]]
    assert points[0] == points[1], "the same points for rows of the same space"
    assert points[0][:2] == [
        {"optim.lr": 0.1, "optim.weight_decay": 0}, {"optim.lr": 0.0316, "optim.weight_decay": 0.001},
    ]  # fmt: skip
    assert len(points[0]) in (2, 4)
    for cell in tuning["cells"]:
        assert cell["space"]["optim.lr"] == {"low": 0.01, "high": 1, "log": True}
        scores = []
        for number, trial in enumerate(cell["trials"]):
            (run,) = trial["runs"]
            assert trial["number"] == number
            assert run["dir"] == f"{cell['row']}/tuning/trial={number:02},seed=1000"
            result = read(folder / run["dir"] / "result.json")
            assert not [name for name in result["metrics"] if name.startswith("test/")]
            assert not (folder / run["dir"] / "checkpoints").exists()
            assert run["score"] == result["metrics"]["val/accuracy"]
            scores.append(run["score"])
        choice = cell["choice"]
        assert (choice["trial"], choice["score"]) == (scores.index(max(scores)), max(scores))
        assert choice["values"] == points[0][choice["trial"]]
        typed = " ".join(f"{key}={value}" for key, value in choice["values"].items())
        assert f"{cell['row']}: {typed} chosen (val/accuracy {100 * max(scores):.2f})" in said


def test_runs_carry_the_choice_and_untuned_ones_do_not(whole: tuple[Path, str]) -> None:
    study = read(whole[0] / "study/study.json")
    for cell in study["tuning"]["cells"]:
        row = study["rows"][cell["row"]]
        seeds = [run["seed"] for run in row["runs"]]
        assert seeds == study["seeds"] == list(range(len(seeds)))
        for run in row["runs"]:
            result = read(whole[0] / "study" / run["dir"] / "result.json")
            config = (whole[0] / "study" / run["dir"] / ".hydra/overrides.yaml").read_text().splitlines()
            for key, value in cell["choice"]["values"].items():
                assert f"- {key}={value}" in config
            assert result["seed"] == run["seed"]
            assert "test/accuracy" in result["metrics"]
        assert [run["dir"] for run in row["untuned"]] == [f"{cell['row']}/untuned/seed={n}" for n in range(3)]
        for run in row["untuned"]:
            config = (whole[0] / "study" / run["dir"] / ".hydra/overrides.yaml").read_text()
            assert "optim.lr" not in config
            assert "optim.weight_decay" not in config


def test_verdicts_are_those_of_the_results(whole: tuple[Path, str]) -> None:
    folder, said = whole[0] / "study", whole[1]
    settling = read(folder / "study.json")["settling"]
    assert {key: settling[key] for key in ("looks", "error", "margin", "metric", "comparisons")} == {
        "looks": [2, 3], "error": 0.05, "margin": 0.003, "metric": "test/accuracy", "comparisons": 1,
    }  # fmt: skip
    (verdict,) = settling["verdicts"]
    values = [
        [read(folder / row / f"seed={seed}/result.json")["metrics"]["test/accuracy"] for seed in range(verdict["n"])]
        for row in ROWS
    ]
    design = Design((2, 3), 0.05, 1, 0.003, tuple(settling["critical_values"]))
    judgment = judge(design, [own - base for base, own in zip(*values, strict=True)])
    assert judgment is not None
    assert verdict == {"row": "dropout", "swept": [], "reason": ""} | vars(judgment)
    assert verdict["mean"] == pytest.approx(fmean(values[1]) - fmean(values[0]))
    assert f"dropout: {verdict['verdict']} after {verdict['n']} seeds" in said
    assert (folder / "report/report.html").exists()
    assert said.splitlines()[-1] == "study"


def test_the_same_command_again_launches_nothing_and_changes_nothing(whole: tuple[Path, str], data_root: Path) -> None:
    study = whole[0] / "study/study.json"
    before = study.read_bytes()
    times = {path: path.stat().st_mtime_ns for path in study.parent.rglob("result.json")}
    said = finish(whole[0], data_root)
    assert f"{len(times)} runs, {len(times)} finished before" in said
    assert study.read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in study.parent.rglob("result.json")} == times


def test_looks_that_change_after_the_first_look_are_refused_also_after_a_restart(
    whole: tuple[Path, str], data_root: Path, answer: Any
) -> None:
    before = (whole[0] / "study/study.json").read_bytes()
    try:
        write_page(whole[0], "looks: [2, 3]", "looks: [2, 4]")
        os.chdir(whole[0])
        status, said = answer(" ".join(f"'{each}'" for each in arguments(whole[0], data_root)[1:]))
    finally:
        write_page(whole[0])
    assert status == 2
    assert said.startswith("error: settle.looks was [2, 3] at the first look and is [2, 4] now")
    assert len(said.splitlines()) == 1
    assert (whole[0] / "study/study.json").read_bytes() == before


def test_a_study_that_was_killed_decides_the_same(whole: tuple[Path, str], data_root: Path, tmp_path: Path) -> None:
    write_page(tmp_path)
    process = start(tmp_path, data_root)
    until = time.monotonic() + 100
    wanted = random.randint(1, 12)
    while len(list(tmp_path.rglob("result.json"))) < wanted:
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    finish(tmp_path, data_root)
    assert decisions(read(tmp_path / "study/study.json")) == decisions(read(whole[0] / "study/study.json"))


def test_one_row_first_and_then_all_and_only_the_best_checkpoint_is_kept(data_root: Path, tmp_path: Path) -> None:
    write_page(tmp_path)
    block = "hydra.sweeper.tune={space: {optim.lr: {low: 0.01, high: 1, log: true}}, trials: 2}"
    typed = [block, "hydra.sweeper.settle=null", "seed=0", "hydra.sweeper.keep=best"]
    said = finish(tmp_path, data_root, *typed, "hydra.sweeper.rows=[dropout]")
    assert "dropout: optim.lr=" in said
    assert "plain" not in said
    assert "4 of 4 runs finished" in said
    assert {path.name for path in (tmp_path / "study").iterdir()} == {"study.json", "dropout"}
    first = read(tmp_path / "study/study.json")["tuning"]["cells"]
    assert [cell["choice"] is None for cell in first] == [True, False]
    said = finish(tmp_path, data_root, *typed)
    assert "8 of 8 runs finished" in said
    study = read(tmp_path / "study/study.json")
    assert study["tuning"]["cells"][1] == first[1]
    assert study["tuning"]["cells"][0]["choice"]
    assert "settling" not in study
    assert [path.name for path in tmp_path.rglob("*.ckpt")] == ["best.ckpt"] * 4
    assert not list(tmp_path.glob("study/*/tuning/*/checkpoints"))


def test_a_search_is_resumed_and_names_what_it_has_found(data_root: Path, tmp_path: Path) -> None:
    said = finish(tmp_path, data_root, *SEARCH)
    assert "6 of 6 runs finished" in said
    study = read(tmp_path / "found/study.json")
    assert study["kind"] == "search"
    (cell,) = study["tuning"]["cells"]
    results = [
        [read(tmp_path / "found" / run["dir"] / "result.json")["metrics"] for run in trial["runs"]]
        for trial in cell["trials"]
    ]
    assert not [name for runs in results for metrics in runs for name in metrics if name.startswith("test/")]
    scores = [fmean(metrics["val/accuracy"] for metrics in runs) for runs in results]
    assert [run["seed"] for run in cell["trials"][0]["runs"]] == [0, 1]
    assert cell["choice"]["score"] == pytest.approx(max(scores))
    assert f"search: optim.lr={cell['choice']['values']['optim.lr']} chosen" in said
    before = (tmp_path / "found/study.json").read_bytes()
    said = finish(tmp_path, data_root, *SEARCH)
    assert "6 runs, 6 finished before" in said
    assert (tmp_path / "found/study.json").read_bytes() == before


def test_a_seed_that_diverged_excludes_its_row_and_is_not_run_again(data_root: Path, tmp_path: Path) -> None:
    write_page(tmp_path, "model.dropout=0.5", "optim.lr=1e30")
    typed = ("hydra.sweeper.tune=null", "hydra.sweeper.settle={looks: [2, 3]}", "hydra.launcher.n_jobs=1")
    said = []
    for _ in range(2):
        process = start(tmp_path, data_root, *typed)
        said.append(process.communicate(timeout=200)[0])
        assert process.returncode == 1, said
        (verdict,) = read(tmp_path / "study/study.json")["settling"]["verdicts"]
        assert (verdict["verdict"], verdict["reason"]) == ("excluded", "seed 0 diverged")
    assert "dropout/seed=0 running" in said[0]
    assert "running" not in said[1], "its result is known"
    for each in said:
        assert "2 of 4 runs" in each
        assert "dropout/seed=1" in each


@pytest.fixture
def ask(answer: Any, tmp_path: Path, data_root: Path) -> Iterator[Any]:
    """Type a study into this process: ask("seed=0") returns the status and the line."""
    write_page(tmp_path)

    def make(*typed: str) -> tuple[int, str]:
        return answer(" ".join(f'"{each}"' for each in arguments(tmp_path, data_root, *typed)[1:]))

    return make


def test_max_hours_chooses_the_seeds_before_the_first_run_only(
    ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def estimate(jobs: Any, *, measure: bool, cells: Any) -> list[Cost | None]:
        asked.append(len(jobs))
        return [Cost(900, 1, 0, 0, 0, "measured") if measure else None for _ in jobs]

    shown: list[list[int]] = []
    monkeypatch.setattr(dry_run, "estimate_costs", estimate)
    monkeypatch.setattr(dry_run, "count_slots", lambda jobs: 1)
    monkeypatch.setattr(dry_run, "show_plan", lambda _, __, runs, *___, **____: shown.append([r.seed for r in runs]))
    untuned = ["hydra.sweeper.tune=null", "hydra.sweeper.settle=null", "hydra.sweeper.dry_run=true"]
    for hours, seeds in {"0.5": [0], "1.2": [0, 1], "1.5": [0, 1, 2]}.items():
        assert ask(*untuned, f"hydra.sweeper.max_hours={hours}", "hydra.sweeper.measure=true") == (0, "")
        assert list(dict.fromkeys(shown.pop())) == seeds
    status, said = ask(*untuned, "hydra.sweeper.max_hours=0.1", "hydra.sweeper.measure=true")
    assert status == 2
    assert "hydra.sweeper.max_hours=0.1 is too little" in said
    assert "set 0.5 or more for one seed" in said
    status, said = ask(*untuned, "hydra.sweeper.max_hours=1")
    assert status == 2
    assert "add hydra.sweeper.measure=true" in said
    (tmp_path / "study").mkdir()
    (tmp_path / "study/study.json").write_text(json.dumps({"seeds": [0, 1, 2, 3]}))
    asked.clear()
    assert ask(*untuned, "hydra.sweeper.max_hours=0.5") == (0, "")
    assert list(dict.fromkeys(shown.pop())) == [0, 1, 2, 3]
    assert asked == [8]


def test_what_is_frozen_stands_in_study_json_before_anything_is_chosen(tmp_path: Path) -> None:
    def plan_of(**change: Any) -> StudyPlan:
        return StudyPlan.of(read_study(yaml.safe_load(PAGE) | change, "dropout"), "dropout", CommandLine())

    fixed = plan_of(settle=None)
    assert fixed.record(fixed.schedule.runs(lambda _: None), lambda _: None, None)["seeds"] == [0, 1]
    settling = {"looks": [2, 3], "error": 0.05, "comparisons": 1, "critical_values": [19.0, 6.6]}
    (tmp_path / "study.json").write_text(json.dumps({"settling": settling}))
    assert _recorded_critical_values(tmp_path, plan_of()) == (19.0, 6.6)
    more = yaml.safe_load(PAGE)["runs"] | {"more": {"overrides": ["model.dropout=0.2"]}}
    assert _recorded_critical_values(tmp_path, plan_of(runs=more)) is None, "they are of fewer comparisons"


TUNED = "hydra.sweeper.tune={{space: {{{}}}, trials: 4{}}}"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["optim.lr=0.1"], "optim.lr=0.1: study dropout tunes optim.lr; leave it out, or set hydra.sweeper.tune=null"),
        (["optim.lr=0.1,0.2"], "study dropout tunes optim.lr"),
        (
            [TUNED.format("model.dropout: {low: 0, high: 0.5}", "")],
            "study dropout, row 'dropout': model.dropout is tuned and set; leave one of them out",
        ),
        (["seed=0,1"], "study dropout chooses its seeds by its block settle: leave seed out, or set"),
        (
            ["seed=0,1000", "hydra.sweeper.settle=null"],
            "study dropout: seed 1000 is one of the study and of tune.seeds",
        ),
        ([TUNED.format("optim.lr: {low: 0.1, high: 1}", ", seeds: [7,7]")], "tune.seeds lists a seed twice"),
        (["data.val_fraction=0", "trainer.test=last"], "data.val_fraction=0 leaves none: set hydra.sweeper.tune=null"),
        (["hydra.sweeper.settle={looks: [5, 3]}"], "hydra.sweeper.settle: looks must increase, not [5, 3]"),
        (["trainer.test=none"], "row 'plain': with trainer.test=none there is no test/accuracy to judge"),
        (["hydra.sweeper.settle={metric: test/acuracy}"], "no metric of a result; did you mean 'test/accuracy'"),
        ([TUNED.format("optim.lr: {low: 1, high: 1}", "")], "space.optim.lr: low (1) must be below high (1)"),
        ([TUNED.format("optim.lr: {low: a, high: 1}", "")], "space.optim.lr.low: it must be a number"),
        ([TUNED.format("optim.lr: 1", "")], "space.optim.lr: it must be a list of values, or {low: NUMBER"),
        (
            [TUNED.format("optim.rl: {low: 0.1, high: 1}", "")],
            "optim.rl: there is no such key; did you mean 'optim.lr'",
        ),
        ([TUNED.format("seed: [1,2]", "")], "study dropout: seed cannot be tuned"),
        (
            ["optim=momentum", TUNED.format("optim.momentum: {low: 0.5, high: 0.99}", ", extend: 1")],
            "optim.momentum=1.11 will not do: it must be less than 1",
        ),
        (["hydra.sweeper.tune={space: {optim.lr: [1,2]}, trails: 4}"], "no key trails; did you mean 'trials'?"),
        (["hydra.sweeper.tune=x"], "hydra.sweeper.tune=x: it must be page, null or a block"),
        (["hydra.sweeper.settle=x"], "hydra.sweeper.settle=x: it must be page, null, true or a block"),
        (["hydra.sweeper.keep=some"], "hydra.sweeper.keep=some: it must be all, best or none"),
        (["hydra.sweeper.trials=4"], "hydra.sweeper.trials=4 is for a search"),
        (["optim.lr=interval(0.1,1)"], "optim.lr=interval(...): what a study tunes is in hydra.sweeper.tune"),
        (["hydra.sweeper.max_hours=1"], "hydra.sweeper.max_hours chooses the number of seeds: leave out seed and"),
        (["hydra.sweeper.max_hours=0", "hydra.sweeper.settle=null"], "max_hours=0: it must be more than 0"),
        (["-m", "hydra.sweeper.trials=4", "optim.lr=0.1,1"], "hydra.sweeper.trials is for a search: write"),
        (["-m", "optim.lr=interval(0.1,1)"], "optim.lr=interval(...): set hydra.sweeper.trials=16 to search it"),
        (["-m", "hydra.sweeper.trials=0", "optim.lr=interval(0.1,1)"], "hydra.sweeper.trials: it must be greater"),
        (["-m", "hydra.sweeper.trials=2", "optim.lr=interval(1,0.1)"], "low (1.0) must be below high (0.1)"),
        (["-m", "hydra.sweeper.trials=2", "optim.lr=tag(lgo,interval(0.1,1))"], "there is no tag lgo"),
        (["-m", "hydra.sweeper.trials=2", "seed=interval(0,9)"], "a search: seed cannot be tuned"),
        (["-m", "hydra.sweeper.trials=2", "optim.lr=interval(0.1,1)", "seed=0,0"], "seed=0,0 lists a seed twice"),
        (
            ["-m", "hydra.sweeper.trials=2", "optim.lr=interval(0.1,1)", "data.val_fraction=0"],
            "a search needs validation images, and data.val_fraction=0 leaves none",
        ),
        (["-m", "seed=0,1", "hydra.sweeper.settle=true"], "hydra.sweeper.settle=true is for a study"),
    ],
)
def test_mistakes_are_told_in_a_line_before_anything_starts(
    ask: Any, tmp_path: Path, typed: list[str], message: str
) -> None:
    status, said = ask(*typed)
    assert status == 2, said
    assert message in said
    assert len(said.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["pages"]
