"""scripts/published_table.py on pages and bundles whose numbers are known."""

import json
from pathlib import Path
from typing import Any

import published_table
import pytest

from convolt.config.compose import compose
from convolt.reports.report import main as report
from convolt.runs.config_hash import config_hash
from written_study import make_run

PAGE = """\
title: Printed
base: [model=lenet, data=digits]
seeds: [0, 1, 2]
candidates: {rows: [used], settings: {a: [], b: [model.activation=tanh]}, chosen: b}
runs:
  near: {overrides: [optim=sgd], published: {test/accuracy: 0.9, source: "nobody2020, t"}}
  far: {overrides: [optim=momentum], published: {test/accuracy: 0.5, source: "nobody2020, t"}}
  once: {overrides: [optim=adamw], published: {test/accuracy: 0.9, source: "nobody2020, t"}}
  used: {overrides: [optim.lr=0.02], published: {test/accuracy: 0.9, source: "nobody2020, t"}}
  other: {overrides: [optim.lr=0.03], published: {test/accuracy: 0.9, source: "nobody2020, t"}}
  dear: {overrides: [optim.lr=0.04], published: {test/accuracy: 0.9, source: "nobody2020, t"}}
  chart: {overrides: [optim.lr=0.05], published: {train/accuracy: 0.9, source: "nobody2020, t"}}
  ours: {overrides: [optim.lr=0.06]}
"""
OVERRIDES = {
    "near": "optim=sgd",
    "far": "optim=momentum",
    "once": "optim=adamw",
    "used": "optim.lr=0.02",
    "other": "optim.lr=0.5",
}
ACCURACIES = {"near": (0.88, 0.9, 0.92), "far": (0.88, 0.9, 0.92), "once": (0.8,), "used": (0.9, 0.91), "other": (0.9,)}


def test_every_published_row_stands_beside_its_bundle_or_its_cost(tmp_path: Path) -> None:
    pages, results, study = tmp_path / "pages", tmp_path / "results", tmp_path / "printed"
    pages.mkdir()
    (pages / "printed.yaml").write_text(PAGE)
    rows: dict[str, Any] = {}
    for row, values in ACCURACIES.items():
        runs = [{"dir": f"{row}/seed={seed}", "seed": seed} for seed in range(len(values))]
        rows[row] = {"overrides": [OVERRIDES[row]], "published": None, "runs": runs}
        for seed, value in enumerate(values):
            typed = ["model=lenet", "data=digits", OVERRIDES[row], f"seed={seed}"]
            make_run(study / row / f"seed={seed}", value, seed, config_hash=config_hash(compose(typed)))
    tried = "far/candidates/a,seed=0"
    make_run(study / tried, 0.6)
    settings = [{"name": "a", "overrides": [], "runs": [{"row": "far", "dir": tried, "seed": 0}]}]
    block = {
        "rows": ["far"],
        "settings": settings,
        "seed": 0,
        "epochs": None,
        "metric": "test/accuracy",
        "chosen": None,
    }
    spec = {"name": "printed", "title": "Printed", "sweep": {}, "base": [], "baseline": "near", "seeds": [0, 1, 2]}
    (study / "study.json").write_text(json.dumps(spec | {"overrides": [], "rows": rows, "candidates": block}))
    (results / "printed").mkdir(parents=True)
    (results / "printed/report.md").write_text("")
    assert report([str(study), "--bundle", str(results / "printed/printed.zip")]) == 0
    (results / "plan.csv").write_text(
        "study,row,seconds_a_run,at_most,hours_of_all_seeds\nprinted,dear,7200,yes,6\nprinted,near,60,,1\n"
    )
    lines = list(
        published_table.write_lines(
            published_table.read_rows(pages, results), published_table.read_plan(results / "plan.csv"), results
        )
    )
    cells = [[cell.strip(" `") for cell in line.split("|")[2:-1]] for line in lines[2:-2]]
    # t(0.975, 2) = 4.303, a deviation of 2 points over √3: 4.97; t(0.975, 1) = 12.706, 0.7071 over √2: 6.35
    assert cells == [
        ["near", "90.00", "90.00 ± 4.97", "3", "in"],
        ["far", "50.00", "90.00 ± 4.97", "3", "out; used in choosing the settings, no evidence"],
        ["once", "90.00", "80.00", "1", "one seed, no interval"],
        ["used", "90.00", "90.50 ± 6.35", "2", "in; used in choosing the settings, no evidence"],
        ["other", "90.00", "", "", "not run; 1 run of other settings than the page's left out"],
        ["dear", "90.00", "", "", "not run: at most 2.0 h a seed"],
        ["chart", "", "", "", "no test result is printed"],
    ]
    assert all(line.startswith("| [printed](printed/report.md) |") for line in lines[2:-2])
    assert lines[-1].startswith("4 of 7 rows have runs in bundles: 2 in, 1 out, 1 with one seed.")
    assert "would take 6 hours of one core" in lines[-1]


@pytest.mark.parametrize(
    ("hours", "text"), [(0.004, "1 min"), (0.5, "30 min"), (1.04, "1.0 h"), (9.6, "10 h"), (351.4, "351 h")]
)
def test_hours(hours: float, text: str) -> None:
    assert published_table.format_hours(hours) == text


def test_a_report_without_a_bundle_is_not_called_unrun(tmp_path: Path) -> None:
    (tmp_path / "printed/tables").mkdir(parents=True)
    (tmp_path / "printed/tables/results.csv").write_text("row,n\nnear,3\nfar,0\n")
    row = published_table.PublishedRow("printed", "near", published_table.Metric("test/accuracy"), 0.9)
    assert "run before results were kept in bundles" in list(published_table.write_lines([row], {}, tmp_path))[2]
    row.row = "far"
    assert list(published_table.write_lines([row], {}, tmp_path))[2].endswith("| not run |")
