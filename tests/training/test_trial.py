"""Runs that never test, as trials of settings do: what they measure, what they leave, what they never open."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convolt.cli.rerun import rerun
from convolt.config.settings import Settings
from convolt.data.prepared import open_prepared
from convolt.data.stage import stage
from convolt.errors import DivergedError, UserError
from convolt.inference import evaluate
from convolt.inference.trained import Predictor, TrainedRun
from convolt.reports.report import main as report
from convolt.runs.checkpoints import read_weights
from convolt.runs.files import RunFiles
from convolt.runs.history import read_rows
from convolt.sweeps.jobs import Job
from convolt.training import build
from convolt.training.extend import resumed_settings
from convolt.training.run import run

DIVERGING = ("optim=sgd", "optim.lr=1e30")
UNLIKE = ("optim=momentum", "optim.lr=0.08", "trainer.max_epochs=4")
"""Whose best epoch is not the last."""

_opened: list[Path] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open" and isinstance(arguments[0], str | bytes):
        _opened.append(Path(str(arguments[0])))


sys.addaudithook(_audit)  # sees every way to open a file, and cannot be removed


@contextmanager
def opened_files() -> Iterator[list[Path]]:
    """Collect what this process opens in the block."""
    global _opened  # noqa: PLW0603
    _opened = found = []
    try:
        yield found
    finally:
        _opened = None


def same_weights(first: Path, second: Path) -> bool:
    one, other = read_weights(first), read_weights(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def spoil_test_images(source: Path, target: Path) -> None:
    """Copy prepared datasets, the test images and labels as noise of the same size."""
    shutil.copytree(source, target)
    spoiled = [*target.glob("*/test_*.npy")]
    assert {path.name for path in spoiled} == {"test_images.npy", "test_labels.npy"}
    for path in spoiled:
        path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


@pytest.mark.parametrize("options", [UNLIKE, ("trainer.test=last", "seed=3"), ("data.val_fraction=0",)])
def test_a_trial_never_opens_the_test_images_and_measures_the_same(
    settings: Any, train: Any, data_root: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    tested = train(*options, directory="tested")
    spoil_test_images(data_root, tmp_path / "data")
    with opened_files() as opened:
        trial = run(settings(*options, "trainer.test=none", f"data.root={tmp_path / 'data'}"), tmp_path / "trial")
    names = {path.name for path in opened}
    assert {"train_images.npy", "train_labels.npy"} <= names
    assert not names & {"test_images.npy", "test_labels.npy"}

    rows = [read_rows(tmp_path / name / "metrics.csv") for name in ("tested", "trial")]
    timeless = [[{k: v for k, v in row.items() if "second" not in k} for row in each] for each in rows]
    assert timeless[0] == timeless[1]
    measured = {name: value for name, value in tested["metrics"].items() if not name.startswith("test/")}
    chosen = timeless[1][trial["tested_epoch"] - 1]
    assert trial["metrics"] == {name: value for name, value in chosen.items() if "/" in name}
    assert trial["last_metrics"] == {name: value for name, value in timeless[1][-1].items() if "/" in name}
    assert (trial["last_metrics"] if "trainer.test=last" in options else trial["metrics"]) == measured
    checkpoints = [tmp_path / name / "checkpoints" for name in ("tested", "trial")]
    for path in checkpoints[0].glob("*.ckpt"):
        assert same_weights(path, checkpoints[1] / path.name)
    assert trial["dataset_hash"] == tested["dataset_hash"]
    if options == UNLIKE:
        assert (trial["checkpoint"], trial["tested_epoch"]) == (tested["checkpoint"], tested["tested_epoch"])
        assert tested["tested_epoch"] != tested["epochs"]


def test_a_trial_leaves_nothing_of_test_images(train: Any, tmp_path: Path) -> None:
    result = train("trainer.test=none", "pictures.enabled=true", "pictures.every_n_epochs=1")
    assert not {"per_class", "confusion_matrix", "pictures_seconds", "diverged"} & set(result)
    assert {name.partition("/")[0] for name in result["metrics"]} == {"train", "val"}
    assert result["headline"] == result["monitor"] == "val/accuracy"
    assert set(result["images"]) == {"train", "val"}
    assert not (tmp_path / "run/predictions.npz").exists()
    assert {path.name for path in (tmp_path / "run/figures").iterdir()} == {"epoch-0001", "epoch-0002"}
    assert RunFiles(tmp_path / "run").status()["state"] == "finished"
    assert train("trainer.test=none", "data.val_fraction=0", directory="b")["headline"] == "train/accuracy"


def test_other_modules_leave_test_images_too(settings: Any, tmp_path: Path) -> None:
    shapes = ("data=shapes", "model=fcn8s", "data.image_size=32", "data.train_images=40", "data.test_images=16",
              f"data.root={tmp_path}")  # fmt: skip
    whole, _ = build.make_data(Settings.of(settings(*shapes)))
    with opened_files() as opened:
        data, _ = build.make_data(Settings.of(settings(*shapes, "trainer.test=none")))
        data.verify_unchanged()
    assert not {path.name for path in opened} & {"test_images.npy", "test_labels.npy"}
    assert data.digest == whole.digest
    assert set(data.indices) == {"train", "val"}
    few, _ = build.make_data(Settings.of(settings("debug=overfit", "trainer.test=none")))
    assert set(few.indices) == {"train", "val"}


def test_a_staged_trial_leaves_the_test_images_for_the_run_that_tests(
    train: Any, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "disk"))
    monkeypatch.delenv("SLURM_TMPDIR", raising=False)
    with opened_files() as opened:
        trial = train("trainer.test=none", "data.stage=true", "trainer.max_epochs=1", directory="trial")
    assert not {path.name for path in opened} & {"test_images.npy", "test_labels.npy"}
    (copy,) = (path for path in (tmp_path / "disk").glob("*/*") if path.is_dir())
    assert {path.name for path in copy.iterdir()} == {"train_images.npy", "train_labels.npy", "dataset.json"}
    tested = train("data.stage=true", "trainer.max_epochs=1", directory="tested")
    assert tested["dataset_hash"] == trial["dataset_hash"]
    assert (copy / "test_images.npy").is_file()
    (name,) = (path.parent for path in data_root.glob("*/dataset.json") if path.parent.name in copy.name)
    (copy / "test_labels.npy").write_bytes(b"noise")
    again = stage(open_prepared(name), copy.parent)
    assert again.test_labels is not None
    assert len(again.test_labels) == 359


def test_a_trial_that_diverges_is_finished_and_the_worst(
    train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train(*DIVERGING, "trainer.test=none")
    assert result["diverged"] is True
    assert (result["metrics"], result["last_metrics"], result["epochs"]) == ({}, {}, 0)
    assert (result["checkpoint"], result["tested_epoch"], result["headline"]) == (None, None, "val/accuracy")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("diverged: the loss is not finite: first at step")
    assert lines[-1].endswith("run")
    files = RunFiles(tmp_path / "run")
    assert files.status()["state"] == "finished"
    assert files.has_diverged()
    assert files.has_diverged(result["config_hash"])
    assert not files.has_diverged("another")
    assert train(*DIVERGING, "trainer.test=none")["finished"] == result["finished"]
    assert "finished before" in capsys.readouterr().out


def test_a_run_that_diverges_fails_and_says_so(settings: Any, train: Any, tmp_path: Path) -> None:
    with pytest.raises(DivergedError):
        train(*DIVERGING)
    files = RunFiles(tmp_path / "run")
    status = files.status()
    assert (status["state"], status["diverged"]) == ("failed", True)
    assert files.has_diverged(status["config_hash"])
    assert not files.has_diverged("another")
    assert Job("run", settings(*DIVERGING), files.path).has_diverged()
    assert not Job("run", settings("optim=sgd"), files.path).has_diverged()
    train("optim=sgd")
    assert not files.has_diverged()
    assert "diverged" not in files.status()


def test_nobody_uses_the_weights_of_a_run_that_diverged(settings: Any, train: Any, tmp_path: Path) -> None:
    train(*DIVERGING, "trainer.test=none")
    folder = tmp_path / "run"
    line = "its loss became infinite, so that there are no weights to use: train with a lower optim.lr"
    with pytest.raises(UserError, match=line):
        TrainedRun(folder)
    with pytest.raises(UserError, match=f"init_from={folder}: {line}"):
        settings(f"init_from={folder}")
    with pytest.raises(UserError, match=f"resume={folder}: {line}"):
        resumed_settings(folder, [f"resume={folder}", "trainer.max_epochs=9"])
    assert rerun(folder)


def test_a_trial_can_be_used_like_any_other_run(settings: Any, train: Any, tmp_path: Path) -> None:
    options = ("trainer.max_epochs=3", "scheduler=constant")
    tested = train(*options, directory="tested")
    train(*options, "trainer.test=none")
    folder = tmp_path / "run"
    trained = TrainedRun(folder)
    evaluation = evaluate.evaluate(trained)  # the user's decision
    at_test = {f"test/{name}": value for name, value in evaluation.metrics.items()}
    assert at_test == {name: value for name, value in tested["metrics"].items() if name.startswith("test/")}
    assert not evaluation.of_own_images  # there is nothing that it could equal
    assert evaluate.evaluate(trained, ["split=val"]).of_own_images
    assert Predictor.load(trained)(torch.zeros(1, 24, 24, 1, dtype=torch.uint8)).shape == (1, 10)
    started = run(settings(f"init_from={folder}", "trainer.max_epochs=1"), tmp_path / "started")
    assert started["init_from"]["checkpoint"] == "best.ckpt"
    assert rerun(folder)
    cfg, change = resumed_settings(folder, [f"resume={folder}", "trainer.max_epochs=4"])
    longer = run(cfg, folder, change=change)
    fresh = train("trainer.max_epochs=4", "scheduler=constant", "trainer.test=none", directory="fresh")
    assert longer["metrics"] == fresh["metrics"]
    assert longer["last_metrics"] == fresh["last_metrics"]


def test_reports_cope_with_trials(train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {"optim.lr=0.001,seed=0": ("optim.lr=0.001",), "optim.lr=1e30,seed=0": DIVERGING}
    for name, options in names.items():
        train(*options, "trainer.test=none", "trainer.max_epochs=1", directory=f"sweep/{name}")
    for folder in (tmp_path / "sweep", *(tmp_path / "sweep").glob("*seed=0")):
        capsys.readouterr()
        assert report([str(folder)]) == 0, capsys.readouterr()
    page = (tmp_path / "sweep/report/report.md").read_text()
    assert "val/accuracy" in page
    assert "Nothing was tested (trainer.test=none)" in page
    assert "diverged" in page
    assert "completes them" not in page
    record = json.loads((tmp_path / "sweep/optim.lr=0.001,seed=0/result.json").read_text())
    assert f"{100 * record['metrics']['val/accuracy']:.2f}" in page
