"""Whole runs in this process: what they learn, what they leave, and that they can be repeated and continued."""

import csv
import json
import logging
import math
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from convolt.errors import DivergedError, UserError
from convolt.runs.checkpoints import intact_epochs
from convolt.runs.history import read_rows
from convolt.system.files import add_digest, write_json
from convolt.tasks.classification import ClassificationTask
from convolt.training.run import run

CONTRACT = {
    "metrics", "per_class", "confusion_matrix", "parameters", "trainable_parameters", "macs", "seconds", "cpu_seconds",
    "images_per_second", "peak_memory_bytes", "config_hash", "dataset_hash", "git_commit", "versions", "device",
    "threads", "slots", "seed", "checkpoint", "tested_epoch", "epochs", "choices", "precision",
}  # fmt: skip


def test_lenet_learns_the_digits(train: Any) -> None:
    assert train("trainer.max_epochs=15")["metrics"]["test/accuracy"] >= 0.97


def test_a_run_leaves_what_the_contract_says(train: Any, tmp_path: Path) -> None:
    result = train("optim=momentum")
    folder = tmp_path / "run"
    assert set(result) >= CONTRACT
    assert json.loads((folder / "result.json").read_text()) == json.loads(json.dumps(result))
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["epoch"], status["max_epochs"]) == ("finished", 2, 2)
    assert OmegaConf.load(folder / ".hydra/config.yaml").optim.momentum == 0.9
    assert "optim=momentum" in OmegaConf.load(folder / ".hydra/overrides.yaml")
    with (folder / "metrics.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "learning_rate", "images_per_second"} <= set(
        rows[0]
    )
    index = json.loads((folder / "checkpoints/index.json").read_text())
    assert set(index) == {"best.ckpt", "epoch-0001.ckpt", "epoch-0002.ckpt"}
    assert (folder / "run.log").exists()
    assert not list(folder.rglob("*.tmp"))


def test_the_result_agrees_with_itself(train: Any) -> None:
    result = train()
    matrix, per_class = result["confusion_matrix"], result["per_class"]
    images = sum(map(sum, matrix))
    assert images == result["images"]["test"] == sum(row["support"] for row in per_class)
    assert result["metrics"]["test/accuracy"] == pytest.approx(sum(matrix[k][k] for k in range(10)) / images)
    macro = sum(row["f1"] for row in per_class) / 10
    assert result["metrics"]["test/f1"] == pytest.approx(macro, abs=1e-6)
    assert result["parameters"] == 61_706


def test_tensorboard_has_curves_and_hyperparameters(train: Any, tmp_path: Path) -> None:
    train("optim=sgd", "scheduler=constant", "++model.dropout=0.25", "data.mean=[0.5]", "~task.test_time_flip")
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert {"train/loss", "val/accuracy", "learning_rate", "images_per_second", "test/accuracy"} <= set(
        events.Tags()["scalars"]
    )
    assert [event.step for event in events.Scalars("val/accuracy")] == [1, 2]
    assert [event.value for event in events.Scalars("learning_rate")] == pytest.approx([0.1, 0.1])
    plugin = events.SummaryMetadata("_hparams_/session_start_info").plugin_data
    assert plugin.plugin_name == "hparams"
    hparams = HParamsPluginData.FromString(plugin.content).session_start_info.hparams
    kinds = {key: value.WhichOneof("kind") for key, value in hparams.items()}
    assert {kinds[key] for key in ("lr", "model.dropout", "trainer.max_epochs", "epochs")} == {"number_value"}
    assert hparams["model.dropout"].number_value == 0.25
    assert hparams["optim"].string_value == "sgd"
    assert hparams["data.mean"].string_value == "[0.5]"
    assert not {key for key in hparams if key.startswith(("task", "pictures", "~", "+"))}


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(train: Any) -> None:
    options = ("augmentation=[crop,affine,color,cutout,mixup]", "model.dropout=0.2", "scheduler=onecycle", "seed=0")
    first = train(*options, directory="a")["metrics"]
    assert train(*options, directory="b")["metrics"] == first
    assert train(*options[:-1], "seed=1", directory="c")["metrics"] != first


def test_seed_zero_is_a_seed(train: Any) -> None:
    torch.manual_seed(123)
    first = train("seed=0", directory="a")["metrics"]
    torch.manual_seed(321)
    assert train("seed=0", directory="b")["metrics"] == first


def test_a_finished_run_is_kept_unless_forced_and_other_settings_move_it_aside(train: Any, tmp_path: Path) -> None:
    first = train()
    assert train()["finished"] == first["finished"]
    forced = train("force=true")
    assert forced["finished"] >= first["finished"]
    assert forced["metrics"] == first["metrics"]
    other = train("optim.lr=0.01")
    assert other["config_hash"] != first["config_hash"]
    assert {path.name for path in tmp_path.iterdir()} == {"run", "run.old1", "run.old2"}
    assert json.loads((tmp_path / "run.old1/result.json").read_text())["finished"] == first["finished"]


