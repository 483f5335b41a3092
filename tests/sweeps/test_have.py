"""hydra.sweeper.have: finished runs are taken from bundles, and what is missing is run."""

import csv
import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import errors_table
import pytest
from omegaconf import OmegaConf

from convolt.cli.rerun import rerun
from convolt.errors import UserError
from convolt.inference import evaluate, export, predict
from convolt.reports.report import main as report
from convolt.runs.bundle import read_bundle
from convolt.runs.directory import RunDirectory
from convolt.runs.prune import prune_checkpoints
from convolt.sweeps import dry_run
from convolt.sweeps.have import BundledRuns
from convolt.sweeps.jobs import Job

PAGE = """\
# @package hydra.sweeper.study
title: Dropout
question: Does it help?
base: [model=lenet, data=digits, data.train_size=100, trainer.max_epochs=1, optim=sgd]
baseline: plain
seeds: [0, 1]
runs:
  plain: {}
  dropout: {overrides: [model.dropout=0.5]}
"""
TIMES = ("seconds", "cpu_seconds", "training_seconds", "training_share", "images_per_second", "peak_memory_bytes")
"""Columns that begin so differ from run to run."""


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """A folder with a page, and bundles of two parts of its study, each of which ran in a checkout of its own."""
    folder = tmp_path_factory.mktemp("parts")
    (folder / "pages/study").mkdir(parents=True)
    (folder / "pages/study/dropout.yaml").write_text(PAGE)
    for name, typed in {"a": "seed=0", "b": "seed=1 hydra.sweeper.rows=[plain]"}.items():
        start(folder, data_root, typed, checkout=folder / name)
        assert report([str(folder / name / "study"), "--bundle", str(folder / f"{name}.zip")]) == 0
    return folder


def start(folder: Path, data_root: Path, typed: str, checkout: Path) -> tuple[object, str]:
    """Start the study in this process; return the exit status and what was written to the standard error."""
    checkout.mkdir(exist_ok=True)
    usual = f"study=dropout 'hydra.searchpath=[file://{folder}/pages]' hydra.sweep.dir=study hydra/launcher=basic"
    usual += f" data.root={shlex.quote(str(data_root))} trainer.threads=1 pictures.enabled=false"
    before = Path.cwd()
    os.chdir(checkout)
    try:
        return errors_table.answer(f"{usual} {typed}")
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def joined(parts: Path, data_root: Path) -> Path:
    """The study in a checkout in which the whole of it was started with both bundles."""
    status, said = start(parts, data_root, f"hydra.sweeper.have=[{parts}/a.zip,{parts}/b.zip]", parts / "c")
    assert status == 0, said
    return parts / "c/study"


