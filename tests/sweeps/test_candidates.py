"""Candidates for what a published table leaves open: checked, run beside the table, told apart from it, on values."""

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from convolt.config.compose import compose
from convolt.errors import UserError
from convolt.reports.report import main as report
from convolt.runs.config_hash import config_hash
from convolt.sweeps.candidate_runs import refuse_beside_candidates
from convolt.sweeps.study import CommandLine, Study, choose_blocks, parse_command_line, read_study
from convolt.sweeps.study_plan import StudyPlan
from convolt.system.installation import CONF
from in_process import type_here

PAGE = """\
# @package hydra.sweeper.study
title: Printed
question: What did they do?
base: [model=lenet, data=digits, data.train_size=200, trainer.max_epochs=2, data.val_fraction=0, trainer.test=last]
baseline: sgd
seeds: [0, 1]
candidates:
  rows: [sgd, adam]
  epochs: 1
  settings:
    as-it-stands: []
    tanh: [model.activation=tanh]
runs:
  sgd: {overrides: [optim=sgd], published: {test/accuracy: 0.9, source: "nobody2020, table 1"}}
  adam: {overrides: [optim=adam], published: {test/accuracy: 0.8, source: "nobody2020, table 1"}}
  dropout: {overrides: [model.dropout=0.5]}
"""
TRIED = [f"{row}/candidates/{name},seed=0" for name in ("as-it-stands", "tanh") for row in ("sgd", "adam")]


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def write_page(folder: Path, text: str = PAGE) -> None:
    page = folder / "pages/study/printed.yaml"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text)


