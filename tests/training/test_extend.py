"""resume=RUN_DIR with other epochs or with its images elsewhere: the bits of a run that was so from the first."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from convolt.cli.rerun import rerun
from convolt.config.compose import compose
from convolt.errors import UserError
from convolt.inference.evaluate import main as evaluate
from convolt.reports import study_tables
from convolt.reports.collect import open_folder, read_run
from convolt.reports.formats import Metric
from convolt.reports.statistics import analyze
from convolt.runs.config_hash import config_hash
from convolt.runs.history import read_rows
from convolt.system.files import write_json
from convolt.tasks.classification import ClassificationTask
from convolt.training.extend import resumed_settings
from convolt.training.run import run

SCHEDULES = {
    "constant": ["scheduler=constant", "optim=adam", "model.dropout=0.2", "augmentation=[crop,flip]"],
    "step": ["scheduler=step", "scheduler.milestones=[1,3]", "scheduler.warmup_epochs=1", "optim=momentum"],
    "plateau": ["scheduler=plateau", "scheduler.patience=0", "scheduler.threshold=0.5", "optim=sgd"],
}
TIMINGS = ("seconds", "images_per_second")


@pytest.fixture(scope="module")
def small(data_root: Path) -> Any:
    def make(*overrides: str) -> DictConfig:
        usual = [f"data.root={data_root}", "trainer.threads=1", "pictures.enabled=false", "data.train_size=300"]
        return compose([*usual, *overrides])

    return make


@pytest.fixture(scope="module")
def finished_runs(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two epochs with schedules that may go on, to be copied."""
    folder = tmp_path_factory.mktemp("extended")
    for name, options in SCHEDULES.items():
        run(small("trainer.max_epochs=2", *options), folder / name)
    return folder


def resume(directory: Path, *changes: str) -> dict[str, Any]:
    cfg, change = resumed_settings(directory, [f"resume={directory}", *changes])
    return run(cfg, directory, change=change)


def same_run(one: Path, other: Path) -> None:
    """Compare results, rows and weights, bit for bit."""
    results = [json.loads((folder / "result.json").read_text()) for folder in (one, other)]
    for key in ("metrics", "per_class", "confusion_matrix", "tested_epoch", "epochs", "config_hash"):
        assert results[0][key] == results[1][key], key
    rows = [
        [
            {name: value for name, value in row.items() if name not in TIMINGS}
            for row in read_rows(folder / "metrics.csv")
        ]
        for folder in (one, other)
    ]
    assert rows[0] == rows[1]
    files = sorted(path.name for path in (other / "checkpoints").glob("*.ckpt"))
    assert sorted(path.name for path in (one / "checkpoints").glob("*.ckpt")) == files
    for name in files:
        first, second = (torch.load(each / "checkpoints" / name, weights_only=True) for each in (one, other))
        assert first["state_dict"].keys() == second["state_dict"].keys()
        assert all(torch.equal(first["state_dict"][key], value) for key, value in second["state_dict"].items())


@pytest.mark.parametrize("name", SCHEDULES)
def test_an_extended_run_has_the_bits_of_a_straight_one(
    name: str, finished_runs: Path, small: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished_runs / name, tmp_path / "run")
    before = json.loads((tmp_path / "run/result.json").read_text())
    straight = small("trainer.max_epochs=4", *SCHEDULES[name])
    run(straight, tmp_path / "straight")
    capsys.readouterr()
    result = resume(tmp_path / "run", "trainer.max_epochs=4")
    assert "resumes after epoch 2, with trainer.max_epochs=4 and not 2" in capsys.readouterr().out
    same_run(tmp_path / "run", tmp_path / "straight")

    [change] = result["changed_settings"]
    assert change["config_hash"] == before["config_hash"]
    assert change["changes"] == {"trainer.max_epochs": [2, 4]}
    assert change["after_epoch"] == 2
    kept = json.loads((tmp_path / "run" / change["earlier_result"]["file"]).read_text())
    assert kept == before
    assert change["earlier_result"]["file"] == "result-epochs-2.json"
    assert change["earlier_result"]["metrics"]["test/accuracy"] == before["metrics"]["test/accuracy"]
    assert run(straight, tmp_path / "run")["finished"] == result["finished"]  # the same settings typed again
    assert "finished before with the same settings" in capsys.readouterr().out
    overrides = OmegaConf.load(tmp_path / "run/.hydra/overrides.yaml")
    assert [text for text in overrides if text.startswith("trainer.max_epochs")] == ["trainer.max_epochs=4"]
    assert read_run(tmp_path / "run").extended == "tested before, extended from 2 to 4 epochs"
    assert read_run(tmp_path / "straight").extended == ""


