"""What W&B, MLflow and CSV hold of runs, and runs whose trackers fail."""

import csv
import json
import os
import random
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.loggers.logger import DummyLogger

from convolt.config.settings import Settings
from convolt.runs.directory import RunDirectory
from convolt.runs.history import read_rows
from convolt.system.locks import make_lock
from convolt.training.extend import resumed_settings
from convolt.training.run import run
from convolt.training.trackers import mlflow as mlflow_tracker
from convolt.training.trackers import remote
from convolt.training.trackers.described import DescribedRun
from convolt.training.trackers.local import CsvTracker
from convolt.training.trackers.make import make_loggers
from convolt.training.trackers.mlflow import MlflowTracker
from convolt.training.trackers.remote import RemoteTracker
from convolt.training.trackers.tracker import tracking
from convolt.training.trackers.wandb import WandbTracker
from wandb_records import read_records

TIMES = ("images_per_second", "seconds")


@pytest.fixture
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but what a test sets itself."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def _packages(_no_server: None) -> None:
    for package in ("wandb", "mlflow", "sqlalchemy"):
        pytest.importorskip(package)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of SQLite; MLflow takes seconds to make its tables."""
    return tmp_path_factory.mktemp("mlflow") / "outputs/mlflow.db"


class WandbRuns:
    """All that the offline folders of a run's directory hold."""

    def __init__(self, folder: Path) -> None:
        self.points: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.begun: list[Any] = []
        for file in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
            for record in read_records(file):
                kind = record.WhichOneof("record_type")
                if kind == "run":
                    self.begun.append(record.run)
                elif kind == "history":
                    items = ((".".join(item.nested_key) or item.key, item.value_json) for item in record.history.item)
                    self.points.append({key: json.loads(text) for key, text in items})
                elif kind == "summary":
                    self.summary |= {".".join(u.nested_key) or u.key: u.value_json for u in record.summary.update}
                elif kind == "config":
                    self.config |= {u.key: json.loads(u.value_json) for u in record.config.update}

    def curve(self, metric: str) -> list[tuple[int, float]]:
        return [(point["epoch"], point[metric]) for point in self.points if metric in point]


class Mlflow:
    """What a file of SQLite holds of one run."""

    def __init__(self, database: Path, run_id: str) -> None:
        with sqlite3.connect(database) as opened:

            def select(columns: str, table: str) -> list[Any]:
                return opened.execute(f"SELECT {columns} FROM {table} WHERE run_uuid = ?", (run_id,)).fetchall()

            self.points = select("key, step, value", "metrics")
            self.params = dict(select("key, value", "params"))
            self.tags = dict(select("key, value", "tags"))
            [(self.name, self.status, self.pictures, self.experiment)] = select(
                "name, status, artifact_uri, experiment_id", "runs"
            )
            [(self.experiment,)] = opened.execute(
                "SELECT name FROM experiments WHERE experiment_id = ?", (self.experiment,)
            ).fetchall()

    def curve(self, metric: str) -> list[tuple[int, float]]:
        return sorted((step, value) for key, step, value in self.points if key == metric)


def known_run(folder: Path, service: str) -> dict[str, Any]:
    return dict(json.loads((folder / "trackers" / f"{service}.json").read_text()))


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    return {key: result[key] for key in ("metrics", "per_class", "confusion_matrix", "config_hash", "choices")}


