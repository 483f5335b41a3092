"""Reports on bundles say what reports on the folders say, and parts of one study become one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import decided_study
from convolt.reports.bundle import open_bundle
from convolt.reports.report import main
from written_study import make_run, make_study, write_predictions

ACCURACY = {"sgd": {0: 0.8, 1: 0.82, 2: 0.84}, "adam": {0: 0.9, 1: 0.91, 2: 0.95}}


def bundle(*sources: Path, to: Path) -> Path:
    assert main([*map(str, sources), "--bundle", str(to)]) == 0
    return to


def tables(source: Path, out: Path) -> dict[str, bytes]:
    """Report on a folder or a bundle; return the tables by file, and those of the page."""
    assert main([str(source), "--no-figures", "--out", str(out)]) == 0
    found = {path.name: path.read_bytes() for path in sorted((out / "tables").iterdir())}
    page = (out / "report.html").read_text()
    assert str(Path("/tmp/convolt-")) not in page
    return found | {"page": page[page.index("</header>") :].encode()}


def make_unfinished(path: Path) -> Path:
    """Write a study whose runs are in all states."""
    study = make_study(
        path, ACCURACY | {"rmsprop": dict.fromkeys(range(4), None)}, row_adam={"status": {"keep": "best"}}
    )
    make_run(study / "rmsprop/seed=0", None, status={"state": "failed", "error": "no memory\nat all", "epoch": 1})
    make_run(study / "rmsprop/seed=1", None, status={"state": "interrupted", "epoch": 1})
    (study / "rmsprop/seed=2").mkdir()
    write_predictions(study / "sgd/seed=0", [0, 1, 2], [0, 1, 1])
    (study / "adam/seed=2/result.json").write_text('{"metrics": ')
    return study


def make_sweep(path: Path) -> Path:
    for rate, accuracy in ((0.1, 0.8), (0.01, 0.7)):
        for seed in (0, 1):
            make_run(path / f"optim.lr={rate},seed={seed}", accuracy + seed / 100, seed, (f"optim.lr={rate}",))
    return path


def make_single(path: Path) -> Path:
    return make_run(path, 0.7, 3, ("optim.lr=0.1",))


@pytest.mark.parametrize(
    "write",
    [make_unfinished, make_sweep, make_single, decided_study.write_study, decided_study.write_search],
    ids=["study", "sweep", "run", "decided", "search"],
)
def test_tables_are_equal_byte_for_byte(tmp_path: Path, write: Any) -> None:
    folder = write(tmp_path / "sweeps/optims")
    packed = bundle(folder, to=tmp_path / "study.zip")
    of_folder = tables(folder, tmp_path / "a")
    assert tables(packed, tmp_path / "b") == of_folder
    again = bundle(packed, to=tmp_path / "again.zip")
    assert again.read_bytes() == packed.read_bytes()


def test_a_report_is_written_beside_the_bundle_and_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = bundle(make_study(tmp_path / "optims", ACCURACY), to=tmp_path / "study.zip")
    assert "6 finished of 6 runs" in capsys.readouterr().out
    assert main([str(packed), "--no-figures"]) == 0
    assert f"- folder: {packed}" in (tmp_path / "study-report/report.md").read_text()
    assert main(["--compare", str(packed), str(tmp_path / "optims"), "--no-figures"]) == 0
    assert (tmp_path / "optims/report/against-optims/report.md").is_file()
    assert main([str(packed), "--baseline", "adm"]) == 2
    assert f"no row 'adm' in '{packed}'" in capsys.readouterr().err


def test_a_bundle_of_runs_is_named_without_the_place_it_is_unpacked_to(tmp_path: Path) -> None:
    study = make_study(tmp_path / "optims", ACCURACY)
    for name, folders in (("seed=0", ["sgd/seed=0"]), ("optims", ["sgd/seed=0", "adam/seed=1"])):
        packed = tmp_path / f"{name}.zip"
        assert main([*(str(study / folder) for folder in folders), "--bundle", str(packed)]) == 0
        title = open_bundle(packed, tmp_path / f"unpacked {name}").title
        assert title == (f"Run {name}" if len(folders) == 1 else f"Runs in {name}")


def test_a_running_run_is_frozen_without_the_time_since_it_was_seen(tmp_path: Path) -> None:
    study = make_study(tmp_path / "optims", {"sgd": {0: 0.8, 1: None}})
    make_run(study / "sgd/seed=1", None, 1, status={"state": "running", "epoch": 3, "max_epochs": 9})
    (study / "sgd/seed=1/.lock").touch()
    packed = bundle(study, to=tmp_path / "study.zip")
    found = tables(packed, tmp_path / "out")["unfinished.csv"].decode()
    assert 'sgd,1,cut off,"at epoch 3 of 9, when it was bundled",sgd/seed=1' in found


def test_seeds_added_after_a_report_are_still_known(tmp_path: Path) -> None:
    study = make_study(tmp_path / "optims", {"sgd": {0: 0.8, 1: 0.82}})
    assert main([str(study), "--no-figures"]) == 0
    spec = json.loads((study / "study.json").read_text())
    spec["rows"]["sgd"]["runs"].append({"dir": "sgd/seed=2", "seed": 2})
    (study / "study.json").write_text(json.dumps(spec))
    make_run(study / "sgd/seed=2", 0.9, 2)
    packed = bundle(study, to=tmp_path / "study.zip")
    assert main([str(packed), "--no-figures"]) == 0
    assert "seeds were added after a report" in (tmp_path / "study-report/report.md").read_text()


def split(study: Path, to: Path, keep: Any, seeds: list[int] | None = None) -> Path:
    """Copy a study without the runs that are not kept; with `seeds`, `study.json` knows these alone."""
    shutil.copytree(study, to)
    spec = json.loads((study / "study.json").read_text())
    for row in spec["rows"].values():
        for run in row["runs"]:
            if not keep(run["dir"], run["seed"]) and (to / run["dir"]).exists():
                shutil.rmtree(to / run["dir"])
        if seeds is not None:
            row["runs"] = [run for run in row["runs"] if run["seed"] in seeds]
    spec["seeds"] = spec["seeds"] if seeds is None else seeds
    (to / "study.json").write_text(json.dumps(spec))
    return to


@pytest.mark.parametrize("by", ["row", "seed"])
def test_parts_by_row_or_by_seed_become_the_study_that_ran_in_one_place(tmp_path: Path, by: str) -> None:
    study = make_study(tmp_path / "optims", ACCURACY)
    if by == "row":
        parts = [
            split(study, tmp_path / row / "optims", lambda place, _, row=row: place.startswith(row)) for row in ACCURACY
        ]
    else:
        parts = [
            split(study, tmp_path / str(s[0]) / "optims", lambda _, seed, s=s: seed in s, s) for s in ([2, 1], [0, 1])
        ]
    zips = [bundle(part, to=part.parent.with_suffix(".zip")) for part in parts]
    whole = bundle(*zips, to=tmp_path / "whole.zip")
    assert tables(whole, tmp_path / "a") == tables(study, tmp_path / "b")
    mixed = bundle(parts[0], zips[1], to=tmp_path / "mixed.zip")
    assert tables(mixed, tmp_path / "c") == tables(study, tmp_path / "d")


def make_swept(path: Path, rates: list[float]) -> Path:
    """Write a study of two rows that is swept over the rate."""
    rows: dict[str, Any] = {}
    for row in ("sgd", "adam"):
        runs = []
        for seed in (0, 1):
            for rate in rates:
                place = f"{row}/seed={seed},optim.lr={rate}"
                runs.append({"dir": place, "seed": seed, "overrides": [f"optim.lr={rate}"]})
                make_run(path / place, 0.5 + rate + 0.01 * seed + 0.1 * (row == "adam"), seed, config_hash=place)
        rows[row] = {"overrides": [], "published": None, "runs": runs}
    spec = {"name": "optims", "title": "T", "question": "", "base": [], "baseline": "sgd", "seeds": [0, 1]}
    spec |= {"overrides": ["data.root=/home/me"], "notes": [], "rows": rows}
    (path / "study.json").write_text(json.dumps(spec | {"sweep": {"optim.lr": [str(rate) for rate in rates]}}))
    return path


def test_parts_by_swept_value_become_one(tmp_path: Path) -> None:
    zips = [bundle(make_swept(tmp_path / f"{r}/optims", [r]), to=tmp_path / f"{r}.zip") for r in (0.1, 0.2)]
    whole = bundle(*zips, to=tmp_path / "whole.zip")
    assert tables(whole, tmp_path / "a") == tables(make_swept(tmp_path / "all/optims", [0.1, 0.2]), tmp_path / "b")


def test_contradictions_and_other_studies_are_told_and_not_joined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(other: Path, *words: str) -> None:
        second = bundle(other, to=tmp_path / "second.zip")
        capsys.readouterr()
        assert main([str(first), str(second), "--bundle", str(tmp_path / "whole.zip")]) == 2
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1
        for word in words:
            assert word in said
        assert not (tmp_path / "whole.zip").exists()

    study = make_study(tmp_path / "optims", ACCURACY)
    first = bundle(study, to=tmp_path / "first.zip")
    other = ACCURACY | {"adam": {0: 0.9, 1: 0.5, 2: 0.7}}
    refuse(
        make_study(tmp_path / "b", other, name="optims"),
        f"adam/seed=1 has test/accuracy 0.91 in {first} and 0.5 in ", "(and 1 more)",
    )  # fmt: skip
    refuse(make_study(tmp_path / "c", ACCURACY, base=["model=vgg11"]), "they differ in base")
    refuse(make_study(tmp_path / "d", {"sgd": {0: 0.8}}), "they differ in the rows")
    refuse(make_study(tmp_path / "e", ACCURACY, row_sgd={"config_hash": "abc"}), "sgd/seed=0 has settings None", "abc")
    write_predictions(study / "sgd/seed=0", [0, 1, 2], [0, 1, 1])
    first = bundle(study, to=tmp_path / "first.zip")
    shutil.copytree(study, tmp_path / "f")
    write_predictions(tmp_path / "f/sgd/seed=0", [0, 2, 1], [0, 1, 1])
    refuse(tmp_path / "f", "sgd/seed=0 has one prediction")
    refuse(make_sweep(tmp_path / "g"), "a study and", "a sweep")
    assert main([str(first), "--compare", "a", "b", "--bundle", str(tmp_path / "x.zip")]) == 2


def test_equal_results_are_one_whatever_seconds_they_took(tmp_path: Path) -> None:
    study = make_study(tmp_path / "optims", ACCURACY)
    again = make_study(tmp_path / "again", ACCURACY, name="optims", row_sgd={"seconds": 5.0, "device": "gpu"})
    one, two = bundle(study, to=tmp_path / "one.zip"), bundle(again, to=tmp_path / "two.zip")
    assert tables(bundle(one, two, to=tmp_path / "both.zip"), tmp_path / "a") == tables(one, tmp_path / "b")


def test_choices_and_verdicts_of_parts_are_joined_unless_they_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = decided_study.write_study(tmp_path / "decide", notes=[], seeds=[0])
    spec = decided_study.read(study)
    part = tmp_path / "part/decide"
    shutil.copytree(study, part)
    less = json.loads(json.dumps(spec))
    less["tuning"]["cells"][2]["choice"] = None
    less["tuning"]["cells"][2]["trials"][0]["runs"][0]["score"] = None
    less["tuning"]["cells"][2]["trials"].pop()
    less["settling"]["verdicts"][1] |= {"verdict": "undecided", "n": None}
    decided_study.rewrite(part, less)
    whole = bundle(part, study, to=tmp_path / "whole.zip")
    assert tables(whole, tmp_path / "a") == tables(study, tmp_path / "b")
    less["tuning"]["cells"][2]["choice"] = spec["tuning"]["cells"][2]["choice"] | {"trial": 1}
    decided_study.rewrite(part, less)
    capsys.readouterr()
    assert main([str(part), str(study), "--bundle", str(tmp_path / "x.zip")]) == 2
    assert "have decided differently over adam" in capsys.readouterr().err