def test_an_extension_that_was_cut_off_goes_on_twice_and_reports_say_so(
    finished_runs: Path, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished_runs / "plateau", tmp_path / "run")
    folder = tmp_path / "run"
    step = ClassificationTask.training_step

    def cut_off(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.current_epoch == 3:
            raise KeyError("cut off")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(ClassificationTask, "training_step", cut_off)
        with pytest.raises(KeyError):
            resume(folder, "trainer.max_epochs=4")
    assert not (folder / "result.json").exists()
    assert read_run(folder).state == "failed"
    resume(folder)
    result = resume(folder, "trainer.max_epochs=5")
    run(small("trainer.max_epochs=5", *SCHEDULES["plateau"]), tmp_path / "straight")
    same_run(folder, tmp_path / "straight")
    assert [each["earlier_result"]["file"] for each in result["changed_settings"]] == [
        "result-epochs-2.json",
        "result-epochs-4.json",
    ]
    [study] = open_folder(folder)
    said = "tested before, extended from 2 to 4 to 5 epochs"
    table = study_tables.build_results(study, metric := Metric("test/accuracy"), analyze(study, metric))
    assert any(said in note for note in table.footnotes.values())
    assert any(said in row[2].text for row in study_tables.build_runs(study, metric).rows)


def test_settings_may_change_again_before_an_epoch_of_the_last_ones_is_whole(
    finished_runs: Path, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished_runs / "step", folder)

    def cut_off(*_: Any) -> Any:
        raise KeyError("cut off")

    for epochs in (6, 5):
        with monkeypatch.context() as patch:
            patch.setattr(ClassificationTask, "training_step", cut_off)
            with pytest.raises(KeyError):
                resume(folder, f"trainer.max_epochs={epochs}")
    resume(folder, "trainer.max_epochs=4")
    run(small("trainer.max_epochs=4", *SCHEDULES["step"]), tmp_path / "straight")
    same_run(folder, tmp_path / "straight")
    assert read_run(folder).extended == "tested before, extended from 2 to 4 epochs"


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([(2, 6, True), (6, 4, False)], "2 to 4"),
        ([(2, 4, True), (4, 5, True), (5, 4, False)], "2 to 4"),
        ([(2, 4, True), (4, 2, False), (2, 4, True)], "2 to 4"),
        ([(2, 4, True), (4, 2, False)], None),
        ([(2, 4, False)], None),
    ],
)
def test_what_was_cut_off_in_between_was_no_extension(
    steps: list[tuple[int, int, bool]], said: str | None, tmp_path: Path
) -> None:
    changes = [
        {"changes": {"trainer.max_epochs": [before, now]}, "earlier_result": {"file": ""} if tested else None}
        for before, now, tested in steps
    ]
    write_json(tmp_path / "result.json", {"metrics": {}, "changed_settings": changes})
    assert read_run(tmp_path).extended == (f"tested before, extended from {said} epochs" if said else "")


def killed_at(patch: pytest.MonkeyPatch, name: str, nth: int) -> None:
    """End the process, as it were, before the nth writing of a file of this name."""
    import convolt.system.files

    rename, seen = Path.replace, [0]

    def replace(self: Path, target: Path) -> Path:
        if Path(target).name == name:
            seen[0] += 1
            if seen[0] == nth:
                raise KeyboardInterrupt
        return rename(self, target)

    patch.setattr(convolt.system.files.Path, "replace", replace)


@pytest.mark.parametrize("file", ["changed_settings.json", "result-epochs-2.json", "config.yaml", "status.json"])
@pytest.mark.parametrize("again", [[], ["trainer.max_epochs=3"]])
def test_killed_anywhere_in_the_change_it_is_one_run_or_the_other(
    file: str, again: list[str], finished_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished_runs / "step", folder)
    before = json.loads((folder / "result.json").read_text())
    with monkeypatch.context() as patch:
        killed_at(patch, file, 1)
        with pytest.raises(KeyboardInterrupt):
            resume(folder, "trainer.max_epochs=3")
    changed = OmegaConf.load(folder / ".hydra/config.yaml").trainer.max_epochs == 3
    assert changed == (file == "status.json")
    result = resume(folder, *again)
    if again or changed:
        assert result["epochs"] == 3
        assert result["changed_settings"][0]["earlier_result"]["metrics"]["test/loss"] == before["metrics"]["test/loss"]
    else:
        assert result["metrics"] == before["metrics"]
        assert result["config_hash"] == before["config_hash"]
        assert "changed_settings" not in result
    assert not list(tmp_path.glob("run.old*"))