@pytest.mark.usefixtures("_packages")
def test_wandb_and_mlflow_hold_the_runs_of_a_sweep(
    command_here: Any, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    done = command_here(
        "-m", "hydra/launcher=basic", "seed=0,1", "optim=sgd", "logger=[wandb,mlflow]", "logger.wandb.project=ours",
        "pictures.enabled=true", "pictures.detail=light", "trainer.max_epochs=2", "hydra.sweep.dir=sweep",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for seed in (0, 1):
        [folder] = tmp_path.glob(f"sweep/*seed={seed}*")
        rows, result = read_rows(folder / "metrics.csv"), json.loads((folder / "result.json").read_text())
        tested = {name: value for name, value in result["metrics"].items() if name.startswith("test/")}
        pictures = {file.stem: file for file in (folder / "figures").glob("*.png")}
        assert {"confusion_matrix", "curves", "mistakes"} <= set(pictures)
        assert not list(folder.glob("events*"))
        facts = {"study": "sweep", "row": "optim=sgd,trainer.max_epochs=2", "seed": str(seed)}
        facts |= {"directory": str(folder), "config_hash": result["config_hash"]}

        found = WandbRuns(folder)
        [begun] = found.begun
        assert (begun.project, begun.run_group, begun.job_type) == ("ours", "sweep", facts["row"])
        assert list(begun.tags) == ["sweep", facts["row"], f"seed={seed}"]
        for metric in rows[0].keys() - {"epoch"}:
            assert found.curve(metric) == [(row["epoch"], pytest.approx(row[metric])) for row in rows]
        assert {name: float(found.summary[name]) for name in tested} == pytest.approx(tested)
        assert found.config["choices"]["optim"] == "sgd"
        assert found.config["optim"]["lr"] == 0.1
        assert "optim=sgd" in found.config["overrides"]
        assert {key: found.config[f"run_{key}"] for key in facts} == facts
        for name, file in pictures.items():
            [point] = [point for point in found.points if f"figures/{name}.path" in point]
            [media] = folder.glob(f"wandb/offline-run-*/files/{point[f'figures/{name}.path']}")
            assert media.read_bytes() == file.read_bytes()

        there = Mlflow(database, known_run(folder, "mlflow")["run_id"])
        assert (there.experiment, there.name, there.status) == ("sweep", folder.name, "FINISHED")
        assert {key: there.tags[key] for key in facts} == facts
        for metric in rows[0].keys() - {"epoch"}:
            assert there.curve(metric) == [(row["epoch"], pytest.approx(row[metric])) for row in rows]
        for metric, value in tested.items():
            assert there.curve(metric) == [(result["tested_epoch"], pytest.approx(value))]
        assert (there.params["choices.optim"], there.params["optim.lr"]) == ("sgd", "0.1")
        for name, file in pictures.items():
            assert (Path(there.pictures.removeprefix("file://")) / f"figures/{name}.png").read_bytes() == (
                file.read_bytes()
            )
        assert "| class" in (Path(there.pictures.removeprefix("file://")) / "figures/classes.md").read_text()


@pytest.mark.usefixtures("_packages")
def test_a_resumed_run_goes_on_in_the_same_runs_and_tells_no_epoch_twice(
    settings: Any, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(database.parents[1])  # the default is a file below the working directory
    database.parent.mkdir(exist_ok=True)
    options = ["scheduler=constant", "logger=[csv,wandb,mlflow]", "logger.wandb.mode=offline"]
    folder = tmp_path / "run"
    run(settings(*options), folder)
    ids = [known_run(folder, "wandb")["id"], known_run(folder, "mlflow")["run_id"]]
    for name in ("result.json", "checkpoints/epoch-0002.ckpt"):  # as if killed before the second epoch was kept
        (folder / name).unlink()
    cfg, change = resumed_settings(folder, [f"resume={folder}", "trainer.max_epochs=3"])
    result = run(cfg, folder, change=change)
    rows = read_rows(folder / "metrics.csv")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [known_run(folder, "wandb")["id"], known_run(folder, "mlflow")["run_id"]] == ids
    found, there = WandbRuns(folder), Mlflow(database, ids[1])
    assert {begun.run_id for begun in found.begun} == {ids[0]}
    curve = [(row["epoch"], pytest.approx(row["val/loss"])) for row in rows]
    assert found.curve("val/loss") == there.curve("val/loss") == curve
    assert (there.status, there.params["trainer.max_epochs"]) == ("FINISHED", "2")
    assert there.tags["resumed.trainer.max_epochs"] == "3"
    assert float(found.summary["test/accuracy"]) == pytest.approx(result["metrics"]["test/accuracy"])
    with (folder / "csv/metrics.csv").open() as lines:
        kept = list(csv.DictReader(lines))
    assert [(int(line["step"]), float(line["val/loss"])) for line in kept if line["val/loss"]] == curve
    assert [float(line["test/accuracy"]) for line in kept if line["test/accuracy"]] == [
        result["metrics"]["test/accuracy"]
    ]


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.usefixtures("_packages")
def test_a_server_that_does_not_answer_costs_seconds_and_no_bit(
    silent_server: str, train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import mlflow  # noqa: F401 (the time to import them is not the server's)
    import wandb  # noqa: F401

    options = ("augmentation=[crop,mixup]", "model.dropout=0.2", "optim=sgd")
    random.seed(5)
    alone = train(*options, "logger=none", directory="alone")
    state = random.getstate()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    for directory, address in (("silent", silent_server), ("closed", "http://127.0.0.1:9")):
        monkeypatch.setenv("WANDB_BASE_URL", address)
        capfd.readouterr()
        random.seed(5)
        began = time.monotonic()
        tracked = train(*options, "logger=[wandb,mlflow]", f"logger.mlflow.tracking_uri={address}", directory=directory)
        assert time.monotonic() - began < 10 + 3 * alone["seconds"]
        assert without_times(tracked) == without_times(alone)
        assert random.getstate() == state
        said = capfd.readouterr()
        for service in ("wandb", "mlflow"):
            assert said.out.count(f"{service} is left out of this run, which goes on (run.log says why): ") == 1
        assert not [line for line in said.err.splitlines() if "Traceback" in line]
    train("seed=1", "logger=wandb", "logger.wandb.mode=offline", directory="later")
    assert WandbRuns(tmp_path / "later").curve("val/loss")


class Fake(RemoteTracker):
    """Fails, or does not return, where it is told to."""

    service = "fake"

    def __init__(self, fails: str, *args: Any) -> None:
        self.fails = fails
        self.told: list[Any] = []
        super().__init__(*args)

    def _do(self, what: str) -> None:
        if self.fails == what:
            raise SystemExit(f"{what} does not work\nfor many reasons")
        if self.fails == f"stuck in {what}":
            time.sleep(30)
        if self.fails == f"slow in {what}":
            time.sleep(0.2)

    def _prepare(self) -> None:
        if self.fails == "load":
            raise ImportError("load does not work")

    def _open(self) -> Logger:
        self._do("open")
        return DummyLogger()

    def _send_metrics(self, metrics: Any, step: int | None) -> None:
        self._do("metrics")
        self.told.append(step)

    def _send_picture(self, tag: str, file: Path, step: int) -> None:
        self.told.append(tag)

    def _send_result(self, metrics: Any, epoch: int) -> None:
        self.told.append(metrics)

    def _close(self, outcome: str) -> None:
        self._do("close")
        self.told.append(outcome)


def tell(settings: Any, folder: Path, fails: str = "", picture: bytes = b"1") -> tuple[Fake, list[str]]:
    """Have a tracker hear of two epochs; return it and what it has said."""
    said: list[str] = []
    folder.mkdir(exist_ok=True)
    (folder / "a.png").write_bytes(picture)
    cfg = settings()
    tracker = Fake(fails, DescribedRun.of(RunDirectory(folder, cfg), Settings.of(cfg)), said.append)
    with tracking([tracker]):
        tracker.log_metrics({"a": 1.0}, 1)
        tracker.log_metrics({"a": 1.0}, 2)
        tracker.log_picture("figures/a", folder / "a.png", 2)
        tracker.log_result({}, {"test/a": 1.0}, 2)
    return tracker, said


def test_a_tracker_hears_all_in_order_and_once(settings: Any, tmp_path: Path) -> None:
    tracker, said = tell(settings, tmp_path / "run")
    assert tracker.told == [1, 2, "figures/a", {"test/a": 1.0}, "success"]
    again, _ = tell(settings, tmp_path / "run")
    assert (again.told, said) == (["success"], [])
    of_more_epochs, _ = tell(settings, tmp_path / "run", picture=b"2")
    assert of_more_epochs.told == ["figures/a", "success"]


@pytest.mark.parametrize(("error", "outcome"), [(ValueError, "failed"), (KeyboardInterrupt, "interrupted")])
def test_a_tracker_hears_how_a_run_ended(
    settings: Any, tmp_path: Path, error: type[BaseException], outcome: str
) -> None:
    cfg = settings()
    tracker = Fake("", DescribedRun.of(RunDirectory(tmp_path, cfg), Settings.of(cfg)), print)
    with pytest.raises(error), tracking([tracker]):
        raise error
    assert tracker.told == [outcome]


def test_an_interrupted_run_waits_for_all_calls_together(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_PATIENCE_AFTER_FAILURE", 0.3)
    cfg = settings()
    tracker = Fake("slow in metrics", DescribedRun.of(RunDirectory(tmp_path, cfg), Settings.of(cfg)), print)
    began = time.monotonic()
    with suppress(KeyboardInterrupt), tracking([tracker]):
        for epoch in range(50):
            tracker.log_metrics({"a": 1.0}, epoch)
        raise KeyboardInterrupt
    assert time.monotonic() - began < 3
    assert 1 <= len(tracker.told) < 10


def test_a_result_is_written_before_trackers_are_waited_for(train: Any, tmp_path: Path, monkeypatch: Any) -> None:
    there = []
    monkeypatch.setattr(CsvTracker, "wait", lambda self: there.append((tmp_path / "run/result.json").is_file()))
    train("trainer.max_epochs=1", "logger=csv")
    assert there == [True]


def test_wandb_is_told_again_what_a_kill_may_have_lost(settings: Any, tmp_path: Path) -> None:
    cfg = settings("logger=wandb")
    described = DescribedRun.of(RunDirectory(tmp_path, cfg), Settings.of(cfg))
    (tmp_path / "trackers").mkdir()
    for closed, told in ((True, ["epoch 1"]), (False, [])):
        note = {"id": "a", "closed": closed, "told": ["epoch 1"]}
        (tmp_path / "trackers/wandb.json").write_text(json.dumps(note))
        assert WandbTracker(Settings.of(cfg).logger.wandb, described, print)._told == told


def test_one_run_at_a_time_makes_the_tables_of_a_file(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    cfg = settings("logger=mlflow", "logger.mlflow.tracking_uri=sqlite:///outputs/mlflow.db")
    opened = threading.Event()
    monkeypatch.setattr(mlflow_tracker, "MLFlowLogger", lambda **kwargs: opened.set() or MagicMock(run_id="a"))
    tracker = MlflowTracker(
        Settings.of(cfg).logger.mlflow, DescribedRun.of(RunDirectory(tmp_path, cfg), Settings.of(cfg)), print
    )
    with make_lock(tmp_path / "outputs/.mlflow.db.lock"):
        tracker.begin()
        assert not opened.wait(0.3)
    assert opened.wait(10)
    tracker.announce_end("success")
    tracker.wait()


def test_the_user_environment_names_project_and_experiment(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    chosen = Settings.of(settings("logger=[wandb,mlflow]")).logger
    assert (chosen.wandb.project, chosen.mlflow.experiment) == ("convolt", None)
    monkeypatch.setenv("WANDB_PROJECT", "ours")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "first")
    chosen = Settings.of(settings("logger=[wandb,mlflow]")).logger
    assert (chosen.wandb.project, chosen.mlflow.experiment) == ("ours", "first")


@pytest.mark.parametrize("fails", ["load", "open", "metrics", "close"])
def test_the_first_failure_ends_a_tracker_and_is_said_once(settings: Any, tmp_path: Path, fails: str) -> None:
    tracker, said = tell(settings, tmp_path / "run", fails)
    assert said == [f"fake is left out of this run, which goes on (run.log says why): {fails} does not work"]
    assert "success" not in tracker.told


@pytest.mark.parametrize("fails", ["open", "metrics", "close"])
def test_a_call_that_does_not_return_is_not_waited_for(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    monkeypatch.setattr(remote, "_PATIENCE", 0.2)
    began = time.monotonic()
    _, said = tell(settings, tmp_path / "run", f"stuck in {fails}")
    assert time.monotonic() - began < 5
    assert said == ["fake is left out of this run, which goes on (run.log says why): no answer for 0 seconds"]


def test_processes_but_the_first_tell_nobody(settings: Any, tmp_path: Path) -> None:
    cfg = settings("logger=[tensorboard,csv]")
    directory = RunDirectory(tmp_path / "run", cfg)
    for rank, kinds in ((0, ["TensorBoardTracker", "CsvTracker"]), (1, ["DummyLogger", "DummyLogger"])):
        loggers = make_loggers(Settings.of(cfg), directory, print, epochs_done=0, rank=rank)
        assert [type(each).__name__ for each in loggers] == kinds
    assert isinstance(make_loggers(Settings.of(cfg), directory, print, epochs_done=0, rank=0)[1], CSVLogger)


def test_a_run_without_trackers_leaves_all_but_events(train: Any, tmp_path: Path) -> None:
    result = train("logger=none", "trainer.max_epochs=1", "pictures.enabled=true", "pictures.detail=light")
    assert not list((tmp_path / "run").glob("*events*"))
    assert (tmp_path / "run/figures/curves.png").is_file()
    assert "logger" not in result["choices"]


def test_rows_and_studies_name_a_run(settings: Any, tmp_path: Path) -> None:
    row = {"runs": [{"dir": "18-layers/seed=3"}], "untuned": [{"dir": "18-layers/untuned/seed=3"}]}
    study: dict[str, Any] = {"name": "depth", "rows": {"18 layers": row, "34": {"runs": []}}}
    study["tuning"] = {"cells": [{"row": "34", "trials": [{"runs": [{"dir": "34/tuning/trial=00,seed=0"}]}]}]}
    (tmp_path / "study.json").write_text(json.dumps(study))
    cfg = settings("seed=3", "optim=sgd", "logger=csv", "pictures.detail=light")

    def described(folder: str) -> tuple[str, str, str, str]:
        each = DescribedRun.of(RunDirectory(tmp_path / folder, cfg), Settings.of(cfg))
        return each.group, each.row, each.kind, each.name

    assert described("18-layers/seed=3") == ("depth", "18 layers", "run", "18-layers/seed=3")
    assert described("18-layers/untuned/seed=3") == ("depth", "18 layers", "untuned", "18-layers/untuned/seed=3")
    assert described("34/tuning/trial=00,seed=0") == ("depth", "34", "trial", "34/tuning/trial=00,seed=0")
    assert described("34/seed=9") == ("depth", "34", "", "34/seed=9")
    (tmp_path / "study.json").unlink()
    assert described("run") == ("", "trainer.max_epochs=2,optim=sgd", "", "lenet digits sgd run")