def numbers(run: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((run / "result.json").read_text())
    return {key: value for key, value in result.items() if key in ("metrics", "confusion_matrix", "config_hash")}


def test_what_bundles_have_is_taken_and_the_rest_is_run(
    parts: Path, data_root: Path, joined: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundled = {
        place: (joined / place / "predicted_classes.npz").exists() and not (joined / place / "checkpoints").exists()
        for place in ("plain/seed=0", "plain/seed=1", "dropout/seed=0", "dropout/seed=1")
    }
    assert [place for place, taken in bundled.items() if not taken] == ["dropout/seed=1"]
    assert numbers(joined / "plain/seed=0") == numbers(parts / "a/study/plain/seed=0")
    times = {path: path.stat().st_mtime_ns for path in joined.rglob("result.json")}
    status, said = start(parts, data_root, f"hydra.sweeper.have={parts}/a.zip", joined.parent)
    assert (status, said) == (0, "")
    assert times == {path: path.stat().st_mtime_ns for path in joined.rglob("result.json")}, "nothing runs again"
    assert not [*joined.rglob("*.old1")]
    for keep in ("all", "best", "none"):
        assert prune_checkpoints(joined / "plain/seed=0", keep)

    whole = joined.parent.with_name("whole") / "study"
    status, said = start(parts, data_root, "", whole.parent)
    assert status == 0, said
    assert report([str(joined), "--bundle", str(joined.parent / "all.zip")]) == 0
    capsys.readouterr()
    tables = []
    for source in (whole, joined, joined.parent / "all.zip"):
        out = joined.parent / f"report-{len(tables)}"
        assert report([str(source), "--no-figures", "--out", str(out)]) == 0
        found = {path.name: path.read_text().splitlines() for path in (out / "tables").glob("*.csv")}
        tables.append({name: without_times(lines) for name, lines in found.items()})
    assert tables[0] == tables[1] == tables[2]


def without_times(lines: list[str]) -> list[list[str]]:
    cells = [*csv.reader(lines)]
    left = [place for place, name in enumerate(cells[0]) if not name.startswith((*TIMES, "git_commit"))]
    return [[row[place] for place in left] for row in cells]


def test_the_weights_are_missed_in_a_line_by_all_that_needs_them(
    joined: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, line = joined / "plain/seed=0", "this run came in a bundle, without its weights"
    (joined / "x.png").write_bytes(b"")
    for command, more in ((evaluate.main, []), (predict.main, [str(joined / "x.png")]), (export.main, [])):
        capsys.readouterr()
        assert command([str(run), *more]) == 2
        said = capsys.readouterr().err
        assert line in said
        assert len(said.splitlines()) == 1
    with pytest.raises(UserError, match=line):
        rerun(run)
    for typed in (f"init_from='{run}'", f"resume='{run}' trainer.max_epochs=9"):
        status, said = errors_table.answer(shlex.quote(typed.split(" ")[0]) + typed[len(typed.split(" ")[0]) :])
        assert status == 2
        assert line in said


def test_a_dry_run_shows_it_and_lays_nothing_out(
    parts: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(dry_run, "show_plan", lambda *_, **__: shown.extend(job.bundle for job in _[3]))
    typed = f"hydra.sweeper.have={parts}/a.zip hydra.sweeper.dry_run=true"
    assert start(parts, data_root, typed, tmp_path / "c") == (0, "")
    assert [Path(name).name for name in shown] == ["a.zip", "a.zip", "", ""]
    said: list[str] = []
    monkeypatch.setattr(dry_run, "print", lambda text, **_: said.append(text), raising=False)
    other = typed.replace("hydra.sweeper", "optim.lr=0.3 hydra.sweeper", 1)
    assert start(parts, data_root, other, tmp_path / "d")[0] == 0
    assert said == [f"nothing would come from {parts}/a.zip: it has no run of these settings that is missing here"]
    assert not (tmp_path / "c/study").exists()


def make_job(parts: Path, run_dir: Path, *typed: str) -> Job:
    """Return the job of a run that is in the first bundle."""
    cfg: Any = OmegaConf.load(parts / "a/study/plain/seed=0/.hydra/config.yaml")
    return Job("plain/seed=0", OmegaConf.merge(cfg, OmegaConf.from_dotlist([*typed])), run_dir)  # type: ignore[arg-type]


def test_a_run_is_laid_out_never_over_a_finished_or_a_running_one(parts: Path, tmp_path: Path) -> None:
    have = BundledRuns(str(parts / "a.zip"))
    job = make_job(parts, tmp_path / "run")
    job.run_dir.mkdir()
    with RunDirectory(job.run_dir, job.cfg) as directory:
        have.take(job)
        assert not (job.run_dir / "result.json").exists(), "another process is at work"
        directory.begin()
    (job.run_dir / "checkpoints").mkdir()
    have.take(job)
    assert job.find_result()
    assert (tmp_path / "run.old1/checkpoints").exists(), "what was cut off moves aside"
    assert not (job.run_dir / "checkpoints").exists()
    (job.run_dir / "result.json").unlink()  # as a kill would have left it
    (job.run_dir / "metrics.csv").unlink()
    have.take(job)
    assert (job.run_dir / "metrics.csv").exists()
    assert not (tmp_path / "run.old2").exists()
    (job.run_dir / "metrics.csv").write_text("mine")
    have.take(job)
    assert (job.run_dir / "metrics.csv").read_text() == "mine", "it has finished"
    assert len(have.taken) == 2

    forced = make_job(parts, tmp_path / "forced", "force=true")
    have.take(forced)
    other = make_job(parts, tmp_path / "other", "optim.lr=0.7")
    have.take(other)
    assert not (tmp_path / "forced").exists()
    assert not (tmp_path / "other").exists()
    lines = have.describe([job, other])
    assert lines[0] == f"2 finished runs taken from {parts}/a.zip"
    assert lines[1].endswith("not of what is to run so far: dropout/seed=0 (1 run)")
    assert have.describe([other])[1].endswith("of other settings than here: plain/seed=0 (1 run)")


def test_a_difference_from_what_is_here_is_told(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_job(parts, tmp_path / "run")
    job.run_dir.mkdir()
    result = json.loads(read_bundle(parts / "a.zip").runs["plain/seed=0"]["result.json"])
    result["metrics"]["test/accuracy"] = 0.5
    del result["digest"]
    (job.run_dir / "result.json").write_text(json.dumps(result))
    BundledRuns([str(parts / "a.zip")]).take(job)
    assert "plain/seed=0 has test/accuracy 0.5 here and " in capsys.readouterr().out


def test_bundles_that_contradict_each_other_and_wrong_files_are_refused(
    parts: Path, data_root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "a/study"
    shutil.copytree(parts / "a/study", run)
    result = json.loads((run / "plain/seed=0/result.json").read_text())
    result["metrics"]["test/accuracy"] += 0.1
    del result["digest"]
    (run / "plain/seed=0/result.json").write_text(json.dumps(result))
    assert report([str(run), "--bundle", str(tmp_path / "x.zip")]) == 0
    with pytest.raises(UserError, match="contradict each other: plain/seed=0 has test/accuracy"):
        BundledRuns([str(parts / "a.zip"), str(tmp_path / "x.zip")])
    for typed, words in {
        "hydra.sweeper.have=nothing.zip": "there is no bundle nothing.zip",
        "hydra.sweeper.have=[a,b]": "there is no bundle a",
        f"hydra.sweeper.have={parts}": "is a folder",
    }.items():
        status, said = start(parts, data_root, typed, tmp_path / "c")
        assert status == 2
        assert words in said
        assert len(said.splitlines()) == 1
        assert not (tmp_path / "c/study").exists()
    status, said = errors_table.answer("-m seed=0,1 hydra.sweeper.have=a.zip")
    assert status == 2
    assert "is for a study" in said