def run(folder: Path, data_root: Path, *typed: str) -> str:
    usual = [f"data.root={data_root}", "trainer.threads=1", "pictures.enabled=false"]
    study = ["study=printed", f"hydra.searchpath=[file://{folder / 'pages'}]", "hydra.sweep.dir=study"]
    done = type_here([*study, *usual, *typed], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> tuple[Path, str]:
    """A study of which the candidates alone have run."""
    folder = tmp_path_factory.mktemp("tried")
    write_page(folder)
    return folder, run(folder, data_root, "hydra.sweeper.candidates=true", "hydra.sweeper.report=true")


def accuracy(folder: Path, place: str) -> float:
    return float(read(folder / "study" / place / "result.json")["metrics"]["test/accuracy"])


def test_candidates_run_alone_and_stand_apart_from_the_tables_rows(tried: tuple[Path, str]) -> None:
    folder, said = tried
    assert "4 of 4 runs finished" in said
    results = sorted(str(path.parent.relative_to(folder / "study")) for path in folder.rglob("result.json"))
    assert results == sorted(TRIED)
    assert not list(folder.rglob("*.ckpt"))
    study = read(folder / "study/study.json")
    assert [run["dir"] for row in study["rows"].values() for run in row["runs"]] == [
        f"{row}/seed={seed}" for row in ("sgd", "adam", "dropout") for seed in (0, 1)
    ]
    block = study["candidates"]
    assert (block["rows"], block["epochs"], block["seed"], block["chosen"]) == (["sgd", "adam"], 1, 0, None)
    assert [run["dir"] for each in block["settings"] for run in each["runs"]] == TRIED
    for place in TRIED:
        result = read(folder / "study" / place / "result.json")
        assert (result["epochs"], result["seed"]) == (1, 0)
        typed = (folder / "study" / place / ".hydra/overrides.yaml").read_text()
        assert ("model.activation=tanh" in typed) == ("tanh" in place)


def test_the_report_ranks_them_by_all_told_rows_and_keeps_them_out_of_the_results(tried: tuple[Path, str]) -> None:
    folder, said = tried
    differences = {
        name: [accuracy(folder, f"{row}/candidates/{name},seed=0") - published
               for row, published in (("sgd", 0.9), ("adam", 0.8))]
        for name in ("as-it-stands", "tanh")
    }  # fmt: skip
    errors = {name: math.sqrt((first**2 + second**2) / 2) for name, (first, second) in differences.items()}
    best, second = sorted(errors, key=lambda name: errors[name])
    page = (folder / "study/report/report.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith(f"| {best} |")).split("|")[3:]
    shown = [*(f"{100 * each:+.2f}" for each in differences[best]), f"{100 * errors[best]:.2f}", "1"]
    assert [cell.strip() for cell in row[: len(shown)]] == shown
    assert "A screening: 1 epoch of each run, seed 0" in page
    said = " ".join(said.split())
    assert f"{best} lies closest to the published numbers of sgd and adam together after 1 epoch, a screening" in said
    assert f"that of the second, {second}, {100 * errors[second]:.2f}; the gap" in said
    assert "has nothing to be measured by" in said
    results = (folder / "study/report/tables/results.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in results[1:]] == ["sgd", "adam", "dropout"]
    assert "6 missing" in page
    assert "not in study.json" not in page


def test_the_table_runs_after_them_and_says_which_rows_are_no_evidence(
    tried: tuple[Path, str], data_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(tried[0], tmp_path, dirs_exist_ok=True)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    rows = "hydra.sweeper.rows=[sgd]"
    said = run(tmp_path, data_root, rows, "trainer.max_epochs=1", "hydra.sweeper.report=true")
    assert "2 of 2 runs finished" in said
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "no published numbers" in (tmp_path / "study/report/report.md").read_text(), "one epoch is another setting"
    said = run(tmp_path, data_root, rows, "hydra.sweeper.report=true")
    page = (tmp_path / "study/report/report.md").read_text()
    values = [accuracy(tmp_path, f"sgd/seed={seed}") for seed in (0, 1)]
    assert f"| sgd | 2 | {50 * sum(values):.2f} ± " in page, "the candidates' runs are in no mean"
    assert page.count("used in choosing the settings by its published number: no evidence of reproduction") >= 2
    assert "sgd and adam decided about settings" in " ".join(said.split())
    deviation = abs(values[0] - values[1]) / math.sqrt(2)
    if deviation:
        shown = (
            f"times the deviation over seeds, {100 * deviation:.2f} points, of the 1 row of the table that has several"
        )
        assert shown in " ".join(said.split())


def test_what_is_missing_is_run_and_what_has_finished_comes_from_a_bundle(
    tried: tuple[Path, str], data_root: Path, tmp_path: Path
) -> None:
    assert report([str(tried[0] / "study"), "--bundle", str(tmp_path / "study.zip")]) == 0
    write_page(tmp_path)
    said = run(tmp_path, data_root, "hydra.sweeper.candidates=true", "hydra.sweeper.have=study.zip")
    assert "4 finished runs taken from study.zip" in said
    assert "4 runs, 4 finished before" in said
    shutil.rmtree(tmp_path / "study" / TRIED[3])
    said = run(tmp_path, data_root, "hydra.sweeper.candidates=true")
    assert "4 runs, 3 finished before" in said
    assert [accuracy(tmp_path, place) for place in TRIED] == [accuracy(tried[0], place) for place in TRIED]


def test_a_dry_run_lists_each_candidate_with_its_cost(tried: tuple[Path, str], data_root: Path) -> None:
    said = run(tried[0], data_root, "hydra.sweeper.candidates=true", "hydra.sweeper.dry_run=true")
    assert "4 runs: 4 done" in said
    costs = [line for line in said.splitlines() if "1 candidate " in line]
    assert [line.split("  ")[0] for line in costs] == [
        "sgd, as-it-stands", "adam, as-it-stands", "sgd, tanh", "adam, tanh",
    ]  # fmt: skip
    assert all("1 finished run on " in line for line in costs)
    assert "candidates run 1 epoch with seed 0, a screening" in said


def plan(change: dict[str, Any] | None = None, **block: Any) -> StudyPlan:
    page = yaml.safe_load(PAGE)
    page["candidates"] |= block
    return StudyPlan.of(read_study(page | (change or {}), "printed"), "printed", CommandLine())


SPACE = {"space": {"optim.weight_decay": [0, 0.1]}, "trials": 2}


@pytest.mark.parametrize(
    ("block", "change", "line"),
    [
        ({"settings": {"a": [], "b": ["optim=momentum"]}}, {}, "candidates, 'b': optim=momentum: row .* varies optim"),
        ({"settings": {"a": [], "b": ["trainer.max_epochs=1"]}}, {}, "run candidates.epochs alike"),
        ({"settings": {"a": []}}, {}, "candidates.settings: it must have at least 2 items"),
        ({"settings": {"a,b": [], "a=b": []}}, {}, None),
        ({"rows": ["sdg"]}, {}, "there is no row 'sdg'; did you mean 'sgd'"),
        ({"rows": ["dropout"]}, {}, "row 'dropout' has no published test/accuracy"),
        ({"rows": ["sgd", "sgd"]}, {}, "rows lists a row twice"),
        ({"metric": "test/loss"}, {}, "row 'sgd' has no published test/loss"),
        ({"epochs": 2}, {}, "epochs is 2 and row 'sgd' has 2; leave it out for whole runs"),
        ({"chosen": "relu"}, {}, "chosen is relu, and the settings are as-it-stands, tanh"),
        ({"setings": {}}, {}, "there is no key candidates.setings; did you mean 'settings'"),
        ({}, {"tune": SPACE}, "published numbers are not of tuned settings; leave out tune or candidates"),
    ],
)
def test_mistakes_of_a_page_are_answered_in_a_line(
    block: dict[str, Any], change: dict[str, Any], line: str | None
) -> None:
    if line is None:
        plan(change, **block)
        return
    with pytest.raises(UserError, match=line) as error:
        plan(change, **block)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("seed=1", "candidates run with their own seed, 0; leave out seed"),
        ("optim.weight_decay=0,0.1", "optim.weight_decay=0,optim.weight_decay=0.1: a candidate has one value"),
        ("model.activation=elu", "the candidates of study printed differ in model.activation; leave it out"),
        ("data=mnist", "data=mnist: candidates are compared with published numbers, which are of other settings"),
    ],
)
def test_a_command_line_with_which_they_compare_with_nothing_is_refused(typed: str, line: str) -> None:
    study = plan().study
    with pytest.raises(UserError, match=line):
        refuse_beside_candidates(study, "printed", parse_command_line([typed]))
    refuse_beside_candidates(study, "printed", parse_command_line(["debug=smoke", "trainer.precision=32-true"]))


def test_tuning_or_no_block_beside_candidates_is_refused() -> None:
    tuned, _ = choose_blocks(plan().study, SPACE, "page")
    with pytest.raises(UserError, match="published numbers are not of tuned settings; leave out tune"):
        refuse_beside_candidates(tuned, "printed", CommandLine())
    without = plan().study.model_copy(update={"candidates": None})
    with pytest.raises(UserError, match="study printed has no block candidates"):
        refuse_beside_candidates(without, "printed", CommandLine())


def test_a_page_of_candidates_still_tunes_and_sweeps(data_root: Path, tmp_path: Path) -> None:
    write_page(tmp_path)
    tune = "hydra.sweeper.tune={space: {optim.weight_decay: [0, 0.1]}, trials: 2}"
    for typed in ([tune, "data.val_fraction=0.1", "trainer.test=best"], ["optim.weight_decay=0,0.1"]):
        assert "candidates" not in run(tmp_path, data_root, *typed, "hydra.sweeper.dry_run=true")


STUDIES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((CONF / "study").glob("*.yaml"))}


@pytest.mark.parametrize("name", [name for name, page in STUDIES.items() if "candidates" in page])
def test_the_candidates_of_each_page_are_different_runs_and_the_chosen_one_stands_in_the_base(name: str) -> None:
    study: Study = read_study(STUDIES[name], name)
    block = study.candidates
    assert block is not None
    planned = StudyPlan.of(study, name, CommandLine())
    hashes = {run: config_hash(compose(planned.run(run).overrides)) for run in planned.candidate_runs()}
    assert len(set(hashes.values())) == len(block.settings) * len(block.rows)
    for row in block.rows:
        typed = [*study.base, *study.runs[row].overrides]
        if block.chosen is not None:
            assert config_hash(compose([*typed, *block.settings[block.chosen]])) == config_hash(compose(typed))


def test_two_candidates_of_the_same_settings_are_refused(answer: Any, data_root: Path, tmp_path: Path) -> None:
    write_page(tmp_path, PAGE.replace("tanh: [model.activation=tanh]", "relu: [model.activation=relu]"))
    os.chdir(tmp_path)
    place = f"hydra.searchpath=[file://{tmp_path / 'pages'}]"
    status, said = answer(f"study=printed '{place}' data.root={data_root} hydra.sweeper.candidates=true")
    assert (status, len(said.splitlines())) == (2, 1)
    assert "candidate 'relu': it has the settings of 'as-it-stands'" in said