def left_by(cfg: DictConfig, folder: Path, trained: int, *, finished: bool) -> Path:
    """Write what a run leaves of which the number of epochs is decided."""
    for name in (".hydra", "checkpoints"):
        (folder / name).mkdir(parents=True)
    (folder / ".hydra/config.yaml").write_text(OmegaConf.to_yaml(cfg))
    write_json(folder / "status.json", {"state": "interrupted", "config_hash": config_hash(cfg)})
    write_json(folder / "checkpoints/index.json", {f"epoch-{trained:04d}.ckpt": {"epochs": trained}})
    if finished:
        write_json(folder / "result.json", {"metrics": {}, "epochs": trained, "config_hash": config_hash(cfg)})
    return folder


@pytest.mark.parametrize(
    ("options", "epochs", "why"),
    [
        (
            ["scheduler=cosine"],
            4,
            r"=cosine this run had a learning rate of \S+ after \S+ epochs, where one of 4 has .*init_from=",
        ),
        (["scheduler=onecycle"], 4, r"scheduler=onecycle this run had a learning rate of"),
        (["scheduler=step"], 4, r"this run had a learning rate of 1e-05 after 1\.5 epochs, where one of 4 has 0\.001;"),
        (["scheduler=constant"], 1, "2 epochs are trained already"),
        (["scheduler=constant", "debug=smoke"], 4, "debug=smoke sets the number of epochs"),
        (
            ["scheduler=constant", "trainer.early_stopping.patience=1", "trainer.max_epochs=9"],
            12,
            "early stopping ended this run after epoch 2, and would end one of 12 there too",
        ),
    ],
)
def test_what_a_straight_run_would_not_have_done_is_refused_with_the_way_out(
    options: list[str], epochs: int, why: str, small: Any, tmp_path: Path
) -> None:
    left_by(small("trainer.max_epochs=2", *options), tmp_path / "run", 2, finished=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=why) as error:
        resume(tmp_path / "run", f"trainer.max_epochs={epochs}")
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_early_stopping_in_the_last_epoch_is_an_end_too(small: Any, tmp_path: Path) -> None:
    stops = ["scheduler=constant", "trainer.early_stopping.patience=1", "trainer.early_stopping.min_delta=9"]
    run(small("trainer.max_epochs=2", *stops), tmp_path / "run")
    with pytest.raises(UserError, match="early stopping ended this run after epoch 2, and would end one of 4"):
        resume(tmp_path / "run", "trainer.max_epochs=4")
    assert run(small("trainer.max_epochs=4", *stops), tmp_path / "straight")["epochs"] == 2


def test_fractions_of_the_run_that_lie_ahead_may_move(small: Any, tmp_path: Path) -> None:
    cfg = small("trainer.max_epochs=40", "scheduler=step", "scheduler.milestones=[0.5,0.75]")
    for trained, epochs, allowed in ((19, 50, True), (19, 38, False), (20, 50, False), (19, 39, True)):
        folder = left_by(cfg, tmp_path / f"{trained}-{epochs}", trained, finished=False)
        if allowed:
            assert resumed_settings(folder, [f"trainer.max_epochs={epochs}"])[1]
        else:
            with pytest.raises(UserError, match="a learning rate of"):
                resumed_settings(folder, [f"trainer.max_epochs={epochs}"])


