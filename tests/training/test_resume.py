"""Run directories that were damaged: what can be trusted is used, what cannot is told in a line, no number is wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from convolt.errors import RunError, UserError
from convolt.runs.checkpoints import BEST, load_weights
from convolt.system.files import add_digest, is_damaged, read_json, write_json
from convolt.tasks.classification import ClassificationTask
from convolt.training.run import run

OPTIONS = ("trainer.max_epochs=4", "optim=momentum", "optim.lr=0.05", "data.train_size=300", "pictures.enabled=false")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> tuple[Any, dict[str, Any], Path]:
    """Settings, the result of an uninterrupted run, and a directory that was cut off in its last epoch."""
    from convolt.config.compose import compose

    cfg = compose([f"data.root={data_root}", "trainer.threads=1", *OPTIONS])
    folder = tmp_path_factory.mktemp("reference")
    whole = run(cfg, folder / "whole")
    step = ClassificationTask.training_step

    def stop(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.current_epoch == 3:
            raise KeyError("cut off")
        return step(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClassificationTask, "training_step", stop)
        with pytest.raises(KeyError):
            run(cfg, folder / "cut")
    return cfg, whole, folder / "cut"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
def test_the_older_checkpoint_is_used_and_a_line_says_so(
    reference: Any, tmp_path: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    cfg, whole, cut = reference
    shutil.copytree(cut, tmp_path / "run")
    damage(tmp_path / "run/checkpoints/epoch-0003.ckpt")
    assert run(cfg, tmp_path / "run")["metrics"] == whole["metrics"]
    said = capsys.readouterr().out.splitlines()
    expected = "checkpoints/epoch-0003.ckpt is damaged or missing: resumes from the older epoch-0002.ckpt"
    assert said.count(expected) == 1
    assert "resumes after epoch 2" in said
    names = {path.name for path in (tmp_path / "run/checkpoints").iterdir()}
    assert names >= {"best.ckpt", "epoch-0003.ckpt", "epoch-0004.ckpt", "index.json"}


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
def test_without_any_checkpoint_to_trust_it_begins_anew(
    reference: Any, tmp_path: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    cfg, whole, cut = reference
    shutil.copytree(cut, tmp_path / "run")
    for path in (tmp_path / "run/checkpoints").glob("epoch-*.ckpt"):
        damage(path)
    assert run(cfg, tmp_path / "run")["metrics"] == whole["metrics"]
    assert "no older one to resume from: starts over" in capsys.readouterr().out
    kept = {path.name for path in (tmp_path / "run/checkpoints").glob("epoch-*.ckpt")}
    assert kept == {"epoch-0003.ckpt", "epoch-0004.ckpt"}


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
@pytest.mark.parametrize(
    "file", ["checkpoints/index.json", "checkpoints/best.ckpt", "metrics.csv", "status.json", ".hydra/config.yaml"]
)
def test_no_damaged_file_changes_a_number(
    reference: Any, tmp_path: Path, damage: Callable[[Path], None], file: str
) -> None:
    cfg, whole, cut = reference
    shutil.copytree(cut, tmp_path / "run")
    damage(tmp_path / "run" / file)
    again = run(cfg, tmp_path / "run")
    assert again["metrics"] == whole["metrics"]
    assert again["confusion_matrix"] == whole["confusion_matrix"]
    assert (tmp_path / "run/metrics.csv").read_text().count("\n") == 5


def test_every_flipped_bit_of_a_result_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    content = add_digest({"metrics": {"test/accuracy": 0.978, "test/loss": float("nan")}, "seed": 0})
    write_json(file, content)
    text = file.read_bytes()
    assert read_json(file) == content
    for place in range(8 * len(text)):
        flipped = bytearray(text)
        flipped[place // 8] ^= 1 << place % 8
        file.write_bytes(flipped)
        found = read_json(file)
        assert found is None or found["metrics"] == content["metrics"]
    assert not is_damaged({"metrics": {}})  # written by hand


def test_a_damaged_result_is_measured_again(reference: Any, tmp_path: Path) -> None:
    cfg, whole, _ = reference
    first = run(cfg, tmp_path / "run")
    text = (tmp_path / "run/result.json").read_text()
    value = str(whole["metrics"]["test/accuracy"])
    (tmp_path / "run/result.json").write_text(text.replace(value, "0.999", 1))
    again = run(cfg, tmp_path / "run")
    assert again["metrics"] == first["metrics"] == whole["metrics"]
    assert again["finished"] >= first["finished"]
    assert json.loads((tmp_path / "run/result.json").read_text())["metrics"] == whole["metrics"]


def test_checkpoints_of_other_settings_are_never_gone_on_with(
    reference: Any, settings: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, cut = reference
    shutil.copytree(cut, tmp_path / "run")
    for witness in ("status.json", ".hydra/config.yaml"):
        (tmp_path / "run" / witness).unlink()
    other = settings(*OPTIONS, "optim.lr=0.04")
    alone = run(other, tmp_path / "alone")
    capsys.readouterr()
    assert run(other, tmp_path / "run")["metrics"] == alone["metrics"]
    assert "epoch-0003.ckpt belongs to other settings" in capsys.readouterr().out


def test_other_settings_move_a_run_aside_and_a_line_says_so(
    reference: Any, settings: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, cut = reference
    shutil.copytree(cut, tmp_path / "run")
    run(settings(*OPTIONS, "optim.lr=0.04"), tmp_path / "run")
    assert "is of other settings, or forced to run again: moved to run.old1" in capsys.readouterr().out
    assert (tmp_path / "run.old1/checkpoints/epoch-0003.ckpt").exists()


def test_other_conditions_are_told_since_they_change_bits(
    reference: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg, _, cut = reference
    shutil.copytree(cut, tmp_path / "run")
    monkeypatch.setattr("convolt.training.machine._device_name", lambda device: "another processor")
    run(cfg, tmp_path / "run")
    assert "another processor now): not the bits of an uninterrupted run" in capsys.readouterr().out


def test_best_weights_of_another_epoch_are_refused(reference: Any, tmp_path: Path) -> None:
    _, _, cut = reference
    shutil.copytree(cut, tmp_path / "run")
    index = json.loads((tmp_path / "run/checkpoints/index.json").read_text())
    best = index[BEST]["epochs"]
    task = torch.nn.Module()
    for epochs, wanted in ((best, best + 1), (None, best)):
        if epochs is None:
            flip(tmp_path / "run/checkpoints" / BEST)
        with pytest.raises(RunError, match=r"best\.ckpt is .*: train it again with force=true"):
            load_weights(task, tmp_path / "run/checkpoints" / BEST, wanted)  # type: ignore[arg-type]


def test_what_a_killed_write_left_is_cleared_away(reference: Any, tmp_path: Path) -> None:
    cfg, _, cut = reference
    shutil.copytree(cut, tmp_path / "run")
    left = [tmp_path / "run/.status.json.123.tmp", tmp_path / "run/.hydra/.config.yaml.123.tmp"]
    left += [tmp_path / "run/checkpoints/.epoch-0004.ckpt.123.tmp", tmp_path / "run/projector/.tensors.tsv.123.tmp"]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
    run(cfg, tmp_path / "run")
    assert not any(path.exists() for path in left)


def test_settings_that_were_edited_are_not_resumed(
    reference: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convolt.cli.train import _resume

    _, _, cut = reference
    shutil.copytree(cut, tmp_path / "run")
    config = tmp_path / "run/.hydra/config.yaml"
    config.write_text(config.read_text().replace("lr: 0.05", "lr: 0.5"))
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr("sys.argv", ["train.py", f"resume={tmp_path / 'run'}"])
    with pytest.raises(UserError, match="has changed since the run began"):
        _resume(tmp_path / "run")
    assert sorted(tmp_path.rglob("*")) == before