def test_a_run_that_cannot_begin_takes_no_other_ones_place(
    train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train("debug=smoke")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    for settings in (["debug=smoke", "force=true"], []):
        with pytest.raises(UserError, match="has no layer 'nothing'"):
            train(*settings, "pictures.layers=[nothing]")
        assert "moved back from run.old1: nothing has begun" in capsys.readouterr().out
    with pytest.raises(UserError, match="a run that starts from these weights cannot take their place"):
        train("debug=smoke", f"init_from={tmp_path / 'run'}")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_leaves_logging_and_warnings_as_they_were(settings: Any, tmp_path: Path) -> None:
    root, lightning = logging.getLogger(), logging.getLogger("pytorch_lightning")
    before = (root.handlers[:], lightning.handlers[:], lightning.propagate, warnings.showwarning)
    cfg = settings("trainer.max_epochs=1")
    result = run(cfg, str(tmp_path / "text"))
    assert run(cfg, tmp_path / "text") == json.loads(json.dumps(result))
    assert (root.handlers[:], lightning.handlers[:], lightning.propagate, warnings.showwarning) == before


class CutOff(Callback):
    """Breaks off a run in the middle of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.current_epoch == self.epoch and trainer.fit_loop.epoch_loop.batch_idx >= 3:
            raise KeyError("cut off")


@pytest.mark.parametrize(
    "options",
    [
        ("optim=adam", "scheduler=onecycle", "model.dropout=0.2", "augmentation=[crop,mixup]"),
        (
            "optim=momentum",
            "scheduler=plateau",
            "scheduler.patience=0",
            "trainer.early_stopping.patience=2",
            "optim.lr=0.1",
        ),
        ("optim=sgd", "scheduler=step", "data.val_fraction=0"),
    ],
    ids=["onecycle", "plateau", "step"],
)
def test_a_run_that_was_cut_off_and_moved_ends_with_the_same_bits(
    settings: Any, tmp_path: Path, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = settings("trainer.max_epochs=4", *options)
    whole = run(cfg, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("convolt.training.trainer._callbacks", with_callback(CutOff(2)))
        with pytest.raises(KeyError, match="cut off"):
            run(cfg, tmp_path / "cut")
    status = json.loads((tmp_path / "cut/status.json").read_text())
    assert status["state"] == "failed"
    assert "cut off" in status["traceback"]
    shutil.move(tmp_path / "cut", tmp_path / "moved")
    continued = run(cfg, tmp_path / "moved")
    assert continued["metrics"] == whole["metrics"]
    assert continued["confusion_matrix"] == whole["confusion_matrix"]
    same = ("epoch", "train/loss", "val/loss", "learning_rate")
    rows = [
        [[row.get(name) for name in same] for row in read_rows(tmp_path / d / "metrics.csv")]
        for d in ("whole", "moved")
    ]
    assert rows[0] == rows[1]


def with_callback(callback: Callback) -> Any:
    """Add a callback in front of a run's own."""
    from convolt.training.trainer import _callbacks

    return lambda *args, **kwargs: [callback, *_callbacks(*args, **kwargs)]


def test_a_damaged_checkpoint_is_passed_over(train: Any, tmp_path: Path) -> None:
    train()
    folder = tmp_path / "run/checkpoints"
    assert intact_epochs(folder / "epoch-0002.ckpt") == 2
    damaged = bytearray((folder / "epoch-0002.ckpt").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (folder / "epoch-0002.ckpt").write_bytes(damaged)
    assert intact_epochs(folder / "epoch-0002.ckpt") is None
    assert intact_epochs(folder / "epoch-0001.ckpt") == 1


def test_checkpoints_are_plain_tensors_and_containers(train: Any, tmp_path: Path) -> None:
    train("augmentation=mixup", "scheduler=onecycle", "trainer.early_stopping.patience=3")
    for path in (tmp_path / "run/checkpoints").glob("*.ckpt"):
        assert "state_dict" in torch.load(path, weights_only=True)


def test_a_run_killed_between_its_result_and_its_status_is_finished_and_tidied(train: Any, tmp_path: Path) -> None:
    first = train()
    status = tmp_path / "run" / "status.json"
    ended = json.loads(status.read_text())
    write_json(status, add_digest({**ended, "state": "running"}))
    (tmp_path / "run" / ".status.json.4242.tmp").write_text("{")
    assert train() == first
    assert json.loads(status.read_text())["state"] == "finished"
    assert not list((tmp_path / "run").glob(".*.tmp"))


def test_a_loss_that_is_not_finite_ends_the_run_before_a_checkpoint(train: Any, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"epoch 1; lower optim\.lr"):
        train("optim=sgd", "optim.lr=1e30")
    assert json.loads((tmp_path / "run/status.json").read_text())["state"] == "failed"
    assert not list((tmp_path / "run").glob("checkpoints/*.ckpt"))
    assert not (tmp_path / "run/result.json").exists()


def test_the_step_is_named_at_which_the_loss_stopped_being_finite(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    compute = ClassificationTask.loss
    batches = [0, 0]

    def loss(self: ClassificationTask, outputs: Any, targets: Any) -> Any:
        value, logits = compute(self, outputs, targets)
        batches[self.current_epoch] += 1
        return (value * math.inf if batches[1] == 6 else value), logits

    monkeypatch.setattr(ClassificationTask, "loss", loss)
    with pytest.raises(DivergedError) as error:
        train("trainer.accumulate_grad_batches=2")
    steps_of_an_epoch = (batches[0] + 1) // 2
    assert f"first at step {steps_of_an_epoch + 2}, in epoch 2;" in str(error.value)


def test_the_last_checkpoint_is_tested_where_nothing_validates_or_when_asked(train: Any) -> None:
    result = train("data.val_fraction=0", directory="a")
    assert (result["checkpoint"], result["tested_epoch"]) == ("last", 2)
    assert "val/accuracy" not in result["metrics"]
    result = train("trainer.test=last", directory="b")
    assert (result["checkpoint"], result["tested_epoch"]) == ("last", 2)
    assert train(directory="c")["checkpoint"] == "best"


def test_nothing_waits_for_validation_images_that_are_not_there(train: Any, tiny: Path) -> None:
    for watcher in ("scheduler=plateau", "trainer.early_stopping.patience=2"):
        with pytest.raises(UserError, match="no validation images"):
            train("data=arrays", f"data.path={tiny}", "data.val_fraction=0", "data.image_size=32", watcher)


def test_the_best_epoch_is_the_one_that_is_tested(train: Any, tmp_path: Path) -> None:
    result = train("optim=momentum", "optim.lr=0.08", "trainer.max_epochs=5")
    accuracies = [row["val/accuracy"] for row in read_rows(tmp_path / "run/metrics.csv")]
    assert result["tested_epoch"] == accuracies.index(max(accuracies)) + 1
    assert result["metrics"]["val/accuracy"] == max(accuracies)


def test_early_stopping_stops(train: Any) -> None:
    result = train("optim=sgd", "optim.lr=1e-9", "trainer.early_stopping.patience=2", "trainer.max_epochs=9",
                   "trainer.early_stopping.min_delta=0.1")  # fmt: skip
    assert result["epochs"] == 3


def test_the_overfit_preset_learns_64_images_by_heart(train: Any) -> None:
    result = train("debug=overfit", "augmentation=all", "trainer.max_epochs=1")
    assert result["metrics"]["test/accuracy"] == 1  # of the same images; while they train, some are still wrong
    assert result["metrics"]["train/accuracy"] > 0.9
    assert result["images"] == {"train": 64, "val": 64, "test": 64}


def test_the_smoke_preset_lowers_what_was_asked(train: Any) -> None:
    result = train("debug=smoke", "trainer.max_epochs=50")
    assert result["epochs"] == 1
    assert sum(map(sum, result["confusion_matrix"])) == 359  # two test batches of 256 hold all of them


def test_options_go_together_on_other_data(train: Any, tiny: Path) -> None:
    data = ("data=arrays", f"data.path={tiny}", "data.image_size=32", "data.batch_size=16", "data.classes=['0','2']")
    optim = ("optim=nesterov", "optim.weight_decay=1e-4", "task.weight_decay_on=weights", "task.label_smoothing=0.1")
    trainer = ("trainer.gradient_clip_val=1", "trainer.accumulate_grad_batches=2", "scheduler=cosine")
    more = ("scheduler.warmup_epochs=0.5", "model=resnet18", "batchnorm=after", "augmentation=all", "debug=smoke")
    result = train(*data, *optim, *trainer, *more)
    assert len(result["per_class"]) == 2


def test_augmented_copies_lengthen_the_epoch(train: Any, tmp_path: Path) -> None:
    train("augmentation=flip", "augmentation.copies=1", "data.train_size=64", "trainer.max_epochs=1")
    steps = torch.load(tmp_path / "run/checkpoints/epoch-0001.ckpt", weights_only=True)["global_step"]
    assert steps == 4  # 128 images in batches of 32


def test_a_network_that_cannot_take_the_images_is_named(train: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot take .*8x8.* data\.image_size="):
        train("model=vgg11", "data.image_size=8")
    assert not (tmp_path / "run").exists()


def test_the_users_own_callbacks_join_in(train: Any, tmp_path: Path) -> None:
    train("+callbacks.lr._target_=pytorch_lightning.callbacks.LearningRateMonitor", "scheduler=cosine")
    tags = EventAccumulator(str(tmp_path / "run")).Reload().Tags()["scalars"]
    assert any(tag.startswith("lr-Adam") for tag in tags)


def test_two_processes_train_together(command_here: Any, tmp_path: Path) -> None:
    done = command_here(
        "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_epochs=2", "hydra.run.dir=two"
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "two/result.json").read_text())
    assert result["devices"] == 2
    assert sum(map(sum, result["confusion_matrix"])) == result["images"]["test"]
    assert result["metrics"]["test/accuracy"] > 0.5
