"""Callbacks that validate or save other weights than are trained: those that were validated are tested and used."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from convolt.errors import RunError, UserError
from convolt.inference import evaluate
from convolt.inference.trained import TrainedRun
from convolt.runs.checkpoints import BEST, TRAINED, VALIDATED
from convolt.runs.directory import RunDirectory
from convolt.tasks.classification import ClassificationTask
from convolt.training import resume
from convolt.training.run import run

SHORT = ("trainer.max_epochs=2", "data.train_size=200", "optim=momentum", "optim.lr=0.05", "batchnorm=before")
EMA = ("+callbacks.ema._target_=pytorch_lightning.callbacks.EMAWeightAveraging", "+callbacks.ema.decay=0.9")
AT_EPOCH_ENDS = (*EMA, "+callbacks.ema.update_every_n_steps=0", "+callbacks.ema.update_starting_at_epoch=0")
DOUBLED = ("+callbacks.doubled._target_=training.test_validated_weights.SaveDoubled",)
OTHERS_TESTED = ("+callbacks.others._target_=training.test_validated_weights.TestOthers",)
PRUNED = (
    "+callbacks.pruned._target_=pytorch_lightning.callbacks.ModelPruning", "+callbacks.pruned.amount=0.3",
    "+callbacks.pruned.pruning_fn=l1_unstructured", "trainer.channels_last=false",
)  # fmt: skip
LAST = ("trainer.test=last",)


class SaveDoubled(Callback):
    """Writes other weights than are trained into checkpoints, and never asks for the old ones again."""

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = {name: 2 * value for name, value in checkpoint["state_dict"].items()}


class TestOthers(Callback):
    """Puts its own weights in for the test, as averages of older make do."""

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for parameter in pl_module.parameters():
            parameter.data.zero_()


def cut_off(cfg: Any, folder: Path, epoch: int) -> None:
    """Run until a batch of an epoch, from 0, raises."""
    step = ClassificationTask.training_step

    def stop(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.current_epoch == epoch:
            raise KeyError("cut off")
        return step(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClassificationTask, "training_step", stop)
        with pytest.raises(KeyError, match="cut off"):
            run(cfg, folder)


def checkpoint(folder: Path, name: str = BEST) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / name, weights_only=True)  # type: ignore[no-any-return]


def equal(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "options",
    [EMA, (*AT_EPOCH_ENDS, *LAST), DOUBLED, OTHERS_TESTED, PRUNED],
    ids=["ema", "epoch-ends-last", "doubled", "others-tested", "pruned"],
)
def test_the_weights_that_were_validated_are_tested_and_used(
    options: tuple[str, ...], settings: Any, tmp_path: Path
) -> None:
    result = run(settings(*SHORT, *options), tmp_path / "run")
    trained = TrainedRun(tmp_path / "run")
    for split in ("val", "test"):
        found = evaluate.evaluate(trained, [f"split={split}"])
        assert {f"{split}/{name}": value for name, value in found.metrics.items()} == {
            name: value for name, value in result["metrics"].items() if name.startswith(f"{split}/")
        }
        assert evaluate.compare(trained, found) == []
    used = trained.task().state_dict()
    last = checkpoint(tmp_path / "run", "epoch-0002.ckpt")
    if options[:2] == EMA:  # the test tells something: these are not the trained weights
        assert not equal(used, last[TRAINED])
        assert equal(last["current_model_state"], last[TRAINED])
    assert (VALIDATED in last) == (options[0] == DOUBLED[0] or options[:4] == AT_EPOCH_ENDS or options == PRUNED)


def test_without_validation_the_averages_are_tested(settings: Any, tmp_path: Path) -> None:
    run(settings(*SHORT, *EMA, "data.val_fraction=0"), tmp_path / "run")
    trained = TrainedRun(tmp_path / "run")
    assert evaluate.compare(trained, evaluate.evaluate(trained)) == []
    assert equal(trained.task().state_dict(), checkpoint(tmp_path / "run", "epoch-0002.ckpt")["state_dict"])


@pytest.mark.parametrize("options", [EMA, AT_EPOCH_ENDS, DOUBLED], ids=["ema", "epoch-ends", "doubled"])
def test_a_run_that_was_cut_off_keeps_its_averages_bit_for_bit(
    options: tuple[str, ...], settings: Any, tmp_path: Path
) -> None:
    cfg = settings(*SHORT, *options)
    whole = run(cfg, tmp_path / "whole")
    cut_off(cfg, tmp_path / "cut", 1)
    folder = tmp_path / "cut/checkpoints"
    found = resume.find_checkpoint(RunDirectory(tmp_path / "cut", cfg), needs_best=True, say=print)
    assert found is not None
    before = checkpoint(tmp_path / "cut")["state_dict"]  # lost best weights are had again from the epoch's checkpoint
    (folder / BEST).unlink()
    resume.restore_best(folder, found)
    assert equal(checkpoint(tmp_path / "cut")["state_dict"], before)
    continued = run(cfg, tmp_path / "cut")
    assert continued["metrics"] == whole["metrics"]
    assert continued["confusion_matrix"] == whole["confusion_matrix"]
    first, second = (checkpoint(tmp_path / name, "epoch-0002.ckpt") for name in ("whole", "cut"))
    states = [key for key, value in first.items() if key.endswith(("state_dict", "_state"))]
    assert TRAINED in states
    assert all(equal(first[key], second[key]) for key in states)
    assert equal(checkpoint(tmp_path / "whole")["state_dict"], checkpoint(tmp_path / "cut")["state_dict"])


def test_a_run_that_was_cut_off_before_its_test_tests_the_averages(settings: Any, tmp_path: Path) -> None:
    cfg = settings(*SHORT, *EMA, *LAST)
    whole = run(cfg, tmp_path / "run")
    (tmp_path / "run/result.json").unlink()
    assert run(cfg, tmp_path / "run")["metrics"] == whole["metrics"]


def test_what_cannot_be_right_is_refused_in_a_line(settings: Any, tmp_path: Path) -> None:
    swa = (
        "+callbacks.swa._target_=pytorch_lightning.callbacks.StochasticWeightAveraging",
        "+callbacks.swa.swa_lrs=0.1",
    )
    with pytest.raises(UserError, match=r"callbacks\.swa: .* puts its averages in after the last validation"):
        run(settings(*SHORT, *swa), tmp_path / "swa")
    assert not (tmp_path / "swa").exists()
    cut_off(settings(*SHORT, *PRUNED), tmp_path / "pruned", 1)
    with pytest.raises(RunError, match=r"changed the network's layers .* run it again with force=true"):
        run(settings(*SHORT, *PRUNED), tmp_path / "pruned")
    with pytest.raises(RunError, match=r"are not those of this network .* change them back when the training ends"):
        run(settings(*SHORT, *PRUNED, "+callbacks.pruned.make_pruning_permanent=false"), tmp_path / "kept")


def test_the_pictures_of_an_epoch_are_of_the_weights_that_were_validated(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convolt.training.callbacks.pictures import Pictures

    drawn: list[dict[str, Any]] = []

    def note(self: Any, trainer: Any, module: Any, predicted: Any, *, step: int, tested: int | None) -> None:
        drawn.append({name: value.clone() for name, value in module.state_dict().items()})

    monkeypatch.setattr(Pictures, "_draw", note)
    cfg = settings(*SHORT, *EMA, "pictures.enabled=true", "pictures.every_n_epochs=1")
    run(cfg, tmp_path / "run")
    last = checkpoint(tmp_path / "run", "epoch-0002.ckpt")
    assert len(drawn) == 3  # the last one is of the test
    assert equal(drawn[1], last["state_dict"])
    assert not equal(drawn[0], drawn[1])
    plain = run(settings(*SHORT, *EMA), tmp_path / "plain")
    assert plain["metrics"] == TrainedRun(tmp_path / "run").result["metrics"]