def test_without_a_whole_epoch_there_is_nothing_to_extend(small: Any, tmp_path: Path) -> None:
    folder = left_by(small("scheduler=constant"), tmp_path / "run", 2, finished=False)
    with pytest.raises(UserError, match="there is no intact checkpoint from which it could resume"):
        resume(folder, "trainer.max_epochs=20")
    (folder / "checkpoints/index.json").unlink()
    with pytest.raises(UserError, match="no epoch has been completed; start a run with these settings instead"):
        resume(folder, "trainer.max_epochs=20")


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("optim.lr=1", "takes no others but trainer.max_epochs, trainer.devices, data.root, data.path"),
        ("trainer.max_epoch=3", "did you mean 'trainer.max_epochs'"),
        ("trainer.max_epochs=many", "valid integer"),
        ("trainer.max_epochs=", "a value is missing"),
        ("trainer.max_epochs=[", "the value cannot be read"),
        ("data.path=elsewhere", "data=digits is found by data.root alone"),
        ("trainer.devices=2", "trainer.batch_per=device makes other batches of it"),
        ("-m", "takes no others"),
        ("rerun=elsewhere", "takes no others"),
    ],
)
def test_mistakes_beside_resume_are_named(typed: str, why: str, small: Any, tmp_path: Path) -> None:
    left_by(small("trainer.batch_per=device"), tmp_path / "run", 2, finished=False)
    with pytest.raises(UserError, match=why):
        resumed_settings(tmp_path / "run", [typed])


def test_a_run_of_a_study_keeps_its_epochs(finished_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_runs / "constant", tmp_path / "mine/row/seed=0")
    (tmp_path / "mine/study.json").write_text("{}")
    with pytest.raises(UserError, match="the run is one of the study mine, whose other runs have 2 epochs; copy"):
        resume(tmp_path / "mine/row/seed=0", "trainer.max_epochs=4")


def test_a_run_that_was_forced_goes_on_and_does_not_begin_anew(small: Any, tmp_path: Path) -> None:
    run(small("trainer.max_epochs=1", "force=true", "scheduler=constant"), tmp_path / "run")
    assert resume(tmp_path / "run", "trainer.max_epochs=2")["epochs"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.fixture(scope="module")
def on_arrays(tiny: Path, small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one epoch on arrays that may be moved, and these arrays beside it."""
    folder = tmp_path_factory.mktemp("moving")
    shutil.copy(tiny, folder / "images.npz")
    arrays = [
        f"data.path={folder / 'images.npz'}",
        "data=arrays",
        "data.image_size=32",
        "data.train_size=null",
        "scheduler=constant",
    ]
    run(small("trainer.max_epochs=1", *arrays), folder / "run")
    (folder / "images.npz").rename(folder / "moved.npz")
    return folder


def test_a_run_goes_on_after_its_images_moved_where_they_are_the_same(on_arrays: Path, tmp_path: Path) -> None:
    shutil.copytree(on_arrays / "run", tmp_path / "run")
    with pytest.raises(UserError, match=r"images\.npz"):
        resume(tmp_path / "run", "trainer.max_epochs=2")
    with np.load(on_arrays / "moved.npz") as arrays:
        others = dict(arrays)
    others["x_test"] = 255 - others["x_test"]
    np.savez(tmp_path / "others.npz", **others)
    before = sorted((tmp_path / "run").rglob("*"))
    with pytest.raises(UserError, match=r"has changed since this run began \(SHA-256"):
        resume(tmp_path / "run", "trainer.max_epochs=2", f"data.path={tmp_path / 'others.npz'}")
    assert sorted((tmp_path / "run").rglob("*")) == before
    moved = f"data.path={on_arrays / 'moved.npz'}"
    with pytest.raises(UserError, match=r"the run has finished; python evaluate\.py"):
        resume(tmp_path / "run", moved)
    result = resume(tmp_path / "run", "trainer.max_epochs=2", moved)
    assert result["epochs"] == 2
    assert list(result["changed_settings"][0]["changes"]) == ["trainer.max_epochs", "data.path"]
    cfg = OmegaConf.load(tmp_path / "run/.hydra/config.yaml")
    assert cfg.data.path == cfg.data.source.path == str(on_arrays / "moved.npz")
    assert result["config_hash"] == config_hash(cfg)
    (tmp_path / "run/result.json").unlink()  # cut off, and moved back
    shutil.copy(on_arrays / "moved.npz", tmp_path / "back.npz")
    again = resume(tmp_path / "run", f"data.path={tmp_path / 'back.npz'}", f"data.root={tmp_path / 'prepared'}")
    assert again["metrics"] == result["metrics"]
    assert len(again["changed_settings"]) == 2


def test_evaluate_and_rerun_take_images_that_moved(
    on_arrays: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(on_arrays / "run", tmp_path / "run")
    moved = str(on_arrays / "moved.npz")
    assert evaluate([str(tmp_path / "run"), f"data.path={moved}"]) == 0
    assert "equal to the run's own numbers, bit for bit" in capsys.readouterr().out
    assert rerun(tmp_path / "run", {"data.path": moved})
